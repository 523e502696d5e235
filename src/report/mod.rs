//! What a run says: the one place that writes to the terminal and to `metrics.jsonl`.
//!
//! Text for people goes to stderr, data goes to stdout. On a terminal there is a progress bar with
//! evaluations and checkpoints above it; elsewhere there are plain lines in nanoGPT's manner.
//! `--quiet` leaves warnings on stderr and the last evaluation on stdout. `--json` puts one object
//! per event on stdout and nothing else there; it leaves stderr as it is.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::device::DeviceProfile;
use crate::metrics::{EvalReport, Meter, StepReport, flops_per_token};
use crate::recovery::Recovery;
use crate::schedule::Schedule;
use crate::terms::{ModelDims, NamedChoice};

mod bench;
mod error;
mod jsonl;
mod plan;
mod terminal;
mod text;
mod warning;

pub use bench::{CandidateBench, GemmBench, Measured, ProblemBench, StepBench, step_bench_heading};
pub use error::ReportError;
pub use jsonl::{MetricsLog, complete_lines};
pub use plan::{PlanReport, plan_json, plan_summary, plan_text};
pub use terminal::search_bar;
pub use warning::Warning;

use jsonl::{Done, Event};
use terminal::{Terminal, eval_line, saved_line};

/// How much is said, and in which form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportOptions {
    pub quiet: bool,
    pub json: bool,
    /// stderr is a terminal: draw a progress bar.
    pub interactive: bool,
    /// Warnings may be coloured.
    pub color: bool,
}

impl ReportOptions {
    /// Looks at both streams, at `TERM` and at `NO_COLOR` (<https://no-color.org>). There is no bar
    /// where JSON lines would run through it.
    pub fn detect(quiet: bool, json: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = io::stderr().is_terminal() && !dumb;
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            quiet,
            json,
            interactive: terminal && !(json && io::stdout().is_terminal()),
            color: terminal && !no_color,
        }
    }
}

/// Everything resolved before the first step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Startup {
    pub version: &'static str,
    pub device: DeviceProfile,
    pub model: ModelDims,
    pub data: DataSummary,
    /// Sequences per micro-step.
    pub micro_batch: usize,
    pub gradient_accumulation_steps: usize,
    pub max_iters: u64,
    pub schedule: Schedule,
    /// Steps done before this process: 0, or where a resumed run continues.
    pub start_step: u64,
    pub log_interval: u64,
    pub eval_interval: u64,
    /// What the run is planned to hold.
    pub planned_bytes: u64,
    /// What it may hold, where that is known.
    pub budget_bytes: Option<u64>,
    #[serde(serialize_with = "path_as_text")]
    pub checkpoint_dir: PathBuf,
    pub choices: Vec<NamedChoice>,
}

impl Startup {
    fn tokens_per_step(&self) -> u64 {
        (self.micro_batch * self.gradient_accumulation_steps * self.model.block_size) as u64
    }
}

/// What a run reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DataSummary {
    pub name: String,
    pub train_tokens: u64,
    pub val_tokens: u64,
    /// Of the tokenizer; the model's may be padded.
    pub vocab_size: usize,
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Steps done since the very start of the run.
    pub step: u64,
    /// Wall-clock time of this process.
    pub wall: Duration,
    pub best: Option<BestEval>,
    /// The checkpoint to sample from.
    pub checkpoint: Option<PathBuf>,
    /// Of the process, in the host's memory.
    pub peak_bytes: Option<u64>,
    /// Of the GPU that it ran on.
    pub gpu: Option<GpuUse>,
}

/// What a run took of its GPU.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GpuUse {
    /// Buffers and reserve.
    pub held_bytes: u64,
    /// The datasheet's, at the run's precision.
    pub peak_flops_per_second: f64,
}

/// The evaluation with the lowest validation loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BestEval {
    pub step: u64,
    pub val_loss: f64,
}

/// Says what happens. No method fails: a closed pipe or a full disk must not stop a run.
pub struct Reporter {
    json: bool,
    quiet: bool,
    terminal: Terminal,
    stdout: Box<dyn Write + Send>,
    log: Option<MetricsLog>,
    log_failed: bool,
    meter: Meter,
    flops_per_token: f64,
    max_iters: u64,
    log_interval: u64,
    last_eval: Option<EvalReport>,
    choices: Vec<NamedChoice>,
    warnings: Vec<Warning>,
}

impl Reporter {
    pub fn new(options: ReportOptions) -> Self {
        Self::with_outputs(options, Box::new(io::stdout()), Box::new(io::stderr()))
    }

    /// Writes somewhere else than to the process's own streams; the bar stays on stderr.
    pub fn with_outputs(
        options: ReportOptions,
        stdout: Box<dyn Write + Send>,
        stderr: Box<dyn Write + Send>,
    ) -> Self {
        Self {
            json: options.json,
            quiet: options.quiet,
            terminal: Terminal::new(options, stderr),
            stdout,
            log: None,
            log_failed: false,
            meter: Meter::new(0, 0, 0),
            flops_per_token: 0.0,
            max_iters: 0,
            log_interval: 1,
            last_eval: None,
            choices: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// From here on steps and evaluations are also appended to `log`.
    pub fn record_in(&mut self, log: MetricsLog) {
        self.log = Some(log);
    }

    /// The length of the metrics file, for a checkpoint; 0 without one. See [`MetricsLog::bytes`].
    ///
    /// # Errors
    /// [`ReportError::Io`] if what was written cannot be stored.
    pub fn metrics_bytes(&self) -> Result<u64, ReportError> {
        self.log.as_ref().map_or(Ok(0), MetricsLog::bytes)
    }

    /// Before the first step: everything that was resolved, and every choice with its reason.
    pub fn startup(&mut self, startup: &Startup) {
        self.meter = Meter::new(startup.start_step, startup.max_iters, startup.eval_interval);
        self.flops_per_token = flops_per_token(&startup.model);
        self.max_iters = startup.max_iters;
        self.log_interval = startup.log_interval.max(1);
        self.choices.clone_from(&startup.choices);
        self.terminal.startup(startup);
        self.emit(&Event::Startup(startup));
    }

    /// Call it after every step; lines come every `log_interval` of them.
    pub fn step(&mut self, report: &StepReport) {
        self.meter.step(report);
        let due = report.step.is_multiple_of(self.log_interval);
        self.terminal.step(report, due, self.max_iters, &self.meter);
        if due {
            let event = Event::from(report);
            self.emit(&event);
            self.append(&event);
        }
    }

    /// After an evaluation; `improved` if its validation loss is the lowest so far.
    pub fn eval(&mut self, report: &EvalReport, improved: bool) {
        self.meter.eval(report);
        self.last_eval = Some(*report);
        self.terminal.line(&eval_line(report, improved));
        let event = Event::from(report);
        self.emit(&event);
        self.append(&event);
    }

    /// The evaluation that was all that was asked for: it goes to stdout, and into no file.
    pub fn eval_only(&mut self, report: &EvalReport) {
        if self.json {
            self.emit(&Event::from(report));
        } else {
            self.result(report);
        }
    }

    pub fn checkpoint_saved(&mut self, path: &Path, duration: Duration, bytes: u64) {
        self.terminal.line(&saved_line(path, duration, bytes));
        self.emit(&Event::Checkpoint {
            path: path.display().to_string(),
            bytes,
            ms: duration.as_secs_f64() * 1e3,
        });
    }

    /// Shown at once, even with `--quiet`, and again in the summary.
    pub fn warning(&mut self, warning: Warning) {
        self.terminal.warning(&warning);
        self.emit(&Event::from(&warning));
        self.warnings.push(warning);
    }

    /// After memory was refused and the run went on: a warning, and a line in the metrics.
    pub fn recovered(&mut self, step: u64, recovery: &Recovery) {
        let warning = Warning::MemoryRefused {
            step,
            recovery: recovery.clone(),
        };
        self.terminal.warning(&warning);
        let event = Event::Recovery { step, recovery };
        self.emit(&event);
        self.append(&event);
        self.warnings.push(warning);
    }

    /// What was decided after the startup; it is in the summary, too.
    pub fn choice(&mut self, choice: &NamedChoice) {
        self.terminal.line(&text::choice_text(choice));
        self.emit(&Event::Choice(choice));
        self.choices.push(choice.clone());
    }

    /// A line for people only.
    pub fn note(&mut self, text: &str) {
        self.terminal.line(text);
    }

    /// After the last step, or the last one before an interrupt.
    pub fn finish(&mut self, summary: &Summary) {
        self.terminal.clear_bar();
        let average = self.meter.average_tokens_per_second();
        let flops_per_second = average.map(|rate| rate * self.flops_per_token);
        self.terminal.line(&text::summary_block(
            summary,
            self.max_iters,
            &self.meter,
            flops_per_second,
            &self.choices,
            &self.warnings,
        ));
        if self.quiet
            && !self.json
            && let Some(report) = self.last_eval
        {
            self.result(&report);
        }
        self.emit(&Event::Done(Done {
            step: summary.step,
            steps: self.meter.steps(),
            tokens: self.meter.tokens(),
            seconds: summary.wall.as_secs_f64(),
            tokens_per_second: average,
            flops_per_second,
            peak_bytes: summary.peak_bytes,
            gpu: summary.gpu,
            best_val_loss: summary.best.map(|best| best.val_loss),
            best_step: summary.best.map(|best| best.step),
            checkpoint: summary
                .checkpoint
                .as_ref()
                .map(|path| path.display().to_string()),
            warnings: self.warnings.iter().map(Warning::to_string).collect(),
        }));
    }

    fn result(&mut self, report: &EvalReport) {
        let _ = writeln!(self.stdout, "{}", eval_line(report, false))
            .and_then(|()| self.stdout.flush());
    }

    /// With `--json`, one line on stdout. A reader that went away does not stop the run.
    fn emit(&mut self, event: &Event) {
        if self.json {
            let _ = event.write_to(&mut self.stdout);
        }
    }

    fn append(&mut self, event: &Event) {
        let Some(log) = &mut self.log else { return };
        if let Err(error) = log.append(event) {
            // Once is loud enough; later lines are tried all the same.
            if !std::mem::replace(&mut self.log_failed, true) {
                let path = log.path().to_owned();
                let reason = error.to_string();
                self.warning(Warning::MetricsNotWritten { path, reason });
            }
        }
    }
}

fn path_as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_hears_of_evaluations() {
        let options = ReportOptions {
            quiet: true,
            ..Default::default()
        };
        let mut reporter =
            Reporter::with_outputs(options, Box::new(io::sink()), Box::new(io::sink()));
        reporter.meter = Meter::new(0, 10, 5);
        for (step, duration) in [(1, 900), (2, 100)] {
            reporter.step(&StepReport {
                step,
                loss: 4.0,
                learning_rate: 1e-3,
                grad_norm: 1.0,
                tokens: 64,
                duration: Duration::from_millis(duration),
            });
        }
        assert_eq!(reporter.meter.eta(), Some(Duration::from_millis(800)));
        let report = EvalReport {
            step: 2,
            train_loss: 4.0,
            val_loss: 4.0,
            duration: Duration::from_secs(3),
        };
        reporter.eval(&report, true);
        assert_eq!(reporter.meter.eta(), Some(Duration::from_millis(6_800)));
    }
}
