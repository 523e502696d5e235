//! Events of a run, and the sinks that record them.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{MetricsLog, Startup, Summary, Warning};
use crate::evals::Score;
use crate::metrics::{EvalReport, Meter, StepReport};
use crate::outliers::SkippedUpdate;
use crate::record::{Moment, RunRecord};
use crate::terms::NamedChoice;

/// An event of a run.
pub(super) enum Event<'a> {
    Startup(&'a Startup),
    /// The start of what is recorded in files.
    Run(&'a RunRecord),
    /// An optimizer step.
    Step {
        report: &'a StepReport,
        /// Whether the step is a multiple of `log_interval`. Logs skip all others.
        is_due: bool,
        /// Resident memory of the process; `None` for a step that is not due.
        host_bytes: Option<u64>,
        meter: &'a Meter,
    },
    Eval {
        report: &'a EvalReport,
        /// Whether the validation loss is the lowest so far.
        improved: bool,
    },
    /// The update of a step was left out, because the step is an outlier.
    Skip {
        step: u64,
        skipped: &'a SkippedUpdate,
    },
    /// The numbers of a step, or of the evaluation after it, are not finite. The run ends.
    Diverged {
        step: u64,
        found: &'a str,
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
    /// Records `event`, which happens at `moment`, or ignores it.
    ///
    /// A failed write must not stop the run. The sink drops what it cannot write; the first time, it may return
    /// a warning.
    fn record(&mut self, event: &Event, moment: Moment) -> Option<Warning>;
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
    pub list: Vec<Box<dyn Sink>>,
    /// The last sink. It has a field of its own because checkpoints store its length.
    pub metrics: Option<MetricsLog>,
    /// Tokens trained on so far; `None` before the run begins.
    pub tokens_seen: Option<u64>,
    /// Repeated in the summary.
    pub warnings: Vec<Warning>,
}

impl Sinks {
    pub fn new(list: Vec<Box<dyn Sink>>) -> Self {
        Self {
            list,
            metrics: None,
            tokens_seen: None,
            warnings: Vec::new(),
        }
    }

    /// Passes `event` to every sink, and then the warnings of those that could not write it.
    pub fn record(&mut self, event: &Event) {
        let moment = self.moment();
        let mut failures = Vec::new();
        for sink in &mut self.list {
            failures.extend(sink.record(event, moment));
        }
        if let Some(metrics) = &mut self.metrics {
            failures.extend(metrics.record(event, moment));
        }
        for warning in failures {
            self.warn(warning);
        }
    }

    /// Now.
    pub fn moment(&self) -> Moment {
        Moment {
            time: now(),
            tokens_seen: self.tokens_seen,
        }
    }

    /// Passes `warning` to every sink, and keeps it for the summary.
    pub fn warn(&mut self, warning: Warning) {
        self.record(&Event::Warning(&warning));
        self.warnings.push(warning);
    }
}

/// Seconds since 1970, to the millisecond; `None` with a clock before that.
fn now() -> Option<f64> {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?;
    Some(since.as_millis() as f64 / 1e3)
}
