//! JSON lines: one object per event, on stdout with `--json`.

use std::io::Write;

use serde::Serialize;

use super::lines::{record_of, write_line};
use super::sink::Failures;
use super::{Event, Finish, GpuUse, Sink, Startup, Warning};
use crate::record::{Moment, Record};

/// The JSON object of an event.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Object<'a> {
    Startup(&'a Startup),
    /// The last line of a run.
    Done(Done),
    #[serde(untagged)]
    Record(Record),
}

/// The end of a run.
#[derive(Serialize)]
struct Done {
    step: u64,
    steps: u64,
    tokens: u64,
    seconds: f64,
    tokens_per_second: Option<f64>,
    flops_per_second: Option<f64>,
    peak_bytes: Option<u64>,
    /// Absent on the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu: Option<GpuUse>,
    /// Absent in a run that was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<String>,
    best_val_loss: Option<f64>,
    best_step: Option<u64>,
    checkpoint: Option<String>,
    warnings: Vec<String>,
}

impl From<&Finish<'_>> for Done {
    fn from(finish: &Finish) -> Self {
        let summary = finish.summary;
        let checkpoint = summary.checkpoint.as_ref();
        Self {
            step: summary.step,
            steps: finish.meter.steps(),
            tokens: finish.meter.tokens(),
            seconds: summary.wall.as_secs_f64(),
            tokens_per_second: finish.meter.average_tokens_per_second(),
            flops_per_second: finish.flops_per_second,
            peak_bytes: summary.peak_bytes,
            gpu: summary.gpu,
            stopped: summary.stopped.clone(),
            best_val_loss: summary.best.map(|best| best.val_loss),
            best_step: summary.best.map(|best| best.step),
            checkpoint: checkpoint.map(|path| path.display().to_string()),
            warnings: finish.warnings.iter().map(Warning::to_string).collect(),
        }
    }
}

impl<'a> Object<'a> {
    /// `None` for a step that is not due, for a note, and for the run's description, which the startup stands for here.
    fn of(event: &'a Event) -> Option<Self> {
        match event {
            Event::Startup(startup) => Some(Self::Startup(startup)),
            Event::Finish(finish) => Some(Self::Done(finish.into())),
            Event::Run(_) => None,
            event => record_of(event).map(|record| Self::Record(record.as_on_stdout())),
        }
    }
}

/// Every event but notes as a line on stdout.
pub(super) struct JsonLines {
    stdout: Box<dyn Write + Send>,
    failures: Failures,
}

impl JsonLines {
    pub fn new(stdout: Box<dyn Write + Send>) -> Self {
        Self {
            stdout,
            failures: Failures::default(),
        }
    }
}

impl Sink for JsonLines {
    fn record(&mut self, event: &Event, _: Moment) -> Option<Warning> {
        let written = write_line(&mut self.stdout, &Object::of(event)?);
        self.failures.first(written)
    }
}
