//! Output of `taper plan` for several configs and devices: one row for each.

use std::fmt::Write;

use serde_json::json;

use super::plan::rounded;
use super::{PlanReport, plan_json};
use crate::device::DeviceProfile;
use crate::plan::{Plan, PlanError};
use crate::units::{bytes, short_time, span};

/// A config on a device, with its plan or the reason that it has none.
pub struct PlanRow {
    /// The value of `--config`.
    pub source: String,
    pub device: DeviceProfile,
    pub plan: Result<Plan, PlanError>,
}

/// A table for people.
pub fn plans_text(rows: &[PlanRow]) -> String {
    let width = |text: fn(&PlanRow) -> &str| rows.iter().map(|row| text(row).len()).max();
    let source = width(|row| &row.source).unwrap_or(0).max("config".len());
    let device = width(|row| &row.device.name)
        .unwrap_or(0)
        .max("device".len());
    let mut text = format!(
        "{:source$}  {:device$}  {:>11}  {:<9}  {:>10}  {:>10}  {:>12}  {:>10}",
        "config", "device", "micro-batch", "recompute", "memory", "tokens/s", "a step", "in all"
    );
    for row in rows {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n{:source$}  {:device$}  ",
            row.source, row.device.name
        );
        match &row.plan {
            Ok(plan) => text.push_str(&plan_cells(plan)),
            Err(error) => {
                let _ = write!(text, "{:>11}  {}", "-", refusal_text(error));
            }
        }
    }
    text + "\ntokens/s and times are predicted"
}

fn plan_cells(plan: &Plan) -> String {
    let (launch, time) = (plan.launch(), plan.predicted_time(0));
    let micro_batch = launch.rung.micro_batch;
    let (micro_batch, recompute) = match time.step() {
        Some(_) => (
            format!("{micro_batch} x {}", plan.gradient_accumulation_steps()),
            launch.rung.recompute.to_string(),
        ),
        None => (micro_batch.to_string(), "-".into()),
    };
    format!(
        "{micro_batch:>11}  {recompute:<9}  {:>10}  {:>10}  {:>12}  {:>10}",
        bytes(launch.bytes),
        rounded(launch.tokens_per_second),
        time.step().map_or("-".into(), short_time),
        span(time.run()),
    )
}

fn refusal_text(error: &PlanError) -> String {
    match error {
        PlanError::DoesNotFit(refusal) => format!(
            "does not fit: {} needed, {} may be used",
            bytes(refusal.needed),
            bytes(refusal.available)
        ),
        other => other.to_string(),
    }
}

/// The plans for programs: an array of the objects of [`plan_json`], and of refusals.
pub fn plans_json(rows: &[PlanRow]) -> String {
    let object = |row: &PlanRow| match &row.plan {
        Ok(plan) => plan_json(&PlanReport {
            source: &row.source,
            device: &row.device,
            plan,
            trial: &None,
        }),
        Err(error) => json!({
            "config": row.source,
            "device": row.device,
            "error": error.to_string(),
            "hint": error.hint(),
        })
        .to_string(),
    };
    format!(
        "[{}]",
        rows.iter().map(object).collect::<Vec<_>>().join(",")
    )
}
