//! The course of a run: evaluations, events and checkpoints.

use super::html::{Cell, details, escaped, section, table};
use crate::curves::is_start;
use crate::metrics::perplexity;
use crate::runs::{Run, RunEvent};
use crate::units;

/// More rows than this are thinned out, evenly, so that the page stays small.
const MOST_ROWS: usize = 500;

/// A checkpoint in the run's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointRow {
    pub step: u64,
    /// Name of its folder.
    pub name: String,
    /// Size of its files, where it can be read.
    pub bytes: Option<u64>,
}

/// Every evaluation, for readers who do not see curves.
pub(super) fn evaluations(run: &Run) -> String {
    if run.evals.is_empty() {
        return String::new();
    }
    let best = run.best_eval().map(|best| best.step);
    let every = run.evals.len().div_ceil(MOST_ROWS);
    let is_shown = |(index, step): (usize, u64)| index % every == 0 || Some(step) == best;
    let evals = run.evals.iter().enumerate();
    let rows = evals.filter(|(index, eval)| is_shown((*index, eval.step)));
    let rows = rows.map(|(_, eval)| {
        let step = units::count(eval.step);
        let badge = if Some(eval.step) == best { BEST } else { "" };
        vec![
            Cell::html(step + badge),
            Cell::number(&format!("{:.4}", eval.record.train_loss)),
            Cell::number(&format!("{:.4}", eval.record.val_loss)),
            Cell::number(&units::perplexity(perplexity(eval.record.val_loss))),
        ]
    });
    let columns = [
        ("Step", false),
        ("Training loss", true),
        ("Validation loss", true),
        ("Perplexity", true),
    ];
    let summary = format!(
        "{} evaluations as a table",
        units::count(run.evals.len() as u64)
    );
    details(&summary, &table(&columns, rows.collect(), false))
}

const BEST: &str = "<span class=\"badge\">best</span>";
const NEWEST: &str = "<span class=\"badge plain\">newest</span>";

/// Refusals of memory, later choices, warnings, and where processes went on.
pub(super) fn events(run: &Run) -> String {
    let told = |step: u64, event: &RunEvent| match event {
        RunEvent::Saved { .. } => None,
        RunEvent::Resumed { from, version } => {
            Some(("resumed", format!("from {from}, by taper {version}")))
        }
        RunEvent::Recovered(recovery) => {
            let then = if recovery.is_descent() {
                format!("went on with {}", recovery.to)
            } else {
                "released what can be made again, and tried once more".into()
            };
            Some(("memory refused", format!("{}; {then}", recovery.refusal)))
        }
        RunEvent::Chosen(_) if is_start(run, step) => None,
        RunEvent::Chosen(choice) => Some((
            "choice changed",
            format!("{} = {} ({})", choice.name, choice.value, choice.because),
        )),
        RunEvent::Warned { message } => Some(("warning", message.clone())),
        RunEvent::Diverged { message } => Some(("diverged", message.clone())),
        RunEvent::Skipped(skipped) => Some((
            "update skipped",
            format!(
                "the z-score of {} is {:.1}, {} is allowed",
                skipped.watched.name(),
                skipped.zscore,
                skipped.allowed
            ),
        )),
    };
    let events = run.events.iter();
    let all: Vec<_> = events
        .filter_map(|event| Some((event.step, told(event.step, &event.record)?)))
        .collect();
    if all.is_empty() {
        let body = "<p>None: memory was never refused, and nothing was warned of.</p>\n";
        return section("events", "Recoveries and warnings", body);
    }
    let rows = all.iter().take(MOST_ROWS).map(|(step, (kind, text))| {
        vec![
            Cell::text(&units::count(*step)),
            Cell::text(kind),
            Cell::text(text),
        ]
    });
    let columns = [("Step", false), ("Event", false), ("Details", false)];
    let mut body = table(&columns, rows.collect(), true);
    if all.len() > MOST_ROWS {
        let more = units::count((all.len() - MOST_ROWS) as u64);
        body += &format!("<p class=\"note\">And {more} more.</p>\n");
    }
    section("events", "Recoveries and warnings", &body)
}

pub(super) fn checkpoints(run: &Run, found: &[CheckpointRow]) -> String {
    if found.is_empty() {
        let body = "<p>There is none in the run's folder.</p>\n";
        return section("checkpoints", "Checkpoints", body);
    }
    let best = run.best_eval().map(|best| best.step);
    let rows = found.iter().enumerate().map(|(index, checkpoint)| {
        let mut name = format!("<code>{}</code>", escaped(&checkpoint.name));
        if Some(checkpoint.step) == best {
            name += BEST;
        }
        if index == 0 {
            name += NEWEST;
        }
        let eval = run.evals.iter().find(|eval| eval.step == checkpoint.step);
        let loss = eval.map_or("-".into(), |eval| format!("{:.4}", eval.record.val_loss));
        let bytes = checkpoint.bytes.map_or("-".into(), units::bytes);
        vec![
            Cell::html(name),
            Cell::number(&units::count(checkpoint.step)),
            Cell::number(&loss),
            Cell::number(&bytes),
        ]
    });
    let columns = [
        ("Folder", false),
        ("Step", true),
        ("Validation loss", true),
        ("Size", true),
    ];
    let mut body = table(&columns, rows.collect(), true);
    let is_there = |step| found.iter().any(|checkpoint| checkpoint.step == step);
    if let Some(step) = best.filter(|&step| !is_there(step)) {
        body += &format!(
            "<p class=\"note\">The best evaluation, at step {}, has no checkpoint here.</p>\n",
            units::count(step)
        );
    }
    section("checkpoints", "Checkpoints", &body)
}
