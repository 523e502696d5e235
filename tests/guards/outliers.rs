//! Updates that are left out, whole and across a stop.

use std::fs;

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::process::{Outcome, checkpoint};
use crate::{FEW_EVALS, file, metrics, numbers, state, train, trained};

/// Tokens without any order, so that losses and norms are noise from step to step, and a guard for each. The data are the
/// test's own: with those of the binary, other steps would be outliers whenever the source changes.
const NOISE: &str = "data.dataset=noise data.data_dir=data optimizer.learning_rate=1e-5 optimizer.min_lr=0 \
    optimizer.lr_schedule=constant optimizer.skip_loss_zscore=0.9 optimizer.skip_grad_zscore=0.9 \
    eval.eval_interval=100000 eval.eval_on_start=false train.max_iters=150";

/// A folder with the data of [`NOISE`].
fn noise() -> TempDir {
    let folder = tempdir().unwrap();
    let data = folder.path().join("data/noise");
    fs::create_dir_all(&data).unwrap();
    let vocabulary = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/meta.pkl");
    fs::copy(vocabulary, data.join("meta.pkl")).unwrap();
    let mut state = 1u64;
    // Knuth's MMIX generator.
    let mut tokens = |count: usize| -> Vec<u8> {
        let mut token = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005);
            state = state.wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % 60) as u16
        };
        (0..count).flat_map(|_| token().to_le_bytes()).collect()
    };
    fs::write(data.join("train.bin"), tokens(5000)).unwrap();
    fs::write(data.join("val.bin"), tokens(1000)).unwrap();
    folder
}

/// Runs the first 128 steps, in which no guard acts, and the rest with every step saved.
fn guarded() -> (TempDir, Outcome) {
    let folder = noise();
    let window = format!("{NOISE} train.max_iters=128");
    train(&folder, &window, &["--quiet"]).succeeded();
    let every = format!("{NOISE} checkpoint.checkpoint_interval=1 checkpoint.keep=30");
    let run = train(&folder, &every, &["--resume"]).succeeded();
    (folder, run)
}

#[test]
fn an_outlier_changes_no_weight_and_counts_as_a_step() {
    let (folder, run) = guarded();
    let (skips, steps) = (metrics(&folder, "skip"), metrics(&folder, "step"));
    assert_eq!(steps.len(), 150);
    let at = |skip: &Value| skip["step"].as_u64().unwrap() as usize;
    let skipped: Vec<usize> = skips.iter().map(at).collect();
    assert!(skipped[0] > 128, "{skips:?}");
    for step in 129..=150 {
        let files = |step| {
            let names = ["model.safetensors", "optimizer.safetensors"];
            names.map(|name| file(&folder, step, name))
        };
        let stays = files(step) == files(step - 1);
        assert_eq!(stays, skipped.contains(&(step as usize)), "step {step}");
    }
    // The z-scores are those of what was logged.
    let logged = |key| numbers(&steps, key);
    for (key, name) in [("loss", "loss"), ("grad_norm", "gradient norm")] {
        let logged = logged(key);
        let of_kind = || skips.iter().filter(|skip| skip["watched"] == key);
        assert!(of_kind().count() > 0, "{key}: {skips:?}");
        for skip in of_kind() {
            let step = at(skip);
            let window = &logged[step - 128..step];
            let mean = window.iter().sum::<f64>() / 128.0;
            let variance = window.iter().map(|x| x * x).sum::<f64>() / 128.0 - mean * mean;
            let zscore = (logged[step - 1] - mean) / variance.sqrt();
            assert!(
                (skip["zscore"].as_f64().unwrap() - zscore).abs() < 1e-6,
                "{skip}"
            );
            assert!(zscore > 0.9 && skip["allowed"] == 0.9, "{skip}");
            let told = format!(
                "\nstep {step}: update left out, the z-score of the {name} is {zscore:.2} (allowed 0.9)\n"
            );
            assert!(run.stderr.contains(&told), "{}", run.stderr);
        }
    }
    let count = skips.len();
    let told = format!("the updates of {count} steps of 150 were left out as outliers");
    assert_eq!(run.stderr.matches(&told).count(), 2, "{}", run.stderr);
    assert_eq!(state(&folder, 150)["outliers"]["skipped"], count);
}

#[test]
fn a_guarded_run_that_is_stopped_in_its_window_or_later_leaves_out_the_same_updates() {
    let (whole, _) = guarded();
    let parts = noise();
    for end in [60, 135, 150] {
        let flags: &[&str] = if end == 60 { &[] } else { &["--resume"] };
        train(&parts, &format!("{NOISE} train.max_iters={end}"), flags).succeeded();
    }
    let skips = metrics(&whole, "skip");
    let before = skips
        .iter()
        .filter(|skip| skip["step"].as_u64().unwrap() <= 135);
    let before = before.count();
    assert!(0 < before && before < skips.len(), "{skips:?}");
    assert_eq!(metrics(&parts, "skip"), skips);
    for name in ["model.safetensors", "optimizer.safetensors"] {
        assert!(file(&parts, 150, name) == file(&whole, 150, name), "{name}");
    }
    assert_eq!(
        state(&parts, 150)["outliers"],
        state(&whole, 150)["outliers"]
    );

    // A run that was killed leaves lines behind its newest checkpoint.
    for step in 138..=150 {
        fs::remove_dir_all(checkpoint(whole.path(), step)).unwrap();
    }
    train(&whole, NOISE, &["--resume"]).succeeded();
    assert_eq!(metrics(&whole, "skip"), skips);
    let weights = |folder| file(folder, 150, "model.safetensors");
    assert!(weights(&parts) == weights(&whole));
}

#[test]
fn a_guard_may_be_turned_on_for_a_run_and_is_off_by_default() {
    let folder = trained(FEW_EVALS);
    assert_eq!(state(&folder, 10).get("outliers"), None);
    let settings = format!("{FEW_EVALS} optimizer.skip_grad_zscore=3 train.max_iters=15");
    train(&folder, &settings, &["--resume"]).succeeded();
    let kept = &state(&folder, 15)["outliers"];
    assert_eq!(kept["losses"].as_array().unwrap().len(), 5, "{kept}");
    // What the guard remembers begins with it; the last losses are the run's.
    let losses = numbers(&metrics(&folder, "step"), "loss");
    let remembered: Vec<f64> = serde_json::from_value(kept["losses"].clone()).unwrap();
    assert_eq!(remembered, losses[10..]);
}
