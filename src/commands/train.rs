//! `taper train`: the main job, read top to bottom.

use std::path::PathBuf;
use std::time::Instant;

use crate::checkpoint::{OutDir, find_latest};
use crate::commands::backends::{self, Computing};
use crate::commands::request::load_and_keep;
use crate::commands::weights::settled;
use crate::commands::{explain, in_thread_pool, path_argument, sweep};
use crate::config::{Config, GivenSizes, Sweep};
use crate::data::Dataset;
use crate::device::{DeviceProfile, FoundDevice, find};
use crate::error::Result;
use crate::faults::{Faults, Injection};
use crate::interrupt::Interrupt;
use crate::memory::Memory;
use crate::ops::backend::Backend;
use crate::plan::{Plan, Request};
use crate::report::{DownloadProgress, ReportOptions, Reporter, only_stdout_is_redirected};
use crate::session::{Resume, ScoredTasks, Session, Start, evaluate_weights, hold_folder};
use crate::terms::Job;

pub(super) const WHERE_TEXT_GOES: &str = "this text goes to standard error, which `2> FILE` keeps; standard output gets results: \
    those of `--eval-only`, `--quiet` and `--json`, and the table of a sweep";

/// Train GPT-2
///
/// Text for people goes to stderr, results to stdout: the losses of `--eval-only`, the last evaluation of `--quiet`, the
/// objects of `--json`. `2> FILE` keeps the text.
#[derive(Clone, Debug, clap::Args)]
pub struct TrainArgs {
    /// A TOML file, a preset's name such as `quickstart.toml`, or a config of nanoGPT's, such as `my_config.py`
    #[arg(long, value_name = "FILE")]
    pub config: String,
    /// Change one key of the config; may be repeated. Several values, `optimizer.learning_rate=1e-3,6e-4`, train one run
    /// after the other in sibling folders of `checkpoint.out_dir`, and end with a table
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Continue exactly where a run stopped: its newest checkpoint, or the one named, nanoGPT's `ckpt.pt` too. `auto`: if
    /// there is one, else begin
    #[arg(long, value_name = "CHECKPOINT|auto", num_args = 0..=1, value_parser = path_argument())]
    pub resume: Option<Option<PathBuf>>,
    /// Only print the loss and perplexity of both splits
    #[arg(long)]
    pub eval_only: bool,
    /// The most memory to hold, such as `11.69GiB` [default: what is available]
    #[arg(long, value_name = "SIZE")]
    pub memory_limit: Option<String>,
    /// For tests: fail where a device may, `SITE:FIRST[-[LAST]][!]`
    #[arg(long, value_name = "FAULT", hide = true)]
    pub inject: Vec<Injection>,
    /// Print only warnings, errors and the last evaluation
    #[arg(long, short)]
    pub quiet: bool,
    /// Print one JSON object per event on stdout
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: TrainArgs) -> Result<()> {
    let begun = Instant::now();
    let interrupt = Interrupt::install()?;
    let options = ReportOptions::detect(args.quiet, args.json);
    if let Some(sweep) = Sweep::of(&args.overrides)? {
        return sweep::run(&args, &sweep, &interrupt, options);
    }
    let mut reporter = Reporter::new(options);

    if !args.json && only_stdout_is_redirected() {
        reporter.note(WHERE_TEXT_GOES);
    }
    let note = |told: &str| reporter.note(told);
    let (config, given) = load_and_keep(&args.config, &with_limit(&args.overrides, &args), note)?;
    let mut dataset = Dataset::open(&config.data)?;
    let asked = Asked {
        args: &args,
        job: if args.eval_only || config.eval.eval_only {
            Job::Evaluate
        } else {
            Job::Train
        },
        config,
        given,
        resume: args
            .resume
            .as_ref()
            .map(|path| Resume::parse(path.as_deref())),
        interrupt: &interrupt,
        options,
        begun,
    };
    asked.run(&mut dataset, &mut reporter)
}

/// A run that is asked for.
pub(super) struct Asked<'a> {
    pub args: &'a TrainArgs,
    pub config: Config,
    pub given: GivenSizes,
    pub resume: Option<Resume>,
    pub job: Job,
    pub interrupt: &'a Interrupt,
    pub options: ReportOptions,
    /// The start of the command.
    pub begun: Instant,
}

impl Asked<'_> {
    /// Trains, or evaluates.
    pub(super) fn run(&self, dataset: &mut Dataset, reporter: &mut Reporter) -> Result<()> {
        // Before anything in the folder is read: another run may be writing to it.
        let folder = match self.job {
            Job::Train => Some(hold_folder(&self.config.checkpoint.out_dir, reporter)?),
            Job::Evaluate => None,
        };
        self.planned(dataset, reporter, |run, found, reporter| {
            let plan = run.plan;
            let memory = Memory::limited(
                plan.budget.value,
                plan.reserve_bytes(),
                Faults::new(self.args.inject.clone()),
            );
            let search = backends::Search {
                stored: run.start.stored_products(run.config)?,
                watch: Box::new(backends::Spectator {
                    progress: reporter.progress(),
                    interrupt: Some(self.interrupt.clone()),
                }),
            };
            in_thread_pool(plan.threads, || {
                let (ordinal, computing) = (found.ordinal, Computing::from(plan));
                let (backend, memory) =
                    backends::open(ordinal, &found.profile, computing, search, memory)?;
                run.on(backend, memory, folder, reporter)
            })
        })
    }

    /// Plans the run, and hands it to `then`. Until then nothing is allocated and nothing is written.
    pub(super) fn planned<R>(
        &self,
        dataset: &mut Dataset,
        reporter: &mut Reporter,
        then: impl FnOnce(PlannedRun, &FoundDevice, &mut Reporter) -> Result<R>,
    ) -> Result<R> {
        let download = DownloadProgress::new(self.options, self.interrupt.flag());
        let start = Start::find(&self.config, self.resume.as_ref(), reporter, &download)?;
        let config = settled(self.config.clone(), &self.given, &start)?;
        let tasks = match self.job {
            Job::Train => ScoredTasks::load(&config, dataset, reporter, &download)?,
            Job::Evaluate => no_tasks(&config, reporter),
        };
        // Last, so that what dataset and tokenizer take counts as the process's.
        let found = find(config.system.device)?;
        let info = dataset.info.clone();
        let request = Request {
            config: &config,
            device: &found.profile,
            dataset: &info,
            origin: start.origin(&config)?,
            job: self.job,
            because: &found.because,
        };
        let plan = request.plan()?;
        start.check_dataset(dataset, reporter)?;
        dataset.require(plan.model.block_size, plan.model.vocab_size)?;
        let run = PlannedRun {
            source: &self.args.config,
            config: &config,
            start: &start,
            plan: &plan,
            device: &found.profile,
            dataset,
            interrupt: self.interrupt,
            begun: self.begun,
            tasks,
        };
        then(run, &found, reporter).map_err(|error| {
            let saved = self.job == Job::Train && find_latest(&plan.out_dir).is_ok();
            explain(error, &request, saved)
        })
    }
}

/// Everything that is decided before a backend is there.
pub(super) struct PlannedRun<'a> {
    /// The value of `--config`.
    pub source: &'a str,
    pub config: &'a Config,
    pub start: &'a Start,
    pub plan: &'a Plan,
    pub device: &'a DeviceProfile,
    pub dataset: &'a Dataset,
    pub interrupt: &'a Interrupt,
    /// The start of the command.
    pub begun: Instant,
    /// Scored during the run.
    pub tasks: ScoredTasks,
}

impl PlannedRun<'_> {
    /// Trains in `folder`; evaluates without one.
    fn on(
        mut self,
        backend: Box<dyn Backend>,
        memory: Memory,
        folder: Option<OutDir>,
        reporter: &mut Reporter,
    ) -> Result<()> {
        let (start, plan) = (self.start, self.plan);
        let Some(folder) = folder else {
            return self.evaluate(backend, memory, reporter);
        };
        start.refuse_to_overwrite(&plan.out_dir)?;
        reporter.startup(&self.startup());
        self.warn_of_oddities(reporter);
        for doubt in self.config.doubts() {
            reporter.warning(doubt.into());
        }
        reporter.predicted_time(&plan.predicted_time(start.step()));
        let mut session = Session::allocate(
            plan,
            self.dataset,
            reporter,
            self.interrupt,
            backend,
            memory,
            folder,
        )?;
        session.tasks = std::mem::take(&mut self.tasks);
        session.deadline = plan
            .max_time()
            .and_then(|time| self.begun.checked_add(time));
        session.begin(start)?;
        if plan.tensorboard && session.state.step < plan.max_iters {
            let reporter = &mut *session.reporter;
            reporter.record_for_tensorboard(&plan.out_dir, session.state.step);
        }
        let tokens_seen = session.state.tokens_seen;
        session.reporter.begin_run(&self.record(), tokens_seen);
        if session.state.step >= plan.max_iters {
            let (done, asked) = (session.state.step, plan.max_iters);
            session.reporter.note(&format!(
                "nothing to train: {done} steps are done and `train.max_iters` is {asked}"
            ));
        }
        let summary = session.train()?;
        reporter.finish(&summary);
        Ok(reporter.results_written()?)
    }

    fn warn_of_oddities(&self, reporter: &mut Reporter) {
        for warning in &self.dataset.warnings {
            reporter.warning(warning.clone().into());
        }
    }

    /// Prints the losses of both splits, and changes nothing.
    fn evaluate(
        &self,
        backend: Box<dyn Backend>,
        memory: Memory,
        reporter: &mut Reporter,
    ) -> Result<()> {
        let Self {
            start,
            plan,
            dataset,
            interrupt,
            ..
        } = self;
        start.refuse_untrained_in_run(&plan.out_dir)?;
        self.warn_of_oddities(reporter);
        if matches!(start, Start::Scratch) {
            reporter.note("evaluating untrained weights; add `--resume` for a run's newest");
        }
        let report = evaluate_weights(plan, dataset, reporter, interrupt, start, backend, memory)?;
        reporter.eval_only(&report);
        Ok(reporter.results_written()?)
    }
}

/// The tasks of an evaluation: none.
fn no_tasks(config: &Config, reporter: &mut Reporter) -> ScoredTasks {
    if config.eval.eval_tasks.is_some() {
        reporter
            .note("`eval.eval_tasks` is for training: `taper eval CHECKPOINT` scores a checkpoint");
    }
    ScoredTasks::default()
}

/// Settings of `--set`, and of the flags that are short for one.
pub(super) fn with_limit(overrides: &[String], args: &TrainArgs) -> Vec<String> {
    let limit = args.memory_limit.iter();
    let limit = limit.map(|limit| format!("system.memory_limit={limit}"));
    overrides.iter().cloned().chain(limit).collect()
}
