//! Schedules, guards and limits of a run, as a user sees them.

use std::fs;

use serde_json::Value;
use tempfile::{TempDir, tempdir};

mod process;

use process::{Outcome, checkpoint, taper, tiny};

fn train(folder: &TempDir, settings: &str, flags: &[&str]) -> Outcome {
    taper(folder.path(), &tiny(settings, flags))
}

fn trained(settings: &str) -> TempDir {
    let folder = tempdir().unwrap();
    train(&folder, settings, &["--quiet"]).succeeded();
    folder
}

/// The lines of metrics.jsonl of one kind.
fn metrics(folder: &TempDir, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.path().join("out/metrics.jsonl")).unwrap();
    let lines = text
        .lines()
        .map(|line| -> Value { serde_json::from_str(line).unwrap() });
    lines.filter(|line| line["kind"] == kind).collect()
}

fn numbers(lines: &[Value], key: &str) -> Vec<f64> {
    let number = |line: &Value| line[key].as_f64().unwrap();
    lines.iter().map(number).collect()
}

/// A checkpoint's file, byte for byte.
fn file(folder: &TempDir, step: u64, name: &str) -> Vec<u8> {
    fs::read(checkpoint(folder.path(), step).join(name)).unwrap()
}

fn state(folder: &TempDir, step: u64) -> Value {
    serde_json::from_slice(&file(folder, step, "state.json")).unwrap()
}

/// Steps of the checkpoints, in order.
fn saved(folder: &TempDir) -> Vec<u64> {
    let names = fs::read_dir(folder.path().join("out")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let steps = names.filter_map(|name| name.strip_prefix("ckpt-")?.parse().ok());
    let mut steps: Vec<u64> = steps.collect();
    steps.sort_unstable();
    steps
}

/// An evaluation at the end alone.
const FEW_EVALS: &str = "eval.eval_interval=100000 eval.eval_on_start=false";

#[test]
fn the_learning_rates_of_a_run_are_those_of_its_schedule() {
    let base = "optimizer.learning_rate=1e-3 optimizer.min_lr=1e-4 optimizer.warmup_iters=2 \
        optimizer.lr_decay_iters=10";
    // Steps 1 to 10 have the rates of steps 0 to 9, counted from 0.
    let (warm, root) = ([1e-3 / 3.0, 2e-3 / 3.0], |share: f64| {
        1e-4 + 9e-4 * (1.0 - share.sqrt())
    });
    let line = |step: f64| 1e-3 - 9e-4 * (step - 2.0) / 8.0;
    for (schedule, rest) in [
        ("linear", [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0].map(line)),
        ("constant", [1e-3; 8]),
        (
            "wsd optimizer.warmdown_iters=4",
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.25, 0.5, 0.75].map(root),
        ),
    ] {
        let settings = format!("{base} {FEW_EVALS} optimizer.lr_schedule={schedule}");
        let folder = trained(&settings);
        let rates = numbers(&metrics(&folder, "step"), "lr");
        assert_eq!(rates.len(), 10);
        for (got, want) in rates.iter().zip(warm.iter().chain(&rest)) {
            assert!((got - want).abs() < 1e-12, "{schedule}: {rates:?}");
        }
    }
}

#[test]
fn the_startup_tells_the_schedule() {
    let told = |settings: &str| {
        let folder = tempdir().unwrap();
        let settings = format!("train.max_iters=1 optimizer.lr_decay_iters=20 {settings}");
        let run = train(&folder, &settings, &[]).succeeded();
        let line = run.stderr.lines().find(|line| line.contains("  schedule "));
        line.unwrap().split_once("; ").unwrap().1.to_owned()
    };
    for (settings, line) in [
        (
            "",
            "lr 1e-3 after 2 warm-up steps, cosine to 1e-4 at step 20",
        ),
        (
            "optimizer.lr_schedule=linear",
            "lr 1e-3 after 2 warm-up steps, linear to 1e-4 at step 20",
        ),
        (
            "optimizer.lr_schedule=constant",
            "lr 1e-3 after 2 warm-up steps, then constant",
        ),
        (
            "optimizer.lr_schedule=wsd",
            "lr 1e-3 after 2 warm-up steps, 1 - sqrt to 1e-4 from step 16 to 20",
        ),
        ("optimizer.decay_lr=false", "lr 1e-3 throughout"),
    ] {
        assert_eq!(told(settings), line, "{settings}");
    }
}

#[test]
fn several_decays_may_follow_one_stable_run() {
    let folder = trained(&format!("{FEW_EVALS} optimizer.lr_schedule=constant"));
    let decay = "optimizer.lr_schedule=wsd optimizer.lr_decay_iters=14 optimizer.warmdown_iters=4 \
        train.max_iters=14";
    train(&folder, &format!("{FEW_EVALS} {decay}"), &["--resume"]).succeeded();
    let whole = trained(&format!("{FEW_EVALS} {decay}"));
    assert_eq!(
        numbers(&metrics(&folder, "step"), "loss"),
        numbers(&metrics(&whole, "step"), "loss")
    );
    for name in ["model.safetensors", "optimizer.safetensors"] {
        assert!(file(&folder, 14, name) == file(&whole, 14, name), "{name}");
    }
    let late = format!("{FEW_EVALS} {decay} optimizer.min_lr=0 train.max_iters=20");
    train(&folder, &late, &["--resume"]).refused(&["`optimizer.min_lr`"]);
}

#[test]
fn a_run_that_moves_to_nanogpt_is_told_what_its_schedule_becomes() {
    let convert = |settings: &str| {
        let settings = format!("{FEW_EVALS} model.gelu=erf {settings}");
        let folder = trained(&settings);
        let arguments = ["convert", "out", "--to", "nanogpt", "ckpt.pt"];
        let told = taper(folder.path(), &arguments).succeeded().stderr;
        (folder, told)
    };
    let (_, told) = convert("optimizer.lr_schedule=wsd optimizer.skip_grad_zscore=3");
    for note in [
        "nanoGPT has no `lr_schedule` = \"wsd\": it goes on with its cosine",
        "nanoGPT leaves out no update",
    ] {
        assert!(told.contains(note), "{told}");
    }
    let (_, told) = convert("optimizer.lr_schedule=constant optimizer.warmup_iters=20");
    assert!(
        told.contains("it goes on with the whole rate at once"),
        "{told}"
    );
    // After its warm-up, a constant rate is one that nanoGPT has.
    let (folder, told) = convert("optimizer.lr_schedule=constant");
    assert!(!told.contains("lr_schedule"), "{told}");
    let further = format!("{FEW_EVALS} model.gelu=erf checkpoint.out_dir=next train.max_iters=11");
    let flags = ["--resume", "ckpt.pt", "--quiet"];
    train(&folder, &further, &flags).refused(&["`optimizer.decay_lr`"]);
    let flat = format!("{further} optimizer.decay_lr=false");
    train(&folder, &flat, &flags).succeeded();
}

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

/// Weights that a decay of 10,000 % a step makes 100 times as large with every step, until the loss is no number.
const DIVERGING: &str =
    "optimizer.weight_decay=1e5 checkpoint.checkpoint_interval=1 checkpoint.keep=100";

/// What is in a text between two others.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text
        .split_once(before)
        .unwrap_or_else(|| panic!("`{before}`: {text}"));
    rest.split_once(after).unwrap().0
}

#[test]
fn a_run_that_diverges_names_the_last_good_checkpoint_and_the_way_on() {
    let folder = tempdir().unwrap();
    let settings = format!("{FEW_EVALS} {DIVERGING}");
    let diverged = train(&folder, &settings, &["--quiet"]).refused(&[]);
    let events = metrics(&folder, "diverged");
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["message"], "loss NaN, gradient norm NaN");
    let step = events[0]["step"].as_u64().unwrap();
    assert!(step > 2, "there was a good checkpoint");
    // The loss of a step is that of the weights before it.
    let (good, bad) = (step - 2, step - 1);
    let error = format!(
        "error: training diverged at step {step}: loss NaN, gradient norm NaN; the last good checkpoint is \
         `out/ckpt-{good:08}`, of step {good} (the weights in `out/ckpt-{bad:08}` give these numbers)\n"
    );
    assert!(diverged.stderr.starts_with(&error), "{}", diverged.stderr);
    assert_eq!(saved(&folder), (1..=bad).collect::<Vec<_>>());
    assert_eq!(metrics(&folder, "step").len() as u64, bad);

    // The commands of the hint are taken.
    let hint = diverged
        .stderr
        .lines()
        .find(|line| line.starts_with("hint: "))
        .unwrap();
    let new_run = between(hint, "lower learning rate: `", "`").replace("NEW_FOLDER", "new");
    assert!(
        new_run.starts_with("--set optimizer.learning_rate=0.0005 "),
        "{hint}"
    );
    let new_run: Vec<&str> = new_run.split(' ').collect();
    let calm = format!("{FEW_EVALS} optimizer.weight_decay=0 train.max_iters=1");
    train(&folder, &calm, &new_run).succeeded();
    assert!(folder.path().join("new/ckpt-00000001").exists());
    let guarded = between(hint, "without the updates of outliers: `", "`");
    let guarded: Vec<&str> = guarded.split(' ').collect();
    train(
        &folder,
        &settings,
        &[&guarded[..], &["--eval-only"]].concat(),
    )
    .succeeded();
}

#[test]
fn a_checkpoint_that_training_went_past_is_good() {
    let folder = tempdir().unwrap();
    let settings = format!("{FEW_EVALS} {DIVERGING} checkpoint.checkpoint_interval=2");
    let diverged = train(&folder, &settings, &["--quiet"]).refused(&[]);
    let step = metrics(&folder, "diverged")[0]["step"].as_u64().unwrap();
    let newest = *saved(&folder).last().unwrap();
    let is_bad = newest == step - 1;
    let good = if is_bad { newest - 2 } else { newest };
    let named = format!("the last good checkpoint is `out/ckpt-{good:08}`, of step {good}");
    assert!(diverged.stderr.contains(&named), "{}", diverged.stderr);
    let names_bad = diverged.stderr.contains("give these numbers");
    assert_eq!(names_bad, is_bad, "{}", diverged.stderr);
}

#[test]
fn a_run_that_diverges_before_its_first_checkpoint_says_that_there_is_none() {
    let folder = tempdir().unwrap();
    let settings = format!("{FEW_EVALS} {DIVERGING} checkpoint.checkpoint_interval=100");
    let diverged = train(&folder, &settings, &["--quiet"]).refused(&[
        "no checkpoint was saved before",
        "hint: start again with a lower learning rate, such as `--set optimizer.learning_rate=0.0005`",
    ]);
    assert!(!diverged.stderr.contains("resume"), "{}", diverged.stderr);
    assert_eq!(saved(&folder), [0; 0]);

    let folder = tempdir().unwrap();
    let rate = "optimizer.learning_rate=1e30 checkpoint.checkpoint_interval=1";
    let settings = format!("{FEW_EVALS} {rate}");
    train(&folder, &settings, &["--quiet"]).refused(&[
        "diverged at step 2: ",
        "; there is no good checkpoint (the weights in `out/ckpt-00000001` give these numbers)",
        "`--set optimizer.learning_rate=5e29 --set checkpoint.out_dir=NEW_FOLDER`",
    ]);
    // It is intact all the same.
    let found = train(&folder, &settings, &["--resume", "--eval-only"]).succeeded();
    assert_eq!(found.stderr, "");
}

#[test]
fn a_validation_loss_that_is_no_number_ends_the_run_and_nothing_is_saved() {
    let folder = tempdir().unwrap();
    let settings = format!("{DIVERGING} eval.eval_interval=1");
    let diverged = train(&folder, &settings, &["--quiet"]).refused(&[]);
    let events = metrics(&folder, "diverged");
    let step = events[0]["step"].as_u64().unwrap();
    let good = step - 1;
    let error = format!(
        "error: training diverged at step {step}: train loss NaN, validation loss NaN; the last good checkpoint is \
         `out/ckpt-{good:08}`, of step {good}\n"
    );
    assert!(diverged.stderr.contains(&error), "{}", diverged.stderr);
    assert_eq!(events[0]["message"], "train loss NaN, validation loss NaN");
    assert_eq!(saved(&folder), (1..=good).collect::<Vec<_>>());
    let evals = metrics(&folder, "eval");
    let last = evals.last().unwrap();
    assert_eq!(
        (&last["step"], &last["val_loss"]),
        (&step.into(), &Value::Null)
    );
    let best = &state(&folder, good)["best_val_loss"];
    assert!(best.is_number(), "{best}");
}

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

#[test]
fn an_evaluation_comes_before_the_first_step_and_saves_nothing() {
    let folder = tempdir().unwrap();
    let settings = "eval.eval_interval=100 checkpoint.checkpoint_interval=100 checkpoint.keep=1";
    let run = train(&folder, settings, &[]).succeeded();
    let text = fs::read_to_string(folder.path().join("out/metrics.jsonl")).unwrap();
    assert!(text.starts_with("{\"kind\":\"eval\",\"step\":0,"), "{text}");
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
    assert_eq!(
        metrics(&without, "eval")[..],
        evals[1..]
            .iter()
            .map(|eval| {
                let mut eval = eval.clone();
                eval["ms"] = metrics(&without, "eval")[0]["ms"].clone();
                eval
            })
            .collect::<Vec<_>>()
    );
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
fn a_run_that_goes_on_does_not_begin_with_an_evaluation_again() {
    let folder = trained("train.max_iters=5");
    train(&folder, "", &["--resume"]).succeeded();
    let steps: Vec<Value> = metrics(&folder, "eval")
        .iter()
        .map(|eval| eval["step"].clone())
        .collect();
    assert_eq!(steps, [0, 4, 5, 8, 10]);
}
