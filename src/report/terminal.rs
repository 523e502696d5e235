//! Text for people: lines on stderr, or a progress bar with lines above it.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::progress::{Progress, QUIET};
use super::sparkline::Sparkline;
use super::text::{choice_text, startup_block, summary_block};
use super::{Event, ReportOptions, Sink, Warning};
use crate::metrics::{EvalReport, Meter, StepPhases, StepReport};
use crate::outliers::SkippedUpdate;
use crate::record::Moment;
use crate::units::{bytes, learning_rate_in_a_column, perplexity, rate, short_time, span};

/// The second line is the state of the run: its loss so far, memory, and where the time of a step goes.
const BAR: &str = "{wide_bar} {human_pos}/{human_len}  {msg}\n{prefix}";

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
    /// Memory that the run may hold.
    budget_bytes: Option<u64>,
    losses: Sparkline,
    shares: Shares,
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
            budget_bytes: None,
            losses: Sparkline::new(),
            shares: Shares::default(),
        }
    }

    /// Moves the bar, or prints a line if the step is due or if there was none for about a minute.
    fn step(&mut self, report: &StepReport, is_due: bool, host_bytes: Option<u64>, meter: &Meter) {
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
        self.losses
            .push(meter.smoothed_loss().unwrap_or(report.loss));
        self.shares.add(&report.phases);
        if is_due || meter.steps() == 1 || self.progress.took_the_message() {
            bar.set_message(bar_message(report, meter));
            let parts = [
                self.losses.text(),
                memory_text(report.device_bytes, host_bytes, self.budget_bytes),
                self.shares.text(report.device_bytes.is_some()),
            ];
            let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            bar.set_prefix(parts.join("   "));
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
                self.budget_bytes = startup.budget_bytes;
                self.line(&startup_block(startup));
            }
            Event::Step {
                report,
                is_due,
                host_bytes,
                meter,
            } => self.step(report, is_due, host_bytes, meter),
            Event::Eval { report, improved } => self.line(&eval_line(report, improved)),
            Event::Score { step, score } => self.line(&format!("step {step}: {score}")),
            Event::Skip { step, skipped } => self.line(&skip_line(step, skipped)),
            // The error says it, and that is printed even with `--quiet`.
            Event::Run(_) | Event::Diverged { .. } | Event::EvalOnly(_) => {}
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

/// `step 512: update left out, the z-score of the loss is 8.31 (allowed 7)`.
fn skip_line(step: u64, skipped: &SkippedUpdate) -> String {
    format!(
        "step {step}: update left out, the z-score of the {} is {:.2} (allowed {})",
        skipped.watched.name(),
        skipped.zscore,
        skipped.allowed,
    )
}

/// Text behind the bar; its loss is the running one, which jumps less.
fn bar_message(report: &StepReport, meter: &Meter) -> String {
    let mut parts = vec![
        format!("loss {:.4}", meter.smoothed_loss().unwrap_or(report.loss)),
        format!("lr {}", learning_rate_in_a_column(report.learning_rate)),
    ];
    parts.extend(meter.tokens_per_second().map(rate));
    parts.extend(meter.eta().map(|eta| format!("ETA {}", span(eta))));
    parts.join("  ")
}

/// `512.0 MiB of 8.0 GiB`; on a GPU `GPU 8.03 GiB of 11.69 GiB, host 900.0 MiB`.
fn memory_text(device: Option<u64>, host: Option<u64>, budget: Option<u64>) -> String {
    let of_budget = budget.map_or_else(String::new, |budget| format!(" of {}", bytes(budget)));
    match (device, host) {
        (None, None) => String::new(),
        (None, Some(host)) => format!("{}{of_budget}", bytes(host)),
        (Some(device), host) => {
            let host = host.map_or_else(String::new, |host| format!(", host {}", bytes(host)));
            format!("GPU {}{of_budget}{host}", bytes(device))
        }
    }
}

/// Shares of the last steps' time.
#[derive(Debug, Default)]
struct Shares {
    /// Seconds in data, micro-steps and update, those of earlier steps fading.
    seconds: [f64; 3],
}

impl Shares {
    /// Weight of the past, per step.
    const FADE: f64 = 0.95;

    fn add(&mut self, phases: &StepPhases) {
        let of_step = [phases.data, phases.micro_steps, phases.update];
        for (sum, time) in self.seconds.iter_mut().zip(of_step) {
            *sum = Self::FADE * *sum + time.as_secs_f64();
        }
    }

    /// `data 0 %, forward and backward 97 %, update 3 %`. On a GPU the host's time: `data 0 %, launching 9 %, waiting for
    /// the GPU 91 %`. Empty where no time was taken.
    fn text(&self, is_gpu: bool) -> String {
        let names = if is_gpu {
            ["data", "launching", "waiting for the GPU"]
        } else {
            ["data", "forward and backward", "update"]
        };
        let total: f64 = self.seconds.iter().sum();
        if total == 0.0 {
            return String::new();
        }
        let parts = names.iter().zip(self.seconds);
        let parts = parts.map(|(name, seconds)| format!("{name} {:.0} %", 100.0 * seconds / total));
        parts.collect::<Vec<_>>().join(", ")
    }
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
    fn the_bar_tells_loss_rate_and_time_left() {
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
        let first = bar_message(&report, &meter);
        assert_eq!(first, "loss 4.0000  lr 9.900e-4");
        report.step = 2;
        report.loss = 2.0;
        meter.step(&report);
        let second = bar_message(&report, &meter);
        assert_eq!(second, "loss 2.9899  lr 9.900e-4  15,360 tok/s  ETA 1m 40s");
    }

    #[test]
    fn memory_is_that_of_the_device_and_of_the_host() {
        let (gib, mib) = (1 << 30, 1 << 20);
        let on_cpu = memory_text(None, Some(512 * mib), Some(8 * gib));
        assert_eq!(on_cpu, "512.0 MiB of 8.00 GiB");
        let on_gpu = memory_text(Some(8 * gib), Some(900 * mib), None);
        assert_eq!(on_gpu, "GPU 8.00 GiB, host 900.0 MiB");
        assert_eq!(memory_text(None, None, Some(gib)), "");
    }

    #[test]
    fn shares_are_of_the_last_steps() {
        let mut shares = Shares::default();
        assert_eq!(shares.text(false), "");
        let millis = Duration::from_millis;
        let (data, micro_steps, update) = (millis(10), millis(80), millis(10));
        shares.add(&StepPhases {
            data,
            micro_steps,
            update,
        });
        assert_eq!(
            shares.text(false),
            "data 10 %, forward and backward 80 %, update 10 %"
        );
        for _ in 0..200 {
            shares.add(&StepPhases {
                update: millis(100),
                ..StepPhases::default()
            });
        }
        assert_eq!(
            shares.text(true),
            "data 0 %, launching 0 %, waiting for the GPU 100 %"
        );
    }

    #[test]
    fn the_bar_s_template_is_valid() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }
}
