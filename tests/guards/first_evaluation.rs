//! The evaluation before the first step.

use std::fs;

use serde_json::Value;
use tempfile::tempdir;

use crate::{between, file, metrics, saved, state, train, trained};

#[test]
fn an_evaluation_comes_before_the_first_step_and_saves_nothing() {
    let folder = tempdir().unwrap();
    let settings = "eval.eval_interval=100 checkpoint.checkpoint_interval=100 checkpoint.keep=1";
    let run = train(&folder, settings, &[]).succeeded();
    let text = fs::read_to_string(folder.path().join("out/metrics.jsonl")).unwrap();
    let place = |line: &str| text.find(line).unwrap();
    let (eval, step) = (
        place("{\"kind\":\"eval\",\"step\":0,"),
        place("{\"kind\":\"step\",\"step\":1,"),
    );
    assert!(eval < step, "{text}");
    let first = run
        .stderr
        .lines()
        .find(|line| line.starts_with("step 0: train loss "));
    assert!(!first.unwrap().contains("best so far"), "{}", run.stderr);
    assert_eq!(saved(&folder), [10]);
    // The loss of untrained weights that `--eval-only` prints.
    let elsewhere = tempdir().unwrap();
    let only = train(&elsewhere, "", &["--eval-only", "--json"]).succeeded();
    let only: Value = serde_json::from_str(only.stdout.trim()).unwrap();
    let evals = metrics(&folder, "eval");
    assert_eq!(evals[0]["val_loss"], only["val_loss"]);
    assert_eq!(
        evals.iter().map(|eval| &eval["step"]).collect::<Vec<_>>(),
        [0, 10]
    );

    let without = trained(&format!("{settings} eval.eval_on_start=false"));
    assert_eq!(metrics(&without, "eval"), evals[1..]);
    for name in ["model.safetensors", "optimizer.safetensors"] {
        assert!(
            file(&folder, 10, name) == file(&without, 10, name),
            "{name}"
        );
    }
}

#[test]
fn the_weights_that_a_run_starts_from_may_stay_the_best() {
    let folder = tempdir().unwrap();
    let settings = "optimizer.learning_rate=30 eval.eval_interval=1 checkpoint.checkpoint_interval=2 train.max_iters=3 \
        checkpoint.keep=1";
    let run = train(&folder, settings, &[]).succeeded();
    let state = state(&folder, 3);
    assert_eq!(state["best_step"], 0);
    assert_eq!(
        state["best_val_loss"],
        metrics(&folder, "eval")[0]["val_loss"]
    );
    let best = between(&run.stderr, "\n  best ", "\n");
    assert!(best.ends_with(" at step 0"), "{best}");
    // Nothing was the best later, so that the newest alone stays.
    assert_eq!(saved(&folder), [3]);
}

#[test]
fn a_run_without_steps_evaluates_nothing() {
    let folder = trained("train.max_iters=0");
    assert_eq!(metrics(&folder, "eval").len(), 0);
}

#[test]
fn a_run_that_goes_on_does_not_begin_with_an_evaluation_again() {
    let folder = trained("train.max_iters=5");
    train(&folder, "", &["--resume"]).succeeded();
    let steps: Vec<Value> = metrics(&folder, "eval")
        .iter()
        .map(|eval| eval["step"].clone())
        .collect();
    assert_eq!(steps, [0, 4, 5, 8, 10]);
}
