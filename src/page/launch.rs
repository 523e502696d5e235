//! The launch of a run: its memory by purpose, and the choices with their reasons.

use super::html::{Cell, details, escaped, section, table};
use crate::curves::is_start;
use crate::record::{MemoryRecord, RunRecord};
use crate::runs::{Run, RunEvent};
use crate::terms::NamedChoice;
use crate::units;

pub(super) fn memory(run: &Run) -> String {
    let Some(description) = &run.description else {
        return String::new();
    };
    let total = description.planned_bytes.max(1);
    let mut groups: Vec<(&str, u64)> = Vec::new();
    for row in &description.memory {
        match groups.iter_mut().find(|group| group.0 == row.group) {
            Some(group) => group.1 += row.bytes,
            None => groups.push((&row.group, row.bytes)),
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.1));
    let rows = groups.iter().map(|(name, bytes)| row(name, *bytes, total));
    let mut body = format!("<p class=\"note\">{}</p>\n", escaped(&plan(description)));
    if !groups.is_empty() {
        body += &bars("Purpose", rows.collect());
        let mut all: Vec<&MemoryRecord> = description.memory.iter().collect();
        all.sort_by_key(|row| std::cmp::Reverse(row.bytes));
        let rows = all.into_iter().map(|of| row(&of.name, of.bytes, total));
        body += &details("Every row of the plan", &bars("Buffer", rows.collect()));
    }
    section("memory", "Memory plan", &body)
}

/// The launch in a sentence.
fn plan(description: &RunRecord) -> String {
    let rung = description.rung;
    let mut text = format!(
        "{} planned: {} x {} sequences of {} tokens a step, recompute {}, {} rows of logits at a time",
        units::bytes(description.planned_bytes),
        rung.micro_batch,
        description.gradient_accumulation_steps,
        units::count(description.model.block_size as u64),
        rung.recompute,
        units::count(rung.logits_rows as u64)
    );
    if let Some(budget) = description.budget_bytes {
        text += &format!("; {} may be used", units::bytes(budget));
    }
    text + "."
}

fn row(name: &str, bytes: u64, total: u64) -> Vec<Cell> {
    let share = bytes as f64 / total as f64;
    vec![
        Cell::text(name),
        Cell::bar(share),
        Cell::number(&units::bytes(bytes)),
        Cell::number(&format!("{:.1} %", 100.0 * share)),
    ]
}

fn bars(name: &str, rows: Vec<Vec<Cell>>) -> String {
    let columns = [(name, false), ("", false), ("Size", true), ("Share", true)];
    table(&columns, rows, false)
}

pub(super) fn choices(run: &Run) -> String {
    let Some(description) = &run.description else {
        return String::new();
    };
    let later = run.events.iter().filter_map(|event| match &event.record {
        RunEvent::Chosen(choice) if is_start(run, event.step) => Some(choice),
        _ => None,
    });
    let mut choices: Vec<&NamedChoice> = description.choices.iter().collect();
    for choice in later {
        // That of the newest process counts.
        choices.retain(|other| other.name != choice.name);
        choices.push(choice);
    }
    if choices.is_empty() {
        return String::new();
    }
    let rows = choices.into_iter().map(|choice| {
        vec![
            Cell::text(&choice.name),
            Cell::text(&choice.value),
            Cell::text(&choice.because),
        ]
    });
    let columns = [("Choice", false), ("Value", false), ("Because", false)];
    section("choices", "Choices", &table(&columns, rows.collect(), true))
}
