//! `--memory-limit`: a run trains at the rung that fits, or is refused before step 0.

use serde_json::Value;
use tempfile::tempdir;

use crate::files::{LADDER, assert_same_numbers, contents, recoveries, state, train, trained};
use crate::process::{TINY, taper};

/// Rungs that are megabytes apart, so that what the process itself takes does not matter.
const WIDE: &str = "model.n_embd=64 model.block_size=128 train.max_iters=3 train.batch_size=8";

/// Bytes and micro-batch of every rung.
fn ladder() -> Vec<(u64, u64)> {
    let folder = tempdir().unwrap();
    let mut arguments = vec!["plan", "--config", "quickstart.toml", "--json"];
    let settings = format!("{TINY} {LADDER} {WIDE}");
    for setting in settings.split_whitespace() {
        arguments.extend(["--set", setting]);
    }
    let plan: Value =
        serde_json::from_str(&taper(folder.path(), &arguments).succeeded().stdout).unwrap();
    let rungs = plan["ladder"].as_array().unwrap().iter();
    let number = |rung: &Value, key: &str| rung[key].as_u64().unwrap();
    rungs
        .map(|rung| (number(rung, "bytes"), number(rung, "micro_batch")))
        .collect()
}

#[test]
fn a_run_that_fits_only_at_a_lower_rung_trains_there() {
    let ladder = ladder();
    let micro_batches: Vec<u64> = ladder.iter().map(|(_, micro_batch)| *micro_batch).collect();
    assert_eq!(micro_batches, [8, 4, 2, 1]);
    for pair in ladder.windows(2).take(2) {
        let (limit, micro_batch) = ((pair[0].0 + pair[1].0) / 2, pair[1].1);
        let limited = tempdir().unwrap();
        train(limited.path(), WIDE, &format!("--memory-limit {limit}")).succeeded();
        assert_eq!(state(limited.path(), 3)["rung"]["micro_batch"], micro_batch);
        assert!(
            recoveries(limited.path()).is_empty(),
            "planned, not recovered"
        );
        let pinned = trained(&format!("{WIDE} train.batch_size={micro_batch}"), "");
        assert_same_numbers(pinned.path(), limited.path(), 3);
    }
}

#[test]
fn a_limit_below_the_floor_is_refused_before_step_0_with_nothing_written() {
    let (floor, _) = *ladder().last().unwrap();
    for limit in [1, floor / 2, floor - (2 << 20)] {
        let folder = tempdir().unwrap();
        let refused = train(folder.path(), WIDE, &format!("--memory-limit {limit}"));
        let refused = refused.refused(&[
            "the smallest launch needs ",
            "the memory limit that was set",
            "--memory-limit ",
        ]);
        assert!(!refused.stderr.contains("iter 1"), "{}", refused.stderr);
        assert!(contents(folder.path()).is_empty());
    }
}

#[test]
fn the_limit_that_a_refusal_proposes_is_enough() {
    let folder = tempdir().unwrap();
    let refused = train(folder.path(), WIDE, "--memory-limit 1MiB").refused(&["--memory-limit "]);
    let (_, proposed) = refused.stderr.split_once("`--memory-limit ").unwrap();
    let (proposed, _) = proposed.split_once('`').unwrap();
    train(folder.path(), WIDE, &format!("--memory-limit {proposed}")).succeeded();
}
