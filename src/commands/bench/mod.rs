//! `taper bench`: the speed of training on this machine, and of its parts.

mod gemm;
mod step;

use crate::commands::plan::dataset;
use crate::commands::request::load;
use crate::commands::until_reader_leaves;
use crate::commands::weights::{of_weights, weights};
use crate::config::{Config, DeviceRequest};
use crate::data::DatasetInfo;
use crate::device::{FoundDevice, find};
use crate::error::Result;
use crate::ops::gemm::cache::{Record, Records};
use crate::ops::gemm::candidate::Device;
use crate::ops::gemm::tune::{TuneOutcome, Tuned, Tuner, rate_of};
use crate::ops::gemm::{Cache, Epilogue, Problem};
use crate::plan::{Origin, Plan, Request};
use crate::report::say;
use crate::terms::{Effort, Job, ModelDims};

pub use gemm::GemmArgs;
pub use step::StepArgs;

/// Measure a training step, or parts of it, on this machine
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub command: BenchCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum BenchCommand {
    Gemm(GemmArgs),
    Step(StepArgs),
}

/// Subject of a measurement: a config, and a device.
#[derive(Clone, Debug, clap::Args)]
pub struct SubjectArgs {
    /// A TOML file, a preset's name, or a config of nanoGPT's, such as `my_config.py`
    #[arg(long, value_name = "FILE", default_value = "quickstart.toml")]
    pub config: String,
    /// Change one key of the config; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
    /// A device of this machine, `cpu`, `cuda` or `cuda:1` [default: what the config asks for]
    #[arg(long, value_name = "NAME")]
    pub device: Option<DeviceRequest>,
    /// The most memory to hold, such as `11.69GiB` [default: what is available]
    #[arg(long, value_name = "SIZE")]
    pub memory_limit: Option<String>,
    /// Side of the square product whose rate is the ceiling [default: 2048, on a GPU 8192]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=32768))]
    pub square: Option<u32>,
}

impl SubjectArgs {
    /// Side of the square GEMM that is the ceiling; `default` where the user says nothing.
    fn square(&self, default: usize) -> usize {
        self.square.map_or(default, |side| side as usize)
    }
}

pub fn run(args: BenchArgs) -> Result<()> {
    until_reader_leaves(match args.command {
        BenchCommand::Gemm(args) => gemm::run(args),
        BenchCommand::Step(args) => step::run(args),
    })
}

/// A config, with the device, dataset and weights that it finds here.
struct Subject {
    config: Config,
    found: FoundDevice,
    dataset: DatasetInfo,
    weights: Option<ModelDims>,
}

impl Subject {
    /// Finds what the arguments name. `defaults` count where `--set` says nothing else. A dataset need not be here.
    fn find(args: &SubjectArgs, defaults: &[&str]) -> Result<Self> {
        let defaults = defaults.iter().map(|&setting| setting.to_owned());
        let limit = args.memory_limit.iter();
        let limit = limit.map(|limit| format!("system.memory_limit={limit}"));
        let overrides = defaults.chain(args.overrides.iter().cloned()).chain(limit);
        let overrides: Vec<String> = overrides.collect();
        let note = |told: &str| say(format_args!("note: {told}"));
        let (mut config, given) = load(&args.config, &overrides, note)?;
        let weights = weights(&config.train.init_from)?;
        if let Some(weights) = &weights {
            config = of_weights(&config, &given, weights)?;
        }
        let dataset = dataset(&config)?;
        Ok(Self {
            dataset,
            weights,
            // Last, so that what they take counts as the process's.
            found: find(args.device.unwrap_or(config.system.device))?,
            config,
        })
    }

    /// The request of `train`.
    fn request(&self) -> Request<'_> {
        Request {
            config: &self.config,
            device: &self.found.profile,
            dataset: &self.dataset,
            origin: Origin {
                weights: self.weights.as_ref(),
                ..Origin::default()
            },
            job: Job::Train,
            because: &self.found.because,
        }
    }
}

/// Searches for the fastest candidate of each GEMM. An earlier run's result comes from the cache; a new one is kept
/// there.
struct Searches<'a, D: Device> {
    device: &'a D,
    plan: &'a Plan,
    cache: Option<Cache>,
    cached: Records,
    /// Results of this run; two names may stand for one problem.
    found: Records,
    tuner: Tuner<'a, D>,
    /// Reason why the cache is not used.
    complaint: Option<String>,
}

impl<'a, D: Device> Searches<'a, D> {
    /// Searches for `problems`. The whole budget of the run counts as free memory.
    fn new(device: &'a D, plan: &'a Plan, cache: Option<Cache>, problems: &[Problem]) -> Self {
        let (cached, complaint) = cache.as_ref().map(Cache::load).unwrap_or_default();
        let unknown = problems
            .iter()
            .filter(|problem| cached.get(problem).is_none());
        let unknown: Vec<Problem> = unknown.copied().collect();
        Self {
            tuner: Tuner::new(device, &unknown, plan.gemm, plan.budget.value),
            device,
            plan,
            cache,
            cached,
            found: Records::default(),
            complaint,
        }
    }

    /// The result for one of the problems, and whether it is from an earlier run.
    fn find(&mut self, problem: &Problem) -> (Tuned<String>, bool) {
        if let Some(tuned) = self.cached.get(problem) {
            return (tuned.clone(), true);
        }
        if let Some(tuned) = self.found.get(problem) {
            return (tuned.clone(), false);
        }
        let tuned = self.tuner.tune(problem).by_name();
        let record = Record {
            problem: *problem,
            tuned: tuned.clone(),
        };
        if let Some(cache) = self
            .cache
            .as_ref()
            .filter(|_| tuned.searched && tuned.is_sound())
        {
            // Only the next run is the slower for it.
            let _ = cache.store(record.clone());
        }
        self.found.insert(record);
        (tuned, false)
    }

    /// Operations per second of a GEMM by its chosen candidate, timed in this run.
    fn rate(&mut self, problem: &Problem) -> Option<f64> {
        let name = match self.plan.gemm {
            Effort::Off => None,
            _ => match self.find(problem) {
                (tuned, false) => return rate_found(problem, &tuned),
                (tuned, true) => Some(tuned.outcomes[tuned.chosen].0.clone()),
            },
        };
        rate_of(
            self.device,
            problem,
            name.as_deref(),
            self.plan.budget.value,
        )
    }
}

fn rate_found(problem: &Problem, tuned: &Tuned<String>) -> Option<f64> {
    match tuned.outcomes[tuned.chosen].1 {
        TuneOutcome::Timed { seconds } => {
            Some(problem.flops() as f64 / (seconds * tuned.scale(problem)))
        }
        _ => None,
    }
}

const CPU_SQUARE: usize = 2048;
#[cfg(feature = "cuda")]
const GPU_SQUARE: usize = 8192;

/// The rate of a large square GEMM, in operations per second: in this run, and in the earlier run whose timings are in
/// the cache.
struct Ceiling {
    now: Option<f64>,
    earlier: Option<f64>,
}

/// Measures the ceiling with a square GEMM of `side`.
fn ceiling<D: Device>(device: &D, plan: &Plan, cache: Option<Cache>, side: usize) -> Ceiling {
    let problem = Problem::input_gradient(side, side, side, plan.inputs, Epilogue::None);
    let mut searches = Searches::new(device, plan, cache, &[problem]);
    let known = searches.cached.get(&problem);
    Ceiling {
        earlier: known.and_then(|tuned| rate_found(&problem, tuned)),
        now: searches.rate(&problem),
    }
}
