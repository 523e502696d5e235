//! The result on stdout, where `--json` does not put its objects there.

use std::io::Write;

use super::sink::Failures;
use super::terminal::eval_line;
use super::{Event, Sink, Warning};
use crate::metrics::EvalReport;
use crate::record::Moment;

/// Prints the loss of `--eval-only`; with `--quiet` also the last evaluation of a run.
pub(super) struct ResultLine {
    quiet: bool,
    stdout: Box<dyn Write + Send>,
    last_eval: Option<EvalReport>,
    failures: Failures,
}

impl ResultLine {
    pub fn new(quiet: bool, stdout: Box<dyn Write + Send>) -> Self {
        Self {
            quiet,
            stdout,
            last_eval: None,
            failures: Failures::default(),
        }
    }

    fn write(&mut self, report: &EvalReport) -> Option<Warning> {
        let line = eval_line(report, false);
        let written = writeln!(self.stdout, "{line}").and_then(|()| self.stdout.flush());
        self.failures.first(written)
    }
}

impl Sink for ResultLine {
    fn record(&mut self, event: &Event, _: Moment) -> Option<Warning> {
        match *event {
            Event::Eval { report, .. } => {
                self.last_eval = Some(*report);
                None
            }
            Event::EvalOnly(report) => self.write(report),
            Event::Finish(_) if self.quiet => self.last_eval.and_then(|report| self.write(&report)),
            _ => None,
        }
    }
}
