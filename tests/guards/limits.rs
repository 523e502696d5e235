//! Runs whose time is up.

use serde_json::Value;
use tempfile::tempdir;

use crate::{file, metrics, numbers, saved, train, trained};

/// Less than any step takes.
const NO_TIME: &str = "train.max_minutes=0.000000001";

#[test]
fn a_run_whose_time_is_up_saves_ends_well_and_goes_on() {
    let whole = trained("");
    let parts = tempdir().unwrap();
    for step in 1..=3 {
        let flags: &[&str] = if step == 1 { &[] } else { &["--resume"] };
        let run = train(&parts, NO_TIME, flags).succeeded();
        let told = format!(
            "\nstopped at step {step} of 10\n  stopped      `train.max_minutes` = 0.000000001 are over; the same command with \
             plain `--resume` goes on exactly here\n"
        );
        assert!(run.stderr.contains(&told), "{}", run.stderr);
        assert_eq!(saved(&parts).last(), Some(&step));
    }
    let rest = train(&parts, "", &["--resume", "--json"]).succeeded();
    assert!(!rest.stdout.contains("\"stopped\""), "{}", rest.stdout);
    for name in ["model.safetensors", "optimizer.safetensors"] {
        assert!(file(&parts, 10, name) == file(&whole, 10, name), "{name}");
    }
    for kind in ["step", "eval"] {
        let losses = |folder| {
            let key = if kind == "step" { "loss" } else { "val_loss" };
            numbers(&metrics(folder, kind), key)
        };
        assert_eq!(losses(&parts), losses(&whole), "{kind}");
    }
}

#[test]
fn an_evaluation_is_left_to_the_run_that_goes_on_when_the_time_is_up() {
    // It would take longer than any test; the time is up in it, or before it.
    let endless = "eval.eval_iters=100000000 eval.eval_on_start=false eval.eval_interval=1 train.max_minutes=0.01";
    let folder = tempdir().unwrap();
    let run = train(&folder, endless, &["--json"]).succeeded();
    assert_eq!(saved(&folder), [1]);
    assert_eq!(metrics(&folder, "eval").len(), 0);
    let done: Value = serde_json::from_str(run.stdout.lines().last().unwrap()).unwrap();
    let told = done["stopped"].as_str().unwrap();
    assert!(
        told.starts_with("`train.max_minutes` = 0.01 are over"),
        "{told}"
    );

    // The evaluation after the last step, too.
    let last = "eval.eval_on_start=false eval.eval_interval=100 train.max_iters=1";
    let folder = tempdir().unwrap();
    let run = train(&folder, &format!("{last} {NO_TIME}"), &[]).succeeded();
    assert!(run.stderr.contains("`train.max_minutes`"), "{}", run.stderr);
    assert_eq!(metrics(&folder, "eval").len(), 0);
    let rest = train(&folder, &format!("{last} {NO_TIME}"), &["--resume"]).succeeded();
    assert_eq!(metrics(&folder, "eval").len(), 1);
    assert!(
        !rest.stderr.contains("`train.max_minutes`"),
        "{}",
        rest.stderr
    );
}
