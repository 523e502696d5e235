//! Evaluations that memory is refused to print the losses that they would have printed.

use serde_json::Value;
use taper::memory::AllocationError;
use taper::model::{ParamLayout, init_values};
use taper::ops::cpu::OnCpu;
use taper::rng::Seed;
use taper::step::evaluation::Evaluator;
use taper::terms::Rung;

use crate::files::{contents, of_kind, train, trained};
use crate::toy::{EVAL_SEQUENCES, dims, injected, ladder, read_sample};

/// In f64, where rounding cannot hide a sample that was counted twice or left out.
#[test]
fn the_loss_of_an_evaluation_does_not_depend_on_the_rung_or_on_refusals() {
    let dims = dims();
    let loss = |ladder: &[Rung], injections: &[&str]| {
        let injections: Vec<String> = injections.iter().map(|&text| text.into()).collect();
        let backend = Box::new(OnCpu::<f64>::untuned(2));
        let mut evaluator = Evaluator::new(&dims, backend, ladder, injected(&injections)).unwrap();
        let layout = ParamLayout::new(&dims);
        let filled = evaluator.load(|weights, _| {
            init_values(&layout, Seed(3), weights).unwrap();
            Ok::<_, AllocationError>(())
        });
        filled.unwrap();
        let loss = evaluator.evaluate(EVAL_SEQUENCES, |sample, inputs, targets| {
            read_sample(1, sample, inputs, targets);
            Ok::<_, AllocationError>(())
        });
        (loss.unwrap(), evaluator.take_recoveries().len())
    };
    let ladder = ladder();
    let (expected, _) = loss(&ladder, &[]);
    let same = |loss: f64| (loss / expected - 1.0).abs() < 1e-13;
    for rung in &ladder {
        assert!(same(loss(&[*rung], &[]).0), "{rung}");
    }
    for (injections, refusals) in [
        (vec!["eval-only:2"], 1),
        (vec!["eval-only:2", "eval-only:4"], 2),
        (vec!["eval-only:1-4"], 4),
        (vec!["launch:1", "launch:9-10", "eval-only:2"], 4),
    ] {
        let (loss, recoveries) = loss(&ladder, &injections);
        assert!(same(loss), "{injections:?}: {loss} {expected}");
        assert_eq!(recoveries, refusals, "{injections:?}");
    }
}

/// Sums in f32 are rounded differently at another rung; no printed digit changes.
const ROUNDING: f64 = 1e-7;

#[test]
fn eval_only_prints_the_same_losses_however_often_memory_is_refused() {
    let folder = trained("", "");
    let before = contents(folder.path());
    let evaluate = |flags: &str| {
        let flags = format!("--resume --eval-only --json {flags}");
        let run = train(folder.path(), "", &flags).succeeded();
        let lines: Vec<Value> = run
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let evals = of_kind(&lines, "eval", true);
        assert_eq!(evals.len(), 1);
        let recoveries = of_kind(&lines, "recovery", true).len();
        assert_eq!(
            run.stderr.matches("warning: ").count(),
            recoveries,
            "{}",
            run.stderr
        );
        let losses = ["train_loss", "val_loss"].map(|key| evals[0][key].as_f64().unwrap());
        (losses, recoveries)
    };
    let (expected, none) = evaluate("");
    assert_eq!(none, 0);
    for (flags, refusals) in [
        ("--inject eval-only:1", 1),
        ("--inject eval-only:2", 1),
        ("--inject eval-only:1-2", 2),
        ("--inject eval-only:2-5", 4),
        ("--inject launch:1", 1),
        ("--inject launch:5-6", 2),
    ] {
        let (losses, recoveries) = evaluate(flags);
        assert_eq!(recoveries, refusals, "{flags}");
        for (loss, expected) in losses.iter().zip(expected) {
            assert!(
                (loss / expected - 1.0).abs() < ROUNDING,
                "{flags}: {loss} {expected}"
            );
        }
    }
    assert!(before == contents(folder.path()));
}

#[test]
fn eval_only_refused_at_every_rung_is_a_refusal_that_changes_nothing() {
    let folder = trained("train.max_iters=5", "");
    let before = contents(folder.path());
    let flags = "--resume --eval-only --inject eval-only:1-";
    train(folder.path(), "", flags).refused(&["the smallest launch needs", "at eval-only"]);
    assert!(before == contents(folder.path()));
}
