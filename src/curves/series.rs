//! Values of a run, a curve each.

use super::{Metric, Positions};
use crate::chart::Point;
use crate::record::StepRecord;
use crate::runs::Run;

/// Values of one kind, over the steps of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Place and value. A value that is not finite is a gap.
    pub points: Vec<Point>,
    /// Name beside others of the same panel, such as `GPU`.
    pub name: &'static str,
}

/// The series of a metric in a run: none where the run has not recorded it, and up to two for memory.
pub fn series(run: &Run, metric: Metric, x: &Positions) -> Vec<Series> {
    let of_steps = |name, value: &dyn Fn(&StepRecord) -> f64| {
        let points = run.steps.iter();
        let points = points.map(|point| (x.at(point.step), value(&point.record)));
        Series {
            points: points.collect(),
            name,
        }
    };
    let bytes = |bytes: Option<u64>| bytes.map_or(f64::NAN, |bytes| bytes as f64);
    let all = match metric {
        Metric::Loss => vec![of_steps("training", &|step| step.loss)],
        Metric::LearningRate => vec![of_steps("learning rate", &|step| step.lr)],
        Metric::GradNorm => vec![of_steps("gradient norm", &|step| step.grad_norm)],
        Metric::TokensPerSecond => vec![of_steps("tokens per second", &rate)],
        Metric::Memory => vec![
            of_steps("GPU", &|step| bytes(step.device_bytes)),
            of_steps("process", &|step| bytes(step.host_bytes)),
        ],
        Metric::ValLoss => {
            let points = run.evals.iter();
            let points = points.map(|point| (x.at(point.step), point.record.val_loss));
            vec![Series {
                points: points.collect(),
                name: "validation",
            }]
        }
    };
    let has_values = |series: &Series| {
        let mut points = series.points.iter();
        points.any(|(at, value)| at.is_finite() && value.is_finite())
    };
    all.into_iter().filter(has_values).collect()
}

/// Tokens per second of a step.
pub(crate) fn rate(step: &StepRecord) -> f64 {
    1e3 * step.tokens as f64 / step.ms
}
