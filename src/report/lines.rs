//! Events as lines of JSON, for stdout with `--json` and for `metrics.jsonl`.

use std::io::{self, Write};

use serde::Serialize;

use super::{Event, Warning};
use crate::record::{EvalRecord, Record, StepRecord};

/// The record of `event`. `None` for a step that is not due, and for what is not of a run's course: its startup, its
/// end, notes.
pub(super) fn record_of(event: &Event) -> Option<Record> {
    match *event {
        Event::Run(run) => Some(Record::Run(Box::new(run.clone()))),
        Event::Step {
            report,
            is_due,
            host_bytes,
            ..
        } => is_due.then(|| Record::Step(StepRecord::new(report, host_bytes))),
        Event::Eval { report, .. } | Event::EvalOnly(report) => {
            Some(Record::Eval(EvalRecord::from(report)))
        }
        Event::Checkpoint {
            path,
            duration,
            bytes,
        } => Some(Record::Checkpoint {
            path: path.display().to_string(),
            bytes,
            ms: duration.as_secs_f64() * 1e3,
        }),
        Event::Warning(Warning::MemoryRefused { step, recovery }) => Some(Record::Recovery {
            step: *step,
            recovery: recovery.clone(),
        }),
        Event::Warning(warning) => Some(Record::Warning {
            message: warning.to_string(),
        }),
        Event::Score { step, score } => Some(Record::Score {
            step,
            score: score.clone(),
        }),
        Event::Skip { step, skipped } => Some(Record::Skip {
            step,
            skipped: *skipped,
        }),
        Event::Diverged { step, found } => Some(Record::Diverged {
            step,
            message: found.into(),
        }),
        Event::Choice(choice) => Some(Record::Choice(choice.clone())),
        Event::Startup(_) | Event::Note(_) | Event::Finish(_) => None,
    }
}

/// Writes `line` and a newline with one call, so that a killed process tears at most one line. Returns the length in
/// bytes.
pub(super) fn write_line(out: &mut dyn Write, line: &impl Serialize) -> io::Result<u64> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    out.write_all(&text)?;
    out.flush()?;
    Ok(text.len() as u64)
}
