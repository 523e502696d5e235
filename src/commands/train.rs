//! `taper train`: the main job, read top to bottom.

use std::path::{Path, PathBuf};

#[cfg(feature = "cuda")]
use half::{bf16, f16};

use crate::checkpoint::{
    Checkpoint, CheckpointError, Pretrained, Stored, ValuesMut, asks_for_the_same_gemm,
    asks_for_the_same_launch, check_resumable, find_latest, hub_cache, open, open_pretrained,
    resolve_pretrained,
};
use crate::commands::{backends, in_thread_pool};
use crate::config::Config;
use crate::data::Dataset;
use crate::device::{DeviceProfile, find};
use crate::error::{Error, Result};
use crate::faults::{Faults, Injection, Site};
use crate::interrupt::Interrupt;
use crate::memory::Memory;
use crate::model::init_values;
use crate::ops::gemm::Table;
use crate::plan::{Origin, Plan, Request};
use crate::report::{
    DataSummary, MetricsLog, ReportOptions, Reporter, Startup, Warning, search_bar,
};
use crate::session::{Session, evaluate_weights};
use crate::terms::Job;
#[cfg(feature = "cuda")]
use crate::terms::Precision;

/// Train GPT-2
#[derive(Clone, Debug, clap::Args)]
pub struct TrainArgs {
    /// A TOML file, or a preset's name such as `quickstart.toml`
    #[arg(long, value_name = "FILE")]
    pub config: String,
    /// Change one key of the config; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Continue exactly where a run stopped: its newest checkpoint, or the one named
    #[arg(long, value_name = "CHECKPOINT", num_args = 0..=1)]
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
    let interrupt = Interrupt::install()?;
    let options = ReportOptions::detect(args.quiet, args.json);
    let mut reporter = Reporter::new(options);

    let config = Config::load(&args.config, &overrides(&args))?;
    let mut dataset = Dataset::open(&config.data)?;
    let start = Start::find(&config, args.resume.as_ref(), &mut reporter)?;
    // Last, so that what dataset and tokenizer take counts as the process's.
    let found = find(config.system.device)?;
    let device = &found.profile;
    let job = match args.eval_only || config.eval.eval_only {
        true => Job::Evaluate,
        false => Job::Train,
    };
    let info = dataset.info.clone();
    let request = Request {
        config: &config,
        device,
        dataset: &info,
        origin: start.origin(&config)?,
        job,
        because: &found.because,
    };
    let plan = request.plan()?;
    dataset.require(plan.model.block_size, plan.model.vocab_size)?;

    let memory = Memory::limited(
        plan.budget.value,
        plan.reserve_bytes(),
        Faults::new(args.inject),
    );
    let run = Run {
        start: &start,
        config: &config,
        plan: &plan,
        device,
        dataset: &dataset,
        interrupt: &interrupt,
    };
    let search = backends::Search {
        stored: run.start.stored_products(&config)?,
        progress: search_bar(options),
    };
    in_thread_pool(plan.threads, || match found.ordinal {
        None => run.on(backends::cpu(&plan, device, search), memory, &mut reporter),
        #[cfg(feature = "cuda")]
        Some(ordinal) => {
            let gpu = backends::Opened::new(ordinal, &plan, device)?;
            let memory = memory.in_pool(gpu.device());
            let backend = config.gemm.backend;
            match plan.precision {
                Precision::Float32 => {
                    run.on(gpu.backend::<f32>(backend, search)?, memory, &mut reporter)
                }
                Precision::Bfloat16 => {
                    run.on(gpu.backend::<bf16>(backend, search)?, memory, &mut reporter)
                }
                Precision::Float16 => {
                    run.on(gpu.backend::<f16>(backend, search)?, memory, &mut reporter)
                }
            }
        }
        #[cfg(not(feature = "cuda"))]
        Some(_) => Err(crate::device::DeviceError::NoCuda.into()),
    })
    .map_err(|error| {
        let saved = job == Job::Train && find_latest(&plan.out_dir).is_ok();
        request.explain(error, saved)
    })
}

/// Everything that is decided before a backend is there.
struct Run<'a> {
    start: &'a Start,
    config: &'a Config,
    plan: &'a Plan,
    device: &'a DeviceProfile,
    dataset: &'a Dataset,
    interrupt: &'a Interrupt,
}

impl Run<'_> {
    fn on<B: Stored>(&self, backend: B, memory: Memory, reporter: &mut Reporter) -> Result<()> {
        let Self { start, plan, .. } = self;
        if plan.job == Job::Evaluate {
            return self.evaluate(backend, memory, reporter);
        }
        start.refuse_to_overwrite(&plan.out_dir)?;
        reporter.startup(&startup(plan, self.device, self.dataset, start.step()));
        let mut session = Session::allocate(
            self.config,
            plan,
            self.dataset,
            reporter,
            self.interrupt,
            (backend, memory),
        )?;
        start.restore(&mut session)?;
        if session.state.step >= plan.max_iters {
            let (done, asked) = (session.state.step, plan.max_iters);
            session.reporter.note(&format!(
                "nothing to train: {done} steps are done and `train.max_iters` is {asked}"
            ));
        }
        let summary = session.train()?;
        reporter.finish(&summary);
        Ok(())
    }

    /// Prints the losses of both splits, and changes nothing.
    fn evaluate<B: Stored>(
        &self,
        backend: B,
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
        if matches!(start, Start::Scratch) {
            reporter.note("evaluating untrained weights; add `--resume` for a run's newest");
        }
        let load = |weights: &mut dyn ValuesMut, memory: &Memory| {
            start.load_weights(plan, weights, memory)
        };
        let model = (start.step(), backend, memory);
        let report = evaluate_weights(plan, dataset, reporter, interrupt, model, load)?;
        reporter.eval_only(&report);
        Ok(())
    }
}

/// What `--set` says, and the flags that are short for one.
fn overrides(args: &TrainArgs) -> Vec<String> {
    let limit = args.memory_limit.iter();
    let limit = limit.map(|limit| format!("system.memory_limit={limit}"));
    args.overrides.iter().cloned().chain(limit).collect()
}

/// Where the weights come from.
enum Start {
    Scratch,
    Pretrained(Box<Pretrained>),
    Resume(Box<Checkpoint>),
}

impl Start {
    /// What the flags and `train.init_from` ask for. Damaged checkpoints are passed over, loudly.
    fn find(
        config: &Config,
        resume: Option<&Option<PathBuf>>,
        reporter: &mut Reporter,
    ) -> Result<Self> {
        let found = match (resume, config.train.init_from.as_str()) {
            (Some(Some(path)), _) => open(path)?,
            (Some(None), _) | (None, "resume") => find_latest(&config.checkpoint.out_dir)?,
            (None, "scratch") => return Ok(Self::Scratch),
            (None, name) => {
                let folder = resolve_pretrained(name, &hub_cache())?;
                return Ok(Self::Pretrained(Box::new(open_pretrained(&folder)?)));
            }
        };
        for skipped in found.skipped {
            reporter.warning(Warning::CheckpointDamaged {
                damaged: skipped.path,
                reason: skipped.damage.to_string(),
                used: found.checkpoint.path.clone(),
            });
        }
        check_resumable(config, &found.checkpoint.config_toml)?;
        Ok(Self::Resume(Box::new(found.checkpoint)))
    }

    /// A checkpoint's rung counts where the launch is asked for as it was then.
    fn origin(&self, config: &Config) -> Result<Origin<'_>> {
        Ok(match self {
            Self::Scratch => Origin::default(),
            Self::Pretrained(pretrained) => Origin {
                weights: Some(&pretrained.dims),
                ..Origin::default()
            },
            Self::Resume(checkpoint) => Origin {
                weights: Some(&checkpoint.dims),
                rung: asks_for_the_same_launch(config, &checkpoint.config_toml)?
                    .then_some(checkpoint.state.rung)
                    .flatten(),
                resumed: true,
            },
        })
    }

    /// What computed which matrix product for a checkpoint, where they are asked for as they were then.
    fn stored_products(&self, config: &Config) -> Result<Table> {
        Ok(match self {
            Self::Resume(checkpoint)
                if asks_for_the_same_gemm(config, &checkpoint.config_toml)? =>
            {
                checkpoint.state.gemm.clone()
            }
            _ => Table::default(),
        })
    }

    fn step(&self) -> u64 {
        match self {
            Self::Resume(checkpoint) => checkpoint.state.step,
            _ => 0,
        }
    }

    /// A run from step 0 must not bury the checkpoints of another.
    fn refuse_to_overwrite(&self, out_dir: &Path) -> Result<()> {
        if matches!(self, Self::Resume(_)) {
            return Ok(());
        }
        match find_latest(out_dir) {
            Err(CheckpointError::NoneFound { skipped, .. }) if skipped.is_empty() => Ok(()),
            Err(other) => Err(other.into()),
            Ok(found) => Err(Error::Usage {
                what: format!(
                    "`{}` already holds a run, saved at step {}",
                    out_dir.display(),
                    found.checkpoint.state.step
                ),
                hint: "add `--resume` to continue it, or start another beside it with \
                       `--set checkpoint.out_dir=NEW_FOLDER`"
                    .into(),
            }),
        }
    }

    fn load_weights(
        &self,
        plan: &Plan,
        weights: &mut dyn ValuesMut,
        memory: &Memory,
    ) -> Result<()> {
        match self {
            Self::Scratch => {
                let layout = crate::model::ParamLayout::new(&plan.model);
                init_values(&plan.model, &layout, plan.step.seed, weights)
                    .map_err(|error| memory.refusal(Site::Launch, error.into()))?;
            }
            Self::Pretrained(pretrained) => pretrained.load_weights(&plan.model, weights)?,
            Self::Resume(checkpoint) => checkpoint.load_weights(&plan.model, weights)?,
        }
        Ok(())
    }

    /// Weights, moments, state and metrics: all as they were at [`Start::step`].
    fn restore<B: Stored>(&self, session: &mut Session<B>) -> Result<()> {
        let mut metrics_bytes = 0;
        match self {
            Self::Resume(checkpoint) => {
                let dims = &session.plan.model;
                session
                    .trainer
                    .load(|[weights, m, v], _| Ok(checkpoint.load_into(dims, weights, m, v)?))?;
                session
                    .trainer
                    .loss_scale
                    .resume(checkpoint.state.loss_scale);
                metrics_bytes = checkpoint.state.metrics_bytes;
                session.state = crate::checkpoint::TrainState {
                    rung: Some(session.trainer.rung()),
                    choices: session.plan.choices.clone(),
                    ..checkpoint.state.clone()
                };
                session.saved = Some((session.state.step, checkpoint.path.clone()));
            }
            other => {
                let plan = session.plan;
                let trainer = &mut session.trainer;
                trainer
                    .load(|[weights, _, _], memory| other.load_weights(plan, weights, memory))?;
            }
        }
        let out_dir = &session.plan.out_dir;
        std::fs::create_dir_all(out_dir).map_err(Error::io("create the folder", out_dir))?;
        let (log, warning) = MetricsLog::open_at(&out_dir.join("metrics.jsonl"), metrics_bytes)?;
        session.reporter.record_in(log);
        if let Some(warning) = warning {
            session.reporter.warning(warning);
        }
        Ok(())
    }
}

fn startup(plan: &Plan, device: &DeviceProfile, dataset: &Dataset, start_step: u64) -> Startup {
    Startup {
        version: env!("CARGO_PKG_VERSION"),
        device: device.clone(),
        model: plan.model.clone(),
        data: DataSummary {
            name: dataset.info.name.clone(),
            train_tokens: dataset.info.train_tokens,
            val_tokens: dataset.info.val_tokens,
            vocab_size: dataset.info.vocab_size.value,
        },
        micro_batch: plan.launch().rung.micro_batch,
        gradient_accumulation_steps: plan.gradient_accumulation_steps(),
        max_iters: plan.max_iters,
        schedule: plan.step.schedule,
        start_step,
        log_interval: plan.log_interval,
        eval_interval: plan.eval_interval,
        planned_bytes: plan.launch().bytes,
        budget_bytes: plan.budget.value,
        checkpoint_dir: plan.out_dir.clone(),
        choices: plan.choices.clone(),
    }
}
