//! Output of a run: the only room that writes to the terminal and to `metrics.jsonl`.
//!
//! Text for people goes to stderr, data goes to stdout. On a terminal there is a progress bar with
//! evaluations and checkpoints above it; elsewhere there are plain lines in nanoGPT's manner.
//! `--quiet` leaves warnings on stderr and the last evaluation on stdout. `--json` puts one object
//! per event on stdout and nothing else there; it leaves stderr as it is.
//!
//! [`Reporter`] turns every call into an `Event` and passes it to a list of sinks: `terminal` first, then stdout
//! (`jsonl` or `result`), then `tensorboard`, then `metrics_log`. A new log format is a file with a `Sink` and a line in
//! [`Reporter::with_outputs`].

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::device::{DeviceProfile, resident_bytes};
use crate::evals::Score;
use crate::metrics::{EvalReport, Meter, StepReport, flops_per_token};
use crate::outliers::SkippedUpdate;
use crate::plan::{LONG_RUN, PredictedTime};
pub use crate::record::DataSummary;
use crate::record::RunRecord;
use crate::schedule::Schedule;
use crate::step::recovery::Recovery;
use crate::terms::{FileError, ModelDims, NamedChoice};

mod bench;

mod download;
mod jsonl;
mod lines;
mod metrics_log;
mod plan;
mod plan_table;
mod progress;
mod result;
mod score_table;
mod sink;
mod sparkline;
mod streams;
mod table;
mod tensorboard;
mod terminal;
mod text;
mod warning;
mod work;

pub use bench::{CandidateBench, GemmBench, Measured, ProblemBench, StepBench, step_bench_heading};
pub use download::DownloadProgress;
pub use metrics_log::MetricsLog;
pub use plan::{PlanReport, memory_records, plan_json, plan_summary, plan_text};
pub use plan_table::{PlanRow, plans_json, plans_text};
pub use progress::Progress;
pub use score_table::ScoreTable;
pub use streams::{OutputError, only_stdout_is_redirected, print_now, say};
pub use table::{Align, aligned};
pub use text::device_text;
pub use warning::Warning;
pub use work::WorkBar;

use jsonl::JsonLines;
use result::ResultLine;
use sink::{Event, Finish, Sink, Sinks};
use streams::Patient;
use tensorboard::TensorBoard;
use terminal::Terminal;
use text::time_text;

/// Amount and form of the output.
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
    /// Reads `TERM` and `NO_COLOR` (<https://no-color.org>) and asks whether both streams are terminals. There is
    /// no bar where JSON lines would run through it.
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
    /// Memory that the run is planned to hold.
    pub planned_bytes: u64,
    /// Memory that the run may hold, where that is known.
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

/// End of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Steps done since the very start of the run.
    pub step: u64,
    /// Wall-clock time of this process.
    pub wall: Duration,
    pub best: Option<BestEval>,
    /// The reason for which the run ended before `max_iters`, and the way to go on.
    pub stopped: Option<String>,
    /// The checkpoint to sample from.
    pub checkpoint: Option<PathBuf>,
    /// Peak of the process in host memory.
    pub peak_bytes: Option<u64>,
    /// `None` on the CPU.
    pub gpu: Option<GpuUse>,
}

/// Use of the GPU by a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct GpuUse {
    /// Buffers and reserve.
    pub held_bytes: u64,
    /// Peak of the datasheet at the run's precision.
    pub peak_flops_per_second: f64,
}

/// The evaluation with the lowest validation loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BestEval {
    pub step: u64,
    pub val_loss: f64,
}

/// Reports a run to every sink. No event fails: a closed pipe or a full disk must not stop a run.
pub struct Reporter {
    sinks: Sinks,
    progress: Progress,
    meter: Meter,
    flops_per_token: f64,
    log_interval: u64,
    choices: Vec<NamedChoice>,
    /// Whether the user knows that the run takes more than a week.
    knows_length: bool,
}

impl Reporter {
    pub fn new(options: ReportOptions) -> Self {
        Self::with_outputs(
            options,
            Box::new(Patient(io::stdout())),
            Box::new(Patient(io::stderr())),
        )
    }

    /// As [`Reporter::new`], for a run whose result is part of a larger one: without `--json`, nothing goes to stdout.
    pub fn without_results(options: ReportOptions) -> Self {
        let stdout: Box<dyn Write + Send> = if options.json {
            Box::new(Patient(io::stdout()))
        } else {
            Box::new(io::sink())
        };
        Self::with_outputs(options, stdout, Box::new(Patient(io::stderr())))
    }

    /// Writes to the given streams instead of the process's own; the bar stays on stderr.
    pub fn with_outputs(
        options: ReportOptions,
        stdout: Box<dyn Write + Send>,
        stderr: Box<dyn Write + Send>,
    ) -> Self {
        let stdout: Box<dyn Sink> = if options.json {
            Box::new(JsonLines::new(stdout))
        } else {
            Box::new(ResultLine::new(options.quiet, stdout))
        };
        let progress = Progress::new(options);
        let terminal = Terminal::new(options, stderr, progress.clone());
        Self {
            sinks: Sinks::new(vec![Box::new(terminal), stdout]),
            progress,
            meter: Meter::new(0, 0, 0),
            flops_per_token: 0.0,
            log_interval: 1,
            choices: Vec::new(),
            knows_length: false,
        }
    }

    /// Appends steps, evaluations and recoveries to `log` from here on.
    pub fn record_in(&mut self, log: MetricsLog) {
        self.sinks.metrics = Some(log);
    }

    /// Writes an event file for TensorBoard into `folder`, for the steps after `done`. One that cannot be created is a
    /// warning.
    pub fn record_for_tensorboard(&mut self, folder: &Path, done: u64) {
        match TensorBoard::create(folder, done, self.sinks.moment()) {
            Ok(events) => self.sinks.list.push(Box::new(events)),
            Err(error) => self.warning(Warning::TensorBoardNotWritten {
                path: error.path,
                reason: error.source.to_string(),
            }),
        }
    }

    /// Describes the run that is recorded from here on.
    pub fn begin_run(&mut self, run: &RunRecord, tokens_seen: u64) {
        self.sinks.tokens_seen = Some(tokens_seen);
        self.sinks.record(&Event::Run(run));
    }

    /// Progress of work that takes long.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Length of the metrics file, for a checkpoint; 0 without one. See [`MetricsLog::bytes`].
    ///
    /// # Errors
    /// [`FileError`] if the system cannot store what was written.
    pub fn metrics_bytes(&self) -> Result<u64, FileError> {
        self.sinks.metrics.as_ref().map_or(Ok(0), MetricsLog::bytes)
    }

    /// Opens the metrics file at its path again. See [`MetricsLog::reopen`].
    ///
    /// # Errors
    /// [`FileError`] if it cannot be written there.
    pub fn reopen_metrics(&mut self) -> Result<(), FileError> {
        let metrics = self.sinks.metrics.as_mut();
        metrics.map_or(Ok(()), MetricsLog::reopen)
    }

    /// Reports everything that was resolved before the first step, and every choice with its reason.
    pub fn startup(&mut self, startup: &Startup) {
        self.meter = Meter::new(startup.start_step, startup.max_iters, startup.eval_interval);
        self.flops_per_token = flops_per_token(&startup.model);
        self.log_interval = startup.log_interval.max(1);
        self.choices.clone_from(&startup.choices);
        self.sinks.record(&Event::Startup(startup));
    }

    /// Reports the time that the run is predicted to take, with a warning if that is more than a week. It continues the
    /// startup's block of text.
    pub fn predicted_time(&mut self, predicted: &PredictedTime) {
        self.note(&format!("  {:13}{}", "time", time_text(predicted)));
        if predicted.is_long() {
            self.warn_of_length(predicted.run(), true);
        }
    }

    fn warn_of_length(&mut self, time: Duration, is_predicted: bool) {
        self.knows_length = true;
        self.warning(Warning::LongRun { time, is_predicted });
    }

    /// Reports a step. Call it after every step; lines come every `log_interval` of them, and about every minute at
    /// least. A run that turns out to take more than a week is pointed out.
    pub fn step(&mut self, report: &StepReport) {
        self.meter.step(report);
        let left = self.meter.eta().filter(|left| *left > LONG_RUN);
        if let (Some(left), false) = (left, self.knows_length) {
            self.warn_of_length(left, false);
        }
        let is_due = report.step.is_multiple_of(self.log_interval);
        self.sinks.tokens_seen = Some(report.tokens_seen);
        let is_shown = is_due || self.meter.steps() == 1;
        self.sinks.record(&Event::Step {
            report,
            is_due,
            host_bytes: is_shown.then(resident_bytes).flatten(),
            meter: &self.meter,
        });
    }

    /// Reports that the update of a step, which was reported before, was left out.
    pub fn skipped(&mut self, step: u64, skipped: &SkippedUpdate) {
        self.sinks.record(&Event::Skip { step, skipped });
    }

    /// Reports that the loss or the gradient norm is no finite number, in the words of the error that ends the run.
    pub fn diverged(&mut self, step: u64, found: &str) {
        self.sinks.record(&Event::Diverged { step, found });
    }

    /// Reports an evaluation; `improved` if its validation loss is the lowest so far.
    pub fn eval(&mut self, report: &EvalReport, improved: bool) {
        self.meter.eval(report);
        self.sinks.record(&Event::Eval { report, improved });
    }

    /// Reports the scores of a task after `step` steps.
    pub fn score(&mut self, step: u64, score: &Score) {
        self.sinks.record(&Event::Score { step, score });
    }

    /// Reports the evaluation of `--eval-only`: it goes to stdout, and into no file.
    pub fn eval_only(&mut self, report: &EvalReport) {
        self.sinks.record(&Event::EvalOnly(report));
    }

    pub fn checkpoint_saved(&mut self, path: &Path, duration: Duration, bytes: u64) {
        self.sinks.record(&Event::Checkpoint {
            path,
            duration,
            bytes,
        });
    }

    /// Shows a warning at once, even with `--quiet`, and again in the summary.
    pub fn warning(&mut self, warning: Warning) {
        self.sinks.warn(warning);
    }

    /// Shows a warning that was not shown before.
    pub fn warn_once(&mut self, warning: Warning) {
        if !self.sinks.warnings.contains(&warning) {
            self.warning(warning);
        }
    }

    /// Reports a refusal of memory that the run survived: a warning, and a line in the metrics.
    pub fn recovered(&mut self, step: u64, recovery: &Recovery) {
        self.sinks.warn(Warning::MemoryRefused {
            step,
            recovery: recovery.clone(),
        });
    }

    /// Reports a decision after the startup; the summary repeats it.
    pub fn choice(&mut self, choice: &NamedChoice) {
        self.sinks.record(&Event::Choice(choice));
        self.choices.push(choice.clone());
    }

    /// Checks that stdout took every result. A reader that went away counts as having seen enough.
    ///
    /// # Errors
    /// [`OutputError`] with the reason of the first that was lost.
    pub fn results_written(&self) -> Result<(), OutputError> {
        let lost = self
            .sinks
            .warnings
            .iter()
            .find_map(|warning| match warning {
                Warning::ResultsNotWritten { reason } => Some(reason),
                _ => None,
            });
        lost.map_or(
            Ok(()),
            |reason| Err(io::Error::other(reason.clone()).into()),
        )
    }

    /// Prints a line for people only.
    pub fn note(&mut self, text: &str) {
        self.sinks.record(&Event::Note(text));
    }

    /// Reports the end of a run. Call it after the last step.
    pub fn finish(&mut self, summary: &Summary) {
        let average = self.meter.average_tokens_per_second();
        let warnings = self.sinks.warnings.clone();
        self.sinks.record(&Event::Finish(Finish {
            summary,
            meter: &self.meter,
            flops_per_second: average.map(|rate| rate * self.flops_per_token),
            choices: &self.choices,
            warnings: &warnings,
        }));
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
                ..StepReport::default()
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
