//! Runs whose numbers are not finite any more: the last good checkpoint, and the way on.

use serde_json::Value;
use tempfile::tempdir;

use crate::{FEW_EVALS, between, metrics, saved, state, train};

/// Weights that a decay of 10,000 % a step makes 100 times as large with every step, until the loss is no number.
const DIVERGING: &str =
    "optimizer.weight_decay=1e5 checkpoint.checkpoint_interval=1 checkpoint.keep=100";

#[test]
fn a_run_that_diverges_names_the_last_good_checkpoint_and_the_way_on() {
    let folder = tempdir().unwrap();
    let settings = format!("{FEW_EVALS} {DIVERGING}");
    let diverged = train(&folder, &settings, &["--quiet"]).refused(&[]);
    let events = metrics(&folder, "diverged");
    assert_eq!(events.len(), 1);
    // With other data, the gradient overflows a step before the loss.
    let message = events[0]["message"].as_str().unwrap();
    assert!(
        message.starts_with("loss ") && message.ends_with(", gradient norm NaN"),
        "{message}"
    );
    let step = events[0]["step"].as_u64().unwrap();
    assert!(step > 2, "there was a good checkpoint");
    // The loss of a step is that of the weights before it.
    let (good, bad) = (step - 2, step - 1);
    let error = format!(
        "error: training diverged at step {step}: {message}; the last good checkpoint is \
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
    // Weights that overflow the loss within a step, and not the gradient of the one before.
    let settings = "optimizer.weight_decay=3e7 eval.eval_interval=1 checkpoint.checkpoint_interval=1 checkpoint.keep=100";
    let diverged = train(&folder, settings, &["--quiet"]).refused(&[]);
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
