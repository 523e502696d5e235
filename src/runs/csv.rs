//! The curves of runs as CSV, for spreadsheets and data frames.

use std::collections::BTreeMap;
use std::io::Write;

use super::Run;
use crate::record::{EvalRecord, Moment, StepRecord};

const HEADER: [&str; 14] = [
    "run",
    "step",
    "tokens_seen",
    "time",
    "loss",
    "lr",
    "grad_norm",
    "tokens_per_second",
    "ms",
    "host_bytes",
    "device_bytes",
    "train_loss",
    "val_loss",
    "val_perplexity",
];

/// The start of every table.
pub const CSV_START: &str = "run,step,tokens_seen,time,loss,lr,";

/// One row of a table: a step that was recorded, evaluated, or both.
#[derive(Default)]
struct Row<'a> {
    moment: Moment,
    step: Option<&'a StepRecord>,
    eval: Option<&'a EvalRecord>,
}

/// Writes a row for every recorded step and evaluation of every run, in order. A field without a value is empty; `time`
/// is in seconds since 1970.
///
/// # Errors
/// Those of `out`.
pub fn write_csv(runs: &[Run], out: impl Write) -> Result<(), csv::Error> {
    let mut table = csv::Writer::from_writer(out);
    table.write_record(HEADER)?;
    for run in runs {
        for (step, row) in rows(run) {
            table.write_record(fields(&run.name, step, &row))?;
        }
    }
    table.flush()?;
    Ok(())
}

fn rows(run: &Run) -> BTreeMap<u64, Row<'_>> {
    let mut rows: BTreeMap<u64, Row> = BTreeMap::new();
    for eval in &run.evals {
        let row = rows.entry(eval.step).or_default();
        row.moment = eval.moment;
        row.eval = Some(&eval.record);
    }
    for point in &run.steps {
        let row = rows.entry(point.step).or_default();
        row.moment = point.moment;
        row.step = Some(&point.record);
    }
    rows
}

fn fields(name: &str, number: u64, row: &Row) -> [String; 14] {
    let Row { moment, step, eval } = row;
    let of_step = |value: fn(&StepRecord) -> f64| text(step.map(value));
    let of_eval = |value: fn(&EvalRecord) -> f64| text(eval.map(value));
    [
        name.into(),
        number.to_string(),
        text(moment.tokens_seen),
        text(moment.time),
        of_step(|step| step.loss),
        of_step(|step| step.lr),
        of_step(|step| step.grad_norm),
        of_step(|step| 1e3 * step.tokens as f64 / step.ms),
        of_step(|step| step.ms),
        text(step.and_then(|step| step.host_bytes)),
        text(step.and_then(|step| step.device_bytes)),
        of_eval(|eval| eval.train_loss),
        of_eval(|eval| eval.val_loss),
        of_eval(|eval| eval.val_perplexity),
    ]
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}
