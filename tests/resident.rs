//! Resident memory against the plan, of the real process.

#[allow(dead_code)]
mod process;

use std::path::Path;

use serde_json::Value;

/// The planned bytes of a run and the most that its process held, with `flags`, and the cache of tuning in `cache` if that is
/// given. The model is so large that what the plan
/// sets aside for the process and for packing (6 MiB, used or not) is well within the bound at every limit.
fn planned_and_peak(flags: &[&str], cache: Option<&Path>) -> (f64, f64) {
    let folder = tempfile::tempdir().unwrap();
    let model = "model.n_layer=8 model.n_head=4 model.n_embd=256 model.block_size=128 \
        train.sequences_per_step=16 train.max_iters=2 eval.eval_interval=2";
    let flags = [flags, &["--json"]].concat();
    let mut command = process::command(folder.path(), &process::tiny(model, &flags));
    if let Some(cache) = cache {
        command.env("XDG_CACHE_HOME", cache);
    }
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    let events: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let figure = |kind: &str, key: &str| {
        let event = events.iter().find(|event| event["kind"] == kind).unwrap();
        event[key].as_f64().unwrap()
    };
    (
        figure("startup", "planned_bytes"),
        figure("done", "peak_bytes"),
    )
}

#[test]
fn peak_resident_memory_is_within_five_percent_of_the_plan() {
    let (most, _) = planned_and_peak(&[], None);
    for share in [1.0, 0.8, 0.7] {
        let limit = format!("{}", (share * most) as u64);
        let (planned, peak) = planned_and_peak(&["--memory-limit", &limit], None);
        assert!(
            planned <= share * most,
            "{planned} planned, {limit} allowed"
        );
        let distance = (peak / planned - 1.0).abs();
        assert!(distance <= 0.05, "{planned} planned, {peak} held");
    }
}

/// It tunes before its first step, in memory that is planned for the steps.
#[test]
fn a_first_run_holds_no_more_than_its_plan_and_five_percent() {
    let cache = tempfile::tempdir().unwrap();
    let (planned, peak) = planned_and_peak(&[], Some(cache.path()));
    assert!(std::fs::read_dir(cache.path()).unwrap().count() > 0);
    assert!(peak <= 1.05 * planned, "{planned} planned, {peak} held");
}
