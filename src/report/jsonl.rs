//! JSON lines: one object per event, on stdout with `--json`.

use std::io::{self, Write};

use serde::Serialize;

use super::sink::Failures;
use super::{Event, Finish, GpuUse, Sink, Startup, Warning};
use crate::evals::Score;
use crate::metrics::{EvalReport, StepReport};
use crate::step::recovery::Recovery;
use crate::terms::NamedChoice;

/// The JSON object of an event. A loss that is not finite is `null`: JSON has no word for it.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum JsonLine<'a> {
    Startup(&'a Startup),
    Step {
        step: u64,
        loss: f64,
        lr: f64,
        grad_norm: f64,
        tokens: u64,
        ms: f64,
    },
    Eval {
        step: u64,
        train_loss: f64,
        val_loss: f64,
        train_perplexity: f64,
        val_perplexity: f64,
        ms: f64,
    },
    Score {
        step: u64,
        #[serde(flatten)]
        score: &'a Score,
    },
    Checkpoint {
        path: String,
        bytes: u64,
        ms: f64,
    },
    /// A refusal of memory that the run survived.
    Recovery {
        step: u64,
        #[serde(flatten)]
        recovery: &'a Recovery,
    },
    Choice(&'a NamedChoice),
    Warning {
        message: String,
    },
    /// The last line of a run.
    Done {
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
        best_val_loss: Option<f64>,
        best_step: Option<u64>,
        checkpoint: Option<String>,
        warnings: Vec<String>,
    },
}

impl From<&StepReport> for JsonLine<'_> {
    fn from(report: &StepReport) -> Self {
        Self::Step {
            step: report.step,
            loss: report.loss,
            lr: report.learning_rate,
            grad_norm: report.grad_norm,
            tokens: report.tokens,
            ms: report.duration.as_secs_f64() * 1e3,
        }
    }
}

impl From<&EvalReport> for JsonLine<'_> {
    fn from(report: &EvalReport) -> Self {
        Self::Eval {
            step: report.step,
            train_loss: report.train_loss,
            val_loss: report.val_loss,
            train_perplexity: report.train_perplexity(),
            val_perplexity: report.val_perplexity(),
            ms: report.duration.as_secs_f64() * 1e3,
        }
    }
}

impl<'a> From<&'a Warning> for JsonLine<'a> {
    fn from(warning: &'a Warning) -> Self {
        match warning {
            Warning::MemoryRefused { step, recovery } => Self::Recovery {
                step: *step,
                recovery,
            },
            other => Self::Warning {
                message: other.to_string(),
            },
        }
    }
}

impl From<&Finish<'_>> for JsonLine<'_> {
    fn from(finish: &Finish) -> Self {
        let summary = finish.summary;
        let checkpoint = summary.checkpoint.as_ref();
        Self::Done {
            step: summary.step,
            steps: finish.meter.steps(),
            tokens: finish.meter.tokens(),
            seconds: summary.wall.as_secs_f64(),
            tokens_per_second: finish.meter.average_tokens_per_second(),
            flops_per_second: finish.flops_per_second,
            peak_bytes: summary.peak_bytes,
            gpu: summary.gpu,
            best_val_loss: summary.best.map(|best| best.val_loss),
            best_step: summary.best.map(|best| best.step),
            checkpoint: checkpoint.map(|path| path.display().to_string()),
            warnings: finish.warnings.iter().map(Warning::to_string).collect(),
        }
    }
}

impl<'a> JsonLine<'a> {
    /// The line of `event`; `None` for a step that is not due and for a note.
    pub(super) fn of(event: &'a Event) -> Option<Self> {
        match *event {
            Event::Startup(startup) => Some(Self::Startup(startup)),
            Event::Step { report, is_due, .. } => is_due.then(|| report.into()),
            Event::Eval { report, .. } | Event::EvalOnly(report) => Some(report.into()),
            Event::Score { step, score } => Some(Self::Score { step, score }),
            Event::Checkpoint {
                path,
                duration,
                bytes,
            } => Some(Self::Checkpoint {
                path: path.display().to_string(),
                bytes,
                ms: duration.as_secs_f64() * 1e3,
            }),
            Event::Warning(warning) => Some(warning.into()),
            Event::Choice(choice) => Some(Self::Choice(choice)),
            Event::Note(_) => None,
            Event::Finish(ref finish) => Some(finish.into()),
        }
    }

    /// Writes the line and its newline with one call, so that a killed process tears at most one line.
    /// Returns its length in bytes.
    pub(super) fn write_to(&self, out: &mut dyn Write) -> io::Result<u64> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        out.write_all(&line)?;
        out.flush()?;
        Ok(line.len() as u64)
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
    fn record(&mut self, event: &Event) -> Option<Warning> {
        let written = JsonLine::of(event)?.write_to(&mut self.stdout);
        self.failures.first(written)
    }
}
