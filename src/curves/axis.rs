//! Places on the x axis: of steps, evaluations and events.

use super::XKind;
use crate::chart::{Quantity, XAxis};
use crate::record::Moment;
use crate::runs::{Run, RunEvent};

/// A longer time between two records, in multiples of what their steps took, is a pause and not training.
const PAUSE: f64 = 50.0;

/// The place of every recorded step, from which any other step's follows.
#[derive(Clone, Debug)]
pub struct Positions {
    kind: XKind,
    /// Step and place, both ascending.
    known: Vec<(u64, f64)>,
}

impl Positions {
    pub fn of(run: &Run, kind: XKind) -> Self {
        let steps = run.steps.iter().map(|point| point.step);
        let evals = || run.evals.iter().map(|point| point.step);
        let known = match kind {
            XKind::Step => steps.map(|step| (step, step as f64)).collect(),
            XKind::Tokens => {
                let seen = |moment: &Moment| moment.tokens_seen.map(|tokens| tokens as f64);
                let points = run.steps.iter();
                points
                    .filter_map(|point| Some((point.step, seen(&point.moment)?)))
                    .collect()
            }
            XKind::Time => seconds(run),
        };
        let known = match (kind, known) {
            // A run that only evaluated has steps, and neither tokens nor time.
            (XKind::Step, known) if known.is_empty() => {
                evals().map(|step| (step, step as f64)).collect()
            }
            (_, known) => known,
        };
        Self { kind, known }
    }

    /// The place of a step: interpolated between recorded ones, and from 0 before the first. NaN where nothing is known.
    pub fn at(&self, step: u64) -> f64 {
        if self.kind == XKind::Step {
            return step as f64;
        }
        let after = self.known.partition_point(|(known, _)| *known < step);
        match self.known.get(after) {
            Some(&(known, place)) if known == step => place,
            Some(&(next, right)) => {
                let (last, left) = match after {
                    0 => (0, 0.0),
                    after => self.known[after - 1],
                };
                let share = (step - last) as f64 / (next - last).max(1) as f64;
                left + share * (right - left)
            }
            None => self.known.last().map_or(f64::NAN, |known| known.1),
        }
    }
}

/// Seconds in training at every recorded step: differences of the times in the file where it has them, else the steps at
/// the duration of the recorded one. Where a process went on after a pause, the pause is left out.
fn seconds(run: &Run) -> Vec<(u64, f64)> {
    let resumed: Vec<u64> = run
        .events
        .iter()
        .filter(|event| matches!(event.record, RunEvent::Resumed { .. }))
        .map(|event| event.step)
        .collect();
    let (mut step, mut time) = (0, None);
    let mut total = 0.0;
    let mut known = Vec::with_capacity(run.steps.len());
    for point in &run.steps {
        let steps = point.step.saturating_sub(step).max(1);
        let estimate = steps as f64 * point.record.ms / 1e3;
        let went_on = resumed.iter().any(|&at| step <= at && at < point.step);
        let measured = time
            .zip(point.moment.time)
            .map(|(before, now): (f64, f64)| now - before)
            .filter(|passed| !went_on && *passed >= 0.0)
            .filter(|passed| *passed <= (PAUSE * estimate).max(3_600.0));
        let passed = measured.unwrap_or(estimate);
        total += if passed.is_finite() { passed } else { 0.0 };
        known.push((point.step, total));
        (step, time) = (point.step, point.moment.time);
    }
    known
}

/// The axis of a kind.
pub(super) fn axis(kind: XKind, is_log: bool) -> XAxis {
    let (title, quantity) = match kind {
        XKind::Step => ("step", Quantity::Steps),
        XKind::Tokens => ("tokens", Quantity::Tokens),
        XKind::Time => ("time in training", Quantity::Seconds),
    };
    XAxis {
        title: title.into(),
        quantity,
        is_log,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::StepRecord;
    use crate::runs::Point;

    fn run(steps: &[(u64, Option<f64>)]) -> Run {
        let point = |&(step, time): &(u64, Option<f64>)| Point {
            step,
            moment: Moment {
                time,
                tokens_seen: Some(step * 100),
            },
            record: StepRecord {
                step,
                loss: 1.0,
                lr: 1e-3,
                grad_norm: 1.0,
                tokens: 100,
                ms: 500.0,
                data_ms: None,
                host_bytes: None,
                device_bytes: None,
            },
        };
        Run {
            folder: "run".into(),
            name: "run".into(),
            description: None,
            config: None,
            steps: steps.iter().map(point).collect(),
            evals: Vec::new(),
            scores: Vec::new(),
            events: Vec::new(),
            checkpoints: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn places_between_recorded_steps_are_interpolated() {
        let run = run(&[(10, None), (20, None)]);
        let tokens = Positions::of(&run, XKind::Tokens);
        let found = [0, 5, 10, 15, 20, 30].map(|step| tokens.at(step));
        assert_eq!(found, [0.0, 500.0, 1_000.0, 1_500.0, 2_000.0, 2_000.0]);
        assert_eq!(Positions::of(&run, XKind::Step).at(30), 30.0);
    }

    #[test]
    fn time_without_clocks_is_that_of_the_steps() {
        let run = run(&[(10, None), (20, None)]);
        assert_eq!(Positions::of(&run, XKind::Time).at(20), 10.0);
    }

    #[test]
    fn time_with_clocks_counts_evaluations_and_leaves_out_pauses() {
        let mut run = run(&[
            (1, Some(100.0)),
            (2, Some(103.0)),
            (3, Some(90_000.0)),
            (4, Some(90_000.5)),
        ]);
        run.events.push(Point {
            step: 2,
            moment: Moment::default(),
            record: RunEvent::Resumed {
                from: "ckpt-00000002".into(),
                version: "0.1.0".into(),
            },
        });
        let time = Positions::of(&run, XKind::Time);
        assert_eq!([1, 2, 3, 4].map(|step| time.at(step)), [0.5, 3.5, 4.0, 4.5]);
    }

    #[test]
    fn nothing_recorded_has_no_place() {
        assert!(Positions::of(&run(&[]), XKind::Time).at(3).is_nan());
    }
}
