//! Output of `taper plan`: the launch, its neighbours, the memory table and every choice.

use std::fmt::Write;

use serde::Serialize;

use super::text::{choice_text, device_text, time_text};
use super::warning::recovery_text;
use crate::device::DeviceProfile;
use crate::memory::{Group, Row, total_bytes};
use crate::model::ParamLayout;
use crate::plan::{Launch, Plan, PredictedTime};
use crate::record::MemoryRecord;
use crate::terms::Job;
use crate::trial::Trial;
use crate::units::{bytes, count};

/// Rungs shown on either side of the chosen one.
const NEIGHBOURS: usize = 3;

/// A plan, its config and its device.
pub struct PlanReport<'a> {
    /// The value of `--config`.
    pub source: &'a str,
    pub device: &'a DeviceProfile,
    pub plan: &'a Plan,
    /// Memory that the launch was granted; `None` without `--allocate`.
    pub trial: &'a Option<Trial>,
}

/// The plan for people; with `buffers`, a row for every buffer.
pub fn plan_text(report: &PlanReport, buffers: bool) -> String {
    let plan = report.plan;
    let mut text = plan_summary(report);
    text.push_str("\n\nmemory at the chosen rung\n");
    text.push_str(&memory_table(&plan.memory, buffers));
    text.push_str("\nchoices");
    for choice in &plan.choices {
        let _ = write!(text, "\n  {}", choice_text(choice));
    }
    if let Some(trial) = report.trial {
        let _ = write!(text, "\n\n{}", trial_text(trial));
    }
    text
}

fn trial_text(trial: &Trial) -> String {
    let mut text = String::from("allocated");
    for recovery in &trial.recoveries {
        let _ = write!(text, "\n  {}", recovery_text(recovery));
    }
    let left = trial.left_bytes.map(bytes);
    let _ = write!(
        text,
        "\n  {}: {} held, {} left; all released again",
        trial.rung,
        bytes(trial.held_bytes),
        left.as_deref().unwrap_or("an unknown amount"),
    );
    text
}

/// The launch and the rungs around it, without the memory table and the choices.
pub fn plan_summary(report: &PlanReport) -> String {
    let plan = report.plan;
    let (model, launch) = (&plan.model, plan.launch());
    let mut text = format!(
        "plan of {} on {}",
        report.source,
        device_text(report.device)
    );
    let mut row = |label: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {label:13}{value}");
    };
    row(
        "model",
        format!(
            "n_layer {} x n_head {} x n_embd {}, {} parameters, {}",
            model.n_layer,
            model.n_head,
            model.n_embd,
            count(ParamLayout::new(model).len as u64),
            plan.inputs
        ),
    );
    match plan.job {
        Job::Train => row(
            "step",
            format!(
                "{} sequences x {} tokens = {} tokens, as {} x {}",
                count(plan.step.sequences_per_step as u64),
                count(model.block_size as u64),
                count(plan.tokens_per_step()),
                launch.rung.micro_batch,
                count(plan.gradient_accumulation_steps() as u64),
            ),
        ),
        Job::Evaluate => row(
            "evaluation",
            format!(
                "{} sequences x {} tokens = {} tokens per split, {} at a time",
                count(plan.eval_sequences as u64),
                count(model.block_size as u64),
                count((plan.eval_sequences * model.block_size) as u64),
                launch.rung.micro_batch,
            ),
        ),
    }
    let budget = match plan.budget.value {
        Some(budget) => format!("{} may be used ({})", bytes(budget), plan.budget.because),
        None => plan.budget.because.clone(),
    };
    row(
        "memory",
        format!("{} planned; {budget}", bytes(launch.bytes)),
    );
    row("time", time_text(&plan.predicted_time(0)));
    text.push_str("\n\n");
    text.push_str(&rungs_table(plan));
    text
}

fn rungs_table(plan: &Plan) -> String {
    let mut text = format!(
        "  {:>11}  {:<9}  {:>11}  {:>10}  {:>12}  {:>8}\n",
        "micro-batch", "recompute", "logits rows", "memory", "predicted", "relative"
    );
    let first = plan.chosen.saturating_sub(NEIGHBOURS);
    let end = (plan.chosen + NEIGHBOURS + 1).min(plan.ladder.len());
    let more = |rungs: usize, word: &str| format!("  {:>11}  {rungs} more {word}\n", "...");
    if first > 0 {
        text.push_str(&more(first, "above"));
    }
    for (index, launch) in plan.ladder.iter().enumerate().take(end).skip(first) {
        let verdict = match index.cmp(&plan.chosen) {
            std::cmp::Ordering::Less => "does not fit",
            std::cmp::Ordering::Equal => "<- chosen",
            std::cmp::Ordering::Greater => "",
        };
        text.push_str(format!("{}  {verdict}", rung_line(plan, launch)).trim_end());
        text.push('\n');
    }
    if end < plan.ladder.len() {
        text.push_str(&more(plan.ladder.len() - end, "below"));
    }
    text.truncate(text.trim_end().len());
    text
}

fn rung_line(plan: &Plan, launch: &Launch) -> String {
    let rung = launch.rung;
    let (micro_batch, recompute) = match plan.job {
        Job::Train => (
            format!(
                "{} x {}",
                rung.micro_batch,
                plan.step.sequences_per_step / rung.micro_batch
            ),
            rung.recompute.to_string(),
        ),
        // No backward, no recomputation.
        Job::Evaluate => (rung.micro_batch.to_string(), "-".into()),
    };
    format!(
        "  {micro_batch:>11}  {recompute:<9}  {:>11}  {:>10}  {:>6} tok/s  {:>6.1} %",
        count(rung.logits_rows as u64),
        bytes(launch.bytes),
        rounded(launch.tokens_per_second),
        100.0 * launch.tokens_per_second / plan.ladder[0].tokens_per_second,
    )
}

/// Rounds to two significant digits: the rate is an estimate. Only the ratio of rungs ranks them.
pub(super) fn rounded(rate: f64) -> String {
    let unit = 10f64.powf((rate.max(1.0).log10().floor() - 1.0).max(0.0));
    let rate = (rate / unit).round() * unit;
    match rate {
        rate if rate >= 999_999.5 => format!("{:.1}M", rate / 1e6),
        rate if rate >= 9999.5 => format!("{:.0}k", rate / 1e3),
        rate => format!("{rate:.0}"),
    }
}

fn memory_table(rows: &[Row], buffers: bool) -> String {
    let mut text = String::new();
    for group in Group::ALL {
        let of_group: Vec<&Row> = rows.iter().filter(|row| row.group == group).collect();
        let total = total_bytes(of_group.iter().copied());
        if of_group.is_empty() {
            continue;
        }
        let _ = writeln!(text, "  {group:<24}{:>12}", bytes(total));
        if buffers {
            for row in of_group {
                let _ = writeln!(
                    text,
                    "    {:<22}{:>12}  {:>16} B",
                    row.name,
                    bytes(row.bytes),
                    count(row.bytes)
                );
            }
        } else if of_group.len() > 1 {
            for (name, total) in folded(&of_group) {
                let _ = writeln!(text, "    {name:<22}{:>12}", bytes(total));
            }
        }
    }
    let total = total_bytes(rows);
    let _ = writeln!(text, "  {:<24}{:>12}", "total", bytes(total));
    text
}

/// The memory table of a plan, with one row for all blocks.
pub fn memory_records(rows: &[Row]) -> Vec<MemoryRecord> {
    let groups = Group::ALL.into_iter().flat_map(|group| {
        let of_group: Vec<&Row> = rows.iter().filter(|row| row.group == group).collect();
        folded(&of_group)
            .into_iter()
            .map(move |(name, bytes)| MemoryRecord {
                group: group.to_string(),
                name,
                bytes,
            })
    });
    groups.collect()
}

/// Folds the rows of all blocks into one line: (name, bytes).
fn folded(rows: &[&Row]) -> Vec<(String, u64)> {
    let number = |row: &Row| row.name.strip_prefix("h.")?.split('.').next()?.parse().ok();
    let blocks = rows.iter().filter_map(|row| number(row)).max();
    let blocks = blocks.map_or(0, |last: usize| last + 1);
    let mut lines: Vec<(String, u64)> = Vec::new();
    for row in rows {
        let name = match (number(row), row.name.starts_with("h.*.")) {
            (Some(_), _) => format!("{blocks} blocks"),
            (None, true) => "shared by all blocks".into(),
            (None, false) => row.name.clone(),
        };
        match lines.iter_mut().find(|(known, _)| *known == name) {
            Some((_, bytes)) => *bytes += row.bytes,
            None => lines.push((name, row.bytes)),
        }
    }
    lines
}

/// The plan for programs: one object.
pub fn plan_json(report: &PlanReport) -> String {
    #[derive(Serialize)]
    struct Object<'a> {
        config: &'a str,
        device: &'a DeviceProfile,
        model: &'a crate::terms::ModelDims,
        precision: crate::terms::Precision,
        job: Job,
        sequences_per_step: usize,
        gradient_accumulation_steps: usize,
        eval_sequences: usize,
        budget_bytes: Option<u64>,
        launch: &'a Launch,
        /// Predicted.
        time: PredictedTime,
        chosen: usize,
        ladder: &'a [Launch],
        memory: &'a [Row],
        choices: &'a [crate::terms::NamedChoice],
        #[serde(skip_serializing_if = "Option::is_none")]
        allocated: &'a Option<Trial>,
    }
    let plan = report.plan;
    let object = Object {
        config: report.source,
        device: report.device,
        model: &plan.model,
        precision: plan.precision,
        job: plan.job,
        sequences_per_step: plan.step.sequences_per_step,
        gradient_accumulation_steps: plan.gradient_accumulation_steps(),
        eval_sequences: plan.eval_sequences,
        budget_bytes: plan.budget.value,
        launch: plan.launch(),
        time: plan.predicted_time(0),
        chosen: plan.chosen,
        ladder: &plan.ladder,
        memory: &plan.memory,
        choices: &plan.choices,
        allocated: report.trial,
    };
    // Numbers, text and lists: nothing that JSON cannot hold.
    serde_json::to_string(&object).unwrap_or_default()
}
