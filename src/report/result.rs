//! The result on stdout, where `--json` does not put its objects there.

use std::io::Write;

use super::terminal::eval_line;
use super::{Event, Sink, Warning};
use crate::metrics::EvalReport;

/// Prints the loss of `--eval-only`; with `--quiet` also the last evaluation of a run.
pub(super) struct ResultLine {
    quiet: bool,
    stdout: Box<dyn Write + Send>,
    last_eval: Option<EvalReport>,
}

impl ResultLine {
    pub fn new(quiet: bool, stdout: Box<dyn Write + Send>) -> Self {
        Self {
            quiet,
            stdout,
            last_eval: None,
        }
    }

    /// A reader that went away must not stop a run: failed writes are dropped.
    fn write(&mut self, report: &EvalReport) {
        let _ = writeln!(self.stdout, "{}", eval_line(report, false))
            .and_then(|()| self.stdout.flush());
    }
}

impl Sink for ResultLine {
    fn record(&mut self, event: &Event) -> Option<Warning> {
        match *event {
            Event::Eval { report, .. } => self.last_eval = Some(*report),
            Event::EvalOnly(report) => self.write(report),
            Event::Finish(_) if self.quiet => {
                if let Some(report) = self.last_eval {
                    self.write(&report);
                }
            }
            _ => {}
        }
        None
    }
}
