//! Runs that memory is refused to, as a user sees them.

use std::path::Path;

use tempfile::tempdir;

use crate::files::{
    assert_same_numbers, checkpoints, contents, metrics, of_kind, recoveries, resumed_elsewhere,
    state, train, trained,
};
use crate::process::checkpoint;

/// What the run says of its recoveries on stderr is what it wrote down.
#[track_caller]
fn assert_told(folder: &Path, stderr: &str, expected: &[(u64, &str, u64, u64)]) {
    let recorded = recoveries(folder);
    let recorded: Vec<_> = recorded
        .iter()
        .map(|(step, site, from, to)| (*step, site.as_str(), *from, *to))
        .collect();
    assert_eq!(recorded, expected);
    let told: Vec<&str> = stderr
        .lines()
        .filter(|line| line.starts_with("warning: "))
        .collect();
    assert_eq!(told.len(), expected.len(), "{stderr}");
    for (line, (step, site, from, to)) in told.iter().zip(expected) {
        let start = format!("warning: step {step}: out of memory at {site}");
        assert!(line.starts_with(&start), "{line}");
        let follows = if from == to {
            format!("trying once more with micro-batch {to},")
        } else {
            format!("going on with micro-batch {to},")
        };
        assert!(line.contains(&follows), "{line}");
        // Once when it happens, and once in the summary.
        let text = line.strip_prefix("warning: ").unwrap();
        assert_eq!(stderr.matches(text).count(), 2, "{stderr}");
    }
}

#[test]
fn one_refusal_at_any_site_leaves_a_warning_and_the_same_run() {
    let whole = trained("", "");
    assert!(recoveries(whole.path()).is_empty());
    // Two passes of forward and backward per step, of eval per evaluation; saves follow steps 4 and 5.
    for (injection, step, site) in [
        ("launch:1", 0, "launch"),
        ("launch:20", 0, "launch"),
        ("forward:1", 0, "forward"),
        ("forward:12", 5, "forward"),
        ("backward:16", 7, "backward"),
        ("eval:1", 0, "eval"),
        ("eval:3", 4, "eval"),
        ("eval:6", 8, "eval"),
        ("checkpoint:2", 5, "checkpoint"),
    ] {
        let folder = tempdir().unwrap();
        let run = train(folder.path(), "", &format!("--inject {injection}")).succeeded();
        assert_told(folder.path(), &run.stderr, &[(step, site, 4, 4)]);
        assert_same_numbers(whole.path(), folder.path(), 10);
        let state = state(folder.path(), 10);
        assert_eq!(state["rung"]["micro_batch"], 4);
        assert_eq!(state["recoveries"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn two_refusals_before_the_first_update_are_the_run_at_the_smaller_rung() {
    let smaller = trained("train.batch_size=2", "");
    for (injections, sites) in [
        ("--inject forward:1-2", ["forward", "forward"]),
        (
            "--inject backward:2 --inject backward:4",
            ["backward", "backward"],
        ),
        (
            "--inject forward:2 --inject backward:2",
            ["forward", "backward"],
        ),
        ("--inject launch:9-10", ["launch", "launch"]),
    ] {
        let folder = tempdir().unwrap();
        let run = train(folder.path(), "", injections).succeeded();
        let expected = [(0, sites[0], 4, 4), (0, sites[1], 4, 2)];
        assert_told(folder.path(), &run.stderr, &expected);
        assert_same_numbers(smaller.path(), folder.path(), 10);
    }
}

#[test]
fn two_refusals_later_are_a_run_that_is_resumed_at_the_smaller_rung() {
    let whole = trained("", "");
    let resumed = resumed_elsewhere(whole.path(), 5, "train.batch_size=2");
    for (site, refused, step) in [
        ("forward", [12, 14], 5),
        ("backward", [12, 14], 5),
        ("checkpoint", [2, 3], 5),
    ] {
        let folder = tempdir().unwrap();
        let [first, second] = refused.map(|pass| format!("--inject {site}:{pass}"));
        let run = train(folder.path(), "", &format!("{first} {second}")).succeeded();
        assert_told(
            folder.path(),
            &run.stderr,
            &[(step, site, 4, 4), (step, site, 4, 2)],
        );
        assert_same_numbers(resumed.path(), folder.path(), 10);
    }
}

#[test]
fn refusals_down_to_the_floor_end_in_a_refusal_and_the_run_can_be_resumed() {
    let folder = tempdir().unwrap();
    let refused = train(folder.path(), "model.block_size=32", "--inject forward:14-");
    let refused = refused.refused(&[
        "the smallest launch needs ",
        "and memory was refused (out of memory at forward",
        "; largest: reserve ",
        "each of these fits:",
        "`--set system.recompute=auto` needs ",
        "`--set model.block_size=16` needs ",
        "`--set model.n_layer=1` needs ",
    ]);
    let retries_and_descents = [(4, 4), (4, 2), (2, 2), (2, 1), (1, 1)];
    let expected: Vec<_> = retries_and_descents
        .map(|(from, to)| (6, "forward".to_owned(), from, to))
        .into();
    assert_eq!(recoveries(folder.path()), expected);
    assert_eq!(refused.stderr.matches("warning: ").count(), 5);
    assert!(checkpoint(folder.path(), 5).exists());
    // What was trained is saved before the run ends.
    assert_eq!(state(folder.path(), 6)["rung"]["micro_batch"], 1);

    // Refused again and again, it damages nothing.
    let before = checkpoints(folder.path());
    let again = "--resume --inject backward:1-";
    train(folder.path(), "model.block_size=32", again).refused(&["out of memory at backward"]);
    assert!(before == checkpoints(folder.path()));
    train(folder.path(), "model.block_size=32", "--resume").succeeded();
    assert_eq!(state(folder.path(), 10)["step"], 10);
}

#[test]
fn a_launch_that_is_refused_altogether_says_so_and_writes_nothing() {
    for injection in ["launch:1-2", "launch:3-", "launch:5-"] {
        let folder = tempdir().unwrap();
        let refused = train(folder.path(), "", &format!("--inject {injection}"));
        let stderr = refused.stderr;
        assert_eq!(refused.code, Some(1), "{stderr}");
        assert!(
            stderr.contains("error: the smallest launch needs "),
            "{stderr}"
        );
        assert!(stderr.contains("(out of memory at launch: `"), "{stderr}");
        assert!(stderr.contains("; largest: reserve "), "{stderr}");
        assert!(contents(folder.path()).is_empty(), "{injection}");
    }
}

#[test]
fn a_checkpoint_holds_the_descent_that_it_took_to_write_it() {
    let folder = tempdir().unwrap();
    let settings = "eval.eval_interval=100";
    train(folder.path(), settings, "--inject checkpoint:1-2").succeeded();
    let saved = state(folder.path(), 5);
    assert_eq!(saved["rung"]["micro_batch"], 2);
    let recorded = saved["recoveries"].as_array().unwrap();
    assert_eq!(recorded.len(), 2, "{saved}");
    assert_eq!(recorded[1]["to"], saved["rung"]);
    assert_eq!(recorded[1]["site"], "checkpoint");

    // Continued from there, nothing of it is lost.
    let resumed = resumed_elsewhere(folder.path(), 5, settings);
    assert_same_numbers(folder.path(), resumed.path(), 10);
    assert_eq!(recoveries(folder.path()), recoveries(resumed.path()));
    let last = |folder| state(folder, 10)["recoveries"].clone();
    assert_eq!(last(folder.path()), last(resumed.path()));
}

#[test]
fn json_tells_every_recovery() {
    let folder = tempdir().unwrap();
    let run = train(folder.path(), "", "--json --quiet --inject forward:3-4").succeeded();
    let lines: Vec<_> = run
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told = of_kind(&lines, "recovery", true);
    let mut recorded = of_kind(&metrics(folder.path()), "recovery", true);
    for line in &mut recorded {
        line.as_object_mut().unwrap().remove("tokens_seen");
    }
    assert_eq!(told, recorded);
    assert_eq!(told.len(), 2);
    assert_eq!(
        lines.last().unwrap()["warnings"].as_array().unwrap().len(),
        2
    );
    assert_eq!(run.stderr.matches("warning: ").count(), 2);
}
