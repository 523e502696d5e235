//! The learning rates of a run, and of the runs that go on from it.

use tempfile::tempdir;

use crate::process::taper;
use crate::{FEW_EVALS, file, metrics, numbers, train, trained};

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
