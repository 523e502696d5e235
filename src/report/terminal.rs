//! Text for people: lines on stderr, or a progress bar with lines above it.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::progress::{Progress, QUIET};
use super::text::{choice_text, startup_block, summary_block};
use super::{Event, ReportOptions, Sink, Warning};
use crate::metrics::{EvalReport, Meter, StepReport};
use crate::record::Moment;
use crate::units::{bytes, learning_rate_in_a_column, perplexity, rate, short_time, span};

const BAR: &str = "{wide_bar} {human_pos}/{human_len}  {msg}";

const SEARCH: &str = "finding the fastest matrix products {wide_bar} {pos}/{len}  {msg}";

/// Often enough to look alive, too rare to cost anything.
const DRAWS_PER_SECOND: u8 = 10;

pub(super) struct Terminal {
    quiet: bool,
    interactive: bool,
    color: bool,
    stderr: Box<dyn Write + Send>,
    bar: Option<ProgressBar>,
    progress: Progress,
    /// Length of the bar; 0 before the startup.
    max_iters: u64,
}

impl Terminal {
    pub fn new(options: ReportOptions, stderr: Box<dyn Write + Send>, progress: Progress) -> Self {
        Self {
            quiet: options.quiet,
            interactive: options.interactive && !options.quiet,
            color: options.color,
            stderr,
            bar: None,
            progress,
            max_iters: 0,
        }
    }

    /// Moves the bar, or prints a line if the step is due or if there was none for about a minute.
    fn step(&mut self, report: &StepReport, is_due: bool, meter: &Meter) {
        if !self.interactive {
            if is_due || self.progress.silence() > QUIET {
                self.line(&step_line(report, meter));
            }
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = new_bar(self.max_iters);
            self.progress.show_beside(&bar);
            bar
        });
        if is_due || meter.steps() == 1 || self.progress.took_the_message() {
            let resident = crate::device::resident_bytes();
            bar.set_message(bar_message(report, meter, resident));
        }
        bar.set_position(report.step);
    }

    /// Prints a line; `--quiet` drops it.
    fn line(&mut self, text: &str) {
        if !self.quiet {
            self.write(text);
        }
    }

    /// Prints a warning, even with `--quiet`. It starts with the word, for there may be no colour.
    fn warning(&mut self, warning: &Warning) {
        let text = if self.color {
            format!("\x1b[1;33mwarning: {warning}\x1b[0m")
        } else {
            format!("warning: {warning}")
        };
        self.write(&text);
    }

    fn clear_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// A terminal that went away must not stop a run: failed writes are dropped.
    fn write(&mut self, text: &str) {
        let stderr = &mut self.stderr;
        let mut write = || {
            let _ = writeln!(stderr, "{text}").and_then(|()| stderr.flush());
        };
        self.progress.spoke();
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl Sink for Terminal {
    fn record(&mut self, event: &Event, _: Moment) -> Option<Warning> {
        match *event {
            Event::Startup(startup) => {
                self.max_iters = startup.max_iters;
                self.line(&startup_block(startup));
            }
            Event::Step {
                report,
                is_due,
                meter,
                ..
            } => self.step(report, is_due, meter),
            Event::Eval { report, improved } => self.line(&eval_line(report, improved)),
            Event::Run(_) | Event::EvalOnly(_) => {}
            Event::Checkpoint {
                path,
                duration,
                bytes,
            } => self.line(&saved_line(path, duration, bytes)),
            Event::Warning(warning) => self.warning(warning),
            Event::Choice(choice) => self.line(&choice_text(choice)),
            Event::Note(text) => self.line(text),
            Event::Finish(ref finish) => {
                self.clear_bar();
                self.line(&summary_block(finish, self.max_iters));
            }
        }
        None
    }
}

fn new_bar(max_iters: u64) -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
    let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(max_iters), target).with_style(style)
}

/// Progress bar of the search for the fastest matrix products, which takes seconds.
pub(super) fn search_bar(options: ReportOptions) -> ProgressBar {
    if options.quiet || !options.interactive {
        return ProgressBar::hidden();
    }
    let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND);
    let style =
        ProgressStyle::with_template(SEARCH).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(None, target).with_style(style)
}

/// `iter 260: loss 2.0011, lr 9.900e-4, 33.1 ms, 23,200 tok/s`; the rate from the second step on.
fn step_line(report: &StepReport, meter: &Meter) -> String {
    let mut line = format!(
        "iter {}: loss {:.4}, lr {}, {}",
        report.step,
        report.loss,
        learning_rate_in_a_column(report.learning_rate),
        short_time(report.duration),
    );
    if let Some(tokens_per_second) = meter.tokens_per_second() {
        line.push_str(", ");
        line.push_str(&rate(tokens_per_second));
    }
    line
}

/// nanoGPT's line, with the perplexity and whether the validation loss is the best so far.
pub(super) fn eval_line(report: &EvalReport, improved: bool) -> String {
    format!(
        "step {}: train loss {:.4}, val loss {:.4}, val perplexity {}{}",
        report.step,
        report.train_loss,
        report.val_loss,
        perplexity(report.val_perplexity()),
        if improved { " (best so far)" } else { "" },
    )
}

/// Text behind the bar; its loss is the running one, which jumps less.
fn bar_message(report: &StepReport, meter: &Meter, resident_bytes: Option<u64>) -> String {
    let mut parts = vec![
        format!("loss {:.4}", meter.smoothed_loss().unwrap_or(report.loss)),
        format!("lr {}", learning_rate_in_a_column(report.learning_rate)),
    ];
    parts.extend(meter.tokens_per_second().map(rate));
    parts.extend(meter.eta().map(|eta| format!("ETA {}", span(eta))));
    parts.extend(resident_bytes.map(bytes));
    parts.join("  ")
}

/// `saved out/step-250 (12.3 MiB in 0.21 s)`.
fn saved_line(path: &Path, duration: Duration, size: u64) -> String {
    let (path, size, time) = (path.display(), bytes(size), short_time(duration));
    format!("saved {path} ({size} in {time})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_tells_loss_rate_time_left_and_memory() {
        let mut meter = Meter::new(0, 2_002, 0);
        let mut report = StepReport {
            step: 1,
            loss: 4.0,
            learning_rate: 9.9e-4,
            grad_norm: 1.0,
            tokens: 768,
            duration: Duration::from_millis(50),
            ..StepReport::default()
        };
        meter.step(&report);
        let first = bar_message(&report, &meter, None);
        assert_eq!(first, "loss 4.0000  lr 9.900e-4");
        report.step = 2;
        report.loss = 2.0;
        meter.step(&report);
        let second = bar_message(&report, &meter, Some(512 << 20));
        assert_eq!(
            second,
            "loss 2.9899  lr 9.900e-4  15,360 tok/s  ETA 1m 40s  512.0 MiB"
        );
    }

    #[test]
    fn the_bar_s_template_is_valid() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }
}
