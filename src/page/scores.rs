//! Scores of tasks that the run was evaluated on.

use super::html::{Cell, section, table};
use crate::runs::Run;
use crate::units;

/// More rows than this are left out, the oldest first.
const MOST_ROWS: usize = 200;

pub(super) fn scores(run: &Run) -> String {
    if run.scores.is_empty() {
        return String::new();
    }
    let newest = run.scores.iter().rev().take(MOST_ROWS);
    let rows = newest.map(|score| {
        let metrics = &score.record.metrics;
        let values = metrics.values().into_iter();
        let values: Vec<String> = values
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        vec![
            Cell::text(&units::count(score.step)),
            Cell::text(&score.record.task),
            Cell::text(&values.join(", ")),
            Cell::text(&metrics.amount()),
        ]
    });
    let columns = [
        ("Step", false),
        ("Task", false),
        ("Score", false),
        ("Of", false),
    ];
    section(
        "scores",
        "Task scores",
        &table(&columns, rows.collect(), true),
    )
}
