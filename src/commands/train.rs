//! `taper train`: the main job, read top to bottom.

use std::path::{Path, PathBuf};

use crate::checkpoint::{
    Checkpoint, CheckpointError, Pretrained, asks_for_the_same_gemm, asks_for_the_same_launch,
    check_resumable, find_latest, hub_cache, open, open_pretrained, resolve_pretrained,
};
use crate::commands::in_thread_pool;
use crate::config::Config;
use crate::data::Dataset;
use crate::device::DeviceProfile;
use crate::error::{Error, Result};
use crate::faults::{Faults, Injection};
use crate::interrupt::Interrupt;
use crate::model::init_weights;
use crate::ops::cpu::OnCpu;
use crate::ops::gemm::{Cache, Cpu, Products, Table, cache_folder, cpu};
use crate::plan::{Job, Origin, Plan, Request};
use crate::report::{DataSummary, MetricsLog, ReportOptions, Reporter, Startup, Warning};
use crate::session::{Session, evaluate_weights};
use crate::step::Lasting;

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
    let mut reporter = Reporter::new(ReportOptions::detect(args.quiet, args.json));

    let config = Config::load(&args.config, &overrides(&args))?;
    let mut dataset = Dataset::open(&config.data)?;
    let start = Start::find(&config, args.resume.as_ref(), &mut reporter)?;
    // Last, so that what dataset and tokenizer take counts as the process's.
    let device = DeviceProfile::cpu();
    let job = match args.eval_only || config.eval.eval_only {
        true => Job::Evaluate,
        false => Job::Train,
    };
    let info = dataset.info.clone();
    let request = Request {
        config: &config,
        device: &device,
        dataset: &info,
        origin: start.origin(&config)?,
        job,
    };
    let plan = request.plan()?;
    dataset.require(plan.model.block_size, plan.model.vocab_size)?;

    let faults = Faults::new(args.inject);
    in_thread_pool(plan.threads, || {
        if job == Job::Evaluate {
            return start.evaluate(&plan, &dataset, &mut reporter, &interrupt, faults);
        }
        start.refuse_to_overwrite(&plan.out_dir)?;
        reporter.startup(&startup(&plan, &device, &dataset, start.step()));
        let products = start.products(&config, &plan, &device)?;
        let equipment = (OnCpu::new(plan.threads, products), faults);
        let mut session = Session::allocate(
            &config,
            &plan,
            &dataset,
            &mut reporter,
            &interrupt,
            equipment,
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
    })
    .map_err(|error| {
        let saved = job == Job::Train && find_latest(&plan.out_dir).is_ok();
        request.explain(error, saved)
    })
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

    /// What computes matrix products: where they are asked for as they were for a checkpoint, as its run
    /// did.
    fn products(
        &self,
        config: &Config,
        plan: &Plan,
        device: &DeviceProfile,
    ) -> Result<Products<f32>> {
        let stored = match self {
            Self::Resume(checkpoint)
                if asks_for_the_same_gemm(config, &checkpoint.config_toml)? =>
            {
                checkpoint.state.gemm.clone()
            }
            _ => Table::default(),
        };
        let name = format!("cpu-{}-threads-{}", plan.threads, plan.gemm);
        let header = cpu::header(device, plan.threads);
        let cache = cache_folder().map(|folder| Cache::new(&folder, &name, header));
        Ok(Products::new(Cpu::default(), plan.gemm, cache, stored))
    }

    /// Prints the losses of both splits, and changes nothing.
    fn evaluate(
        &self,
        plan: &Plan,
        dataset: &Dataset,
        reporter: &mut Reporter,
        interrupt: &Interrupt,
        faults: Faults,
    ) -> Result<()> {
        if matches!(self, Self::Scratch) {
            reporter.note("evaluating untrained weights; add `--resume` for a run's newest");
        }
        let load = |weights: &mut [f32]| self.load_weights(plan, weights);
        let at = (self.step(), faults);
        let report = evaluate_weights(plan, dataset, reporter, interrupt, at, load)?;
        reporter.eval_only(&report);
        Ok(())
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

    fn load_weights(&self, plan: &Plan, mut weights: &mut [f32]) -> Result<()> {
        match self {
            Self::Scratch => {
                let layout = crate::model::ParamLayout::new(&plan.model);
                init_weights(&plan.model, &layout, plan.step.seed, weights);
            }
            Self::Pretrained(pretrained) => pretrained.load_weights(&plan.model, &mut weights)?,
            Self::Resume(checkpoint) => checkpoint.load_weights(&plan.model, &mut weights)?,
        }
        Ok(())
    }

    /// Weights, moments, state and metrics: all as they were at [`Start::step`].
    fn restore(&self, session: &mut Session) -> Result<()> {
        let mut metrics_bytes = 0;
        match self {
            Self::Resume(checkpoint) => {
                let Lasting { weights, m, v, .. } = &mut session.trainer.state;
                checkpoint.load_into(&session.plan.model, weights, m, v)?;
                metrics_bytes = checkpoint.state.metrics_bytes;
                session.state = crate::checkpoint::TrainState {
                    rung: Some(session.trainer.rung()),
                    choices: session.plan.choices.clone(),
                    ..checkpoint.state.clone()
                };
                session.saved = Some((session.state.step, checkpoint.path.clone()));
            }
            other => other.load_weights(session.plan, &mut session.trainer.state.weights)?,
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
