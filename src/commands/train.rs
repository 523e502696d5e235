//! `taper train`: the main job, read top to bottom.

use std::path::{Path, PathBuf};

use crate::checkpoint::{
    Checkpoint, CheckpointError, Pretrained, check_resumable, find_latest, hub_cache, open,
    open_pretrained, resolve_pretrained,
};
use crate::config::Config;
use crate::data::Dataset;
use crate::device::DeviceProfile;
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::model::init_weights;
use crate::plan::{ModelDims, Plan};
use crate::report::{DataSummary, MetricsLog, ReportOptions, Reporter, Startup, Warning};
use crate::session::{Session, evaluate_weights};

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

    let config = Config::load(&args.config, &args.overrides)?;
    let device = DeviceProfile::cpu();
    let mut dataset = Dataset::open(&config.data)?;
    let start = Start::find(&config, args.resume.as_ref(), &mut reporter)?;
    let plan = Plan::new(&config, &device, &dataset.info, start.dims())?;
    dataset.require(plan.model.block_size, plan.model.vocab_size)?;

    let threads = plan.sizes.threads;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|source| Error::Threads { threads, source })?;
    pool.install(|| {
        if args.eval_only || config.eval.eval_only {
            if matches!(start, Start::Scratch) {
                reporter.note("evaluating untrained weights; add `--resume` for a run's newest");
            }
            let load = |weights: &mut [f32]| start.load_weights(&plan, weights);
            let report = evaluate_weights(&plan, &dataset, &interrupt, start.step(), load)?;
            reporter.eval_only(&report);
            return Ok(());
        }
        start.refuse_to_overwrite(&plan.out_dir)?;
        reporter.startup(&startup(&plan, device, &dataset, start.step()));
        let mut session = Session::allocate(&config, &plan, &dataset, &mut reporter, &interrupt)?;
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

    fn dims(&self) -> Option<&ModelDims> {
        match self {
            Self::Scratch => None,
            Self::Pretrained(pretrained) => Some(&pretrained.dims),
            Self::Resume(checkpoint) => Some(&checkpoint.dims),
        }
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

    fn load_weights(&self, plan: &Plan, weights: &mut [f32]) -> Result<()> {
        match self {
            Self::Scratch => {
                let layout = crate::model::ParamLayout::new(&plan.model);
                init_weights(&plan.model, &layout, plan.step.seed, weights);
            }
            Self::Pretrained(pretrained) => pretrained.load_weights(&plan.model, weights)?,
            Self::Resume(checkpoint) => checkpoint.load_weights(&plan.model, weights)?,
        }
        Ok(())
    }

    /// Weights, moments, state and metrics: all as they were at [`Start::step`].
    fn restore(self, session: &mut Session) -> Result<()> {
        let mut metrics_bytes = 0;
        match self {
            Self::Resume(checkpoint) => {
                let trainer = &mut session.trainer;
                let (m, v) = (&mut trainer.optimizer.m, &mut trainer.optimizer.v);
                checkpoint.load_into(&session.plan.model, &mut trainer.weights, m, v)?;
                metrics_bytes = checkpoint.state.metrics_bytes;
                session.state = crate::checkpoint::TrainState {
                    micro_batch: session.plan.sizes.sequences,
                    choices: session.plan.choices.clone(),
                    ..checkpoint.state
                };
                session.saved = Some((session.state.step, checkpoint.path));
            }
            other => other.load_weights(session.plan, &mut session.trainer.weights)?,
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

fn startup(plan: &Plan, device: DeviceProfile, dataset: &Dataset, start_step: u64) -> Startup {
    Startup {
        version: env!("CARGO_PKG_VERSION"),
        device,
        model: plan.model.clone(),
        data: DataSummary {
            name: dataset.info.name.clone(),
            train_tokens: dataset.info.train_tokens,
            val_tokens: dataset.info.val_tokens,
            vocab_size: dataset.info.vocab_size.value,
        },
        micro_batch: plan.sizes.sequences,
        gradient_accumulation_steps: plan.gradient_accumulation_steps,
        max_iters: plan.max_iters,
        schedule: plan.step.schedule,
        start_step,
        log_interval: plan.log_interval,
        eval_interval: plan.eval_interval,
        buffer_bytes: plan.buffer_bytes,
        checkpoint_dir: plan.out_dir.clone(),
        choices: plan.choices.clone(),
    }
}
