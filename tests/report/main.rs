//! Output of a run, word for word, from made-up durations; and the metrics file across restarts.

mod metrics;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../process/mod.rs"]
mod process;
mod refused;
mod run;
mod streams;

use std::time::Duration;

use serde_json::Value;
use taper::metrics::{EvalReport, StepReport};

fn step(step: u64, loss: f64, ms: u64) -> StepReport {
    StepReport {
        step,
        loss,
        learning_rate: 1e-5 * step as f64,
        grad_norm: 0.5,
        tokens: 1_536,
        duration: Duration::from_millis(ms),
        ..StepReport::default()
    }
}

fn eval(step: u64, train_loss: f64, val_loss: f64) -> EvalReport {
    EvalReport {
        step,
        train_loss,
        val_loss,
        duration: Duration::from_millis(1_500),
    }
}

fn parsed(lines: &str) -> Vec<Value> {
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
