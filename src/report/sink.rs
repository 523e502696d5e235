//! Events of a run, and the sinks that record them.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::{MetricsLog, Startup, Summary, Warning};
use crate::evals::Score;
use crate::metrics::{EvalReport, Meter, StepReport};
use crate::terms::NamedChoice;

/// An event of a run.
pub(super) enum Event<'a> {
    Startup(&'a Startup),
    /// An optimizer step.
    Step {
        report: &'a StepReport,
        /// Whether the step is a multiple of `log_interval`. Logs skip all others.
        is_due: bool,
        meter: &'a Meter,
    },
    Eval {
        report: &'a EvalReport,
        /// Whether the validation loss is the lowest so far.
        improved: bool,
    },
    /// The scores of a task.
    Score {
        step: u64,
        score: &'a Score,
    },
    /// The result of `--eval-only`; part of no run.
    EvalOnly(&'a EvalReport),
    Checkpoint {
        path: &'a Path,
        duration: Duration,
        bytes: u64,
    },
    Warning(&'a Warning),
    /// A decision after the startup.
    Choice(&'a NamedChoice),
    /// A line for people only.
    Note(&'a str),
    Finish(Finish<'a>),
}

/// End of a run, with everything that its summary shows.
pub(super) struct Finish<'a> {
    pub summary: &'a Summary,
    pub meter: &'a Meter,
    /// Model FLOPs at the average rate of [`Meter::average_tokens_per_second`].
    pub flops_per_second: Option<f64>,
    pub choices: &'a [NamedChoice],
    pub warnings: &'a [Warning],
}

/// A log format.
pub(super) trait Sink: Send {
    /// Records `event`, or ignores it.
    ///
    /// A failed write must not stop the run. The sink drops what it cannot write; the first time, it may return
    /// a warning.
    fn record(&mut self, event: &Event) -> Option<Warning>;
}

/// Failed writes to stdout. None stops a run.
#[derive(Default)]
pub(super) struct Failures {
    /// Whether a result was lost and the user knows.
    has_warned: bool,
}

impl Failures {
    /// The warning about the first failure. A reader that went away has seen enough.
    pub fn first<T>(&mut self, written: io::Result<T>) -> Option<Warning> {
        let error = written.err()?;
        let known = error.kind() == io::ErrorKind::BrokenPipe
            || std::mem::replace(&mut self.has_warned, true);
        (!known).then(|| Warning::ResultsNotWritten {
            reason: error.to_string(),
        })
    }
}

/// All sinks of a run, and the warnings that went through them.
pub(super) struct Sinks {
    /// Each event goes through the list in order.
    list: Vec<Box<dyn Sink>>,
    /// The last sink. It has a field of its own because checkpoints store its length.
    pub metrics: Option<MetricsLog>,
    /// Repeated in the summary.
    pub warnings: Vec<Warning>,
}

impl Sinks {
    pub fn new(list: Vec<Box<dyn Sink>>) -> Self {
        Self {
            list,
            metrics: None,
            warnings: Vec::new(),
        }
    }

    /// Passes `event` to every sink, and then the warnings of those that could not write it.
    pub fn record(&mut self, event: &Event) {
        let mut failures = Vec::new();
        for sink in &mut self.list {
            failures.extend(sink.record(event));
        }
        if let Some(metrics) = &mut self.metrics {
            failures.extend(metrics.record(event));
        }
        for warning in failures {
            self.warn(warning);
        }
    }

    /// Passes `warning` to every sink, and keeps it for the summary.
    pub fn warn(&mut self, warning: Warning) {
        self.record(&Event::Warning(&warning));
        self.warnings.push(warning);
    }
}
