//! Evaluations: the losses of both splits.

use std::time::Instant;

use super::{SessionError, Start};
use crate::data::order::eval_window;
use crate::data::{Dataset, Split};
use crate::interrupt::Interrupt;
use crate::memory::{AllocationError, Memory};
use crate::metrics::EvalReport;
use crate::ops::backend::Backend;
use crate::plan::Plan;
use crate::report::{Progress, Reporter};
use crate::step::ReadSample;
use crate::step::evaluation::Evaluator;

/// Evaluates both splits with weights that are not going to be trained.
pub fn evaluate_weights(
    plan: &Plan,
    dataset: &Dataset,
    reporter: &mut Reporter,
    interrupt: &Interrupt,
    start: &Start,
    backend: Box<dyn Backend>,
    memory: Memory,
) -> Result<EvalReport, SessionError> {
    let mut evaluator = Evaluator::new(&plan.model, backend, &plan.rungs(), memory)?;
    evaluator.load(|weights, memory| start.load_weights(plan, weights, memory))?;
    let step = start.step();
    let progress = reporter.progress();
    let report = evaluate_splits(step, |split| {
        let read = reader(plan, dataset, &progress, split, || interrupt.requested());
        evaluator.evaluate(plan.eval_sequences, read)
    });
    for recovery in evaluator.take_recoveries() {
        reporter.recovered(step, &recovery);
    }
    for choice in evaluator.take_choices() {
        reporter.choice(&choice);
    }
    report
}

pub(super) fn evaluate_splits(
    step: u64,
    mut evaluate: impl FnMut(Split) -> Result<f64, SessionError>,
) -> Result<EvalReport, SessionError> {
    let started = Instant::now();
    let mut evaluate = |split| match evaluate(split) {
        Err(SessionError::Allocation(AllocationError::Interrupted)) => {
            Err(SessionError::EvaluationInterrupted)
        }
        done => done,
    };
    Ok(EvalReport {
        step,
        train_loss: evaluate(Split::Train)?,
        val_loss: evaluate(Split::Val)?,
        duration: started.elapsed(),
    })
}

/// Reads the samples of an evaluation, and shows how many were read: the same ones at every step, so that two compare. `stops`
/// is asked before each whether to go on.
pub(super) fn reader(
    plan: &Plan,
    dataset: &Dataset,
    progress: &Progress,
    split: Split,
    stops: impl Fn() -> bool,
) -> impl ReadSample<SessionError> {
    let work = progress.evaluation(split, plan.eval_sequences);
    let (seed, tokens) = (plan.step.seed, dataset.split(split));
    let windows = tokens.window_count(plan.model.block_size);
    move |sample: u32, inputs: &mut [u32], targets: &mut [u32]| {
        work.reach(u64::from(sample));
        if stops() {
            return Err(AllocationError::Interrupted.into());
        }
        let window = eval_window(seed, split, sample, windows);
        Ok(tokens.copy_window(window, inputs, targets)?)
    }
}
