//! Training runs: what computes their products is said, stored, and the same after a resume.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::tempdir;

use super::process::{Outcome, checkpoint, command, tiny};

const LIMITED: &str = "gemm.autotune=limited";

/// A run with a cache of its own, `cache` in the folder.
fn train(folder: &Path, settings: &str, flags: &[&str]) -> Outcome {
    let mut command = command(folder, &tiny(settings, flags));
    let output = command
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .output()
        .unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
    .succeeded()
}

fn table(folder: &Path, step: u64) -> Value {
    let state = fs::read_to_string(checkpoint(folder, step).join("state.json")).unwrap();
    serde_json::from_str::<Value>(&state).unwrap()["gemm"].clone()
}

fn says(outcome: &Outcome, what: &str) -> bool {
    let mut lines = outcome.stderr.lines();
    lines.any(|line| line.starts_with("gemm = ") && line.ends_with(what))
}

#[test]
fn a_resumed_run_uses_the_checkpoint_s_table_and_gives_the_same_bits() {
    let folder = tempdir().unwrap();
    let full = "gemm.autotune=full train.max_iters=5";
    let first = train(folder.path(), full, &[]);
    assert!(
        first.stderr.contains(" verified and timed in "),
        "{}",
        first.stderr
    );
    let chosen = table(folder.path(), 5);
    assert_eq!(chosen.as_array().unwrap().len(), 15);
    // A resumed run does not ask the cache.
    fs::remove_dir_all(folder.path().join("cache")).unwrap();
    let full = "gemm.autotune=full train.max_iters=10";
    let resumed = train(folder.path(), full, &["--resume"]);
    assert!(
        says(&resumed, "(15 from the checkpoint)"),
        "{}",
        resumed.stderr
    );
    assert_eq!(table(folder.path(), 10), chosen);
    let weights = fs::read(checkpoint(folder.path(), 10).join("model.safetensors")).unwrap();

    let again = || {
        fs::remove_dir_all(checkpoint(folder.path(), 10)).unwrap();
        train(folder.path(), full, &["--resume"]);
        fs::read(checkpoint(folder.path(), 10).join("model.safetensors")).unwrap()
    };
    assert!(again() == weights);
}

#[test]
fn any_limited_search_gives_the_bits_of_none() {
    let weights = |settings: &str| {
        let folder = tempdir().unwrap();
        train(folder.path(), settings, &[]);
        fs::read(checkpoint(folder.path(), 10).join("model.safetensors")).unwrap()
    };
    let larger = "model.n_embd=96 model.block_size=64 train.sequences_per_step=8";
    let off = weights(&format!("{larger} gemm.autotune=off"));
    assert!(off == weights(&format!("{larger} gemm.autotune=limited")));
    assert!(off == weights(larger));
}

#[test]
fn a_second_run_finds_the_first_one_s_timings() {
    let folder = tempdir().unwrap();
    train(folder.path(), LIMITED, &[]);
    let second = train(
        folder.path(),
        "gemm.autotune=limited checkpoint.out_dir=out2",
        &[],
    );
    assert!(
        says(&second, "(15 timed in an earlier run)"),
        "{}",
        second.stderr
    );
    assert_eq!(second.stderr.matches("\ngemm = ").count(), 1);
}

#[test]
fn a_damaged_cache_is_one_line_and_the_run_goes_on() {
    let folder = tempdir().unwrap();
    train(folder.path(), LIMITED, &[]);
    let caches = fs::read_dir(folder.path().join("cache/taper")).unwrap();
    for cache in caches {
        fs::write(cache.unwrap().path(), "{\"header\":").unwrap();
    }
    let second = train(
        folder.path(),
        "gemm.autotune=limited checkpoint.out_dir=out2",
        &[],
    );
    assert_eq!(
        second.stderr.matches("\ngemm cache = not used  (").count(),
        1
    );
    assert!(second.stderr.contains("is damaged"), "{}", second.stderr);
}

#[test]
fn other_products_asked_for_on_resume_are_tuned_anew() {
    let folder = tempdir().unwrap();
    train(
        folder.path(),
        "gemm.autotune=limited train.max_iters=5",
        &[],
    );
    let resumed = train(folder.path(), "gemm.autotune=full", &["--resume"]);
    assert!(
        resumed.stderr.contains("15 verified and timed"),
        "{}",
        resumed.stderr
    );
    let off = "gemm.autotune=off train.max_iters=12";
    let resumed = train(folder.path(), off, &["--resume"]);
    assert!(!resumed.stderr.contains("\ngemm = "), "{}", resumed.stderr);
}
