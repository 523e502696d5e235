//! A run in a few numbers.

use super::Run;
use crate::metrics::median;

/// Weight of the past in the final loss, per step: that of the running loss on the terminal.
const LOSS_DECAY: f64 = 0.98;

/// A run in a few numbers. Losses in nats per token.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Summary {
    pub name: String,
    pub folder: String,
    /// Optimizer steps done.
    pub step: u64,
    /// Steps asked for.
    pub max_iters: Option<u64>,
    /// Tokens trained on.
    pub tokens_seen: Option<u64>,
    pub best_val_loss: Option<f64>,
    pub best_step: Option<u64>,
    pub last_val_loss: Option<f64>,
    /// The running training loss at the end.
    pub train_loss: Option<f64>,
    /// Median over the recorded steps.
    pub tokens_per_second: Option<f64>,
    /// Time in steps, those that are not recorded estimated by their neighbours; without evaluations and saves.
    pub training_seconds: f64,
    /// Peak of the recorded resident memory.
    pub host_bytes: Option<u64>,
    /// Peak of the recorded memory on the GPU.
    pub device_bytes: Option<u64>,
    /// Refusals of memory that the run survived.
    pub recoveries: usize,
    pub device: Option<String>,
}

impl Summary {
    pub fn of(run: &Run) -> Self {
        let best = run.best_eval();
        let last = run.steps.last();
        let rates = run.steps.iter().map(|point| &point.record);
        let rates = rates.map(|step| 1e3 * step.tokens as f64 / step.ms);
        let peak = |bytes: fn(&crate::record::StepRecord) -> Option<u64>| {
            let recorded = run.steps.iter().filter_map(|point| bytes(&point.record));
            recorded.max()
        };
        let description = run.description.as_ref();
        let max_iters = run
            .config
            .as_ref()
            .map(|config| &config["train"]["max_iters"]);
        let evaluated = run.evals.last().map(|eval| eval.step);
        Self {
            name: run.name.clone(),
            folder: run.folder.display().to_string(),
            step: last.map(|point| point.step).max(evaluated).unwrap_or(0),
            max_iters: max_iters.and_then(serde_json::Value::as_u64),
            tokens_seen: last.and_then(|point| point.moment.tokens_seen),
            best_val_loss: best.map(|eval| eval.record.val_loss),
            best_step: best.map(|eval| eval.step),
            last_val_loss: run.evals.last().map(|eval| eval.record.val_loss),
            train_loss: final_loss(run),
            tokens_per_second: median(rates.filter(|rate| rate.is_finite())),
            training_seconds: training_seconds(run),
            host_bytes: peak(|step| step.host_bytes),
            device_bytes: peak(|step| step.device_bytes),
            recoveries: run.recoveries().count(),
            device: description.map(|description| description.device.clone()),
        }
    }
}

/// The running loss over the recorded steps, each weighted by the steps since the one before. A loss that is not finite is
/// passed over.
fn final_loss(run: &Run) -> Option<f64> {
    let (mut sum, mut weight, mut before) = (0.0, 0.0, 0);
    let finite = run
        .steps
        .iter()
        .filter(|point| point.record.loss.is_finite());
    for point in finite {
        let past = LOSS_DECAY.powf((point.step - before) as f64);
        sum = past * sum + (1.0 - past) * point.record.loss;
        weight = past * weight + (1.0 - past);
        before = point.step;
    }
    (weight > 0.0).then(|| sum / weight)
}

fn training_seconds(run: &Run) -> f64 {
    let mut before = 0;
    let times = run.steps.iter().map(|point| {
        let steps = point.step - before;
        before = point.step;
        steps as f64 * point.record.ms / 1e3
    });
    times.sum()
}
