//! `taper bench`: how fast training is on this machine, and what it is made of.

mod gemm;
mod step;

use crate::commands::plan::{dataset, weights};
use crate::commands::until_reader_leaves;
use crate::config::{Config, DeviceRequest};
use crate::data::DatasetInfo;
use crate::device::{FoundDevice, find};
use crate::error::Result;
use crate::ops::gemm::cache::{Record, Records};
use crate::ops::gemm::candidate::Device;
use crate::ops::gemm::tune::{TuneOutcome, Tuned, Tuner, rate_of};
use crate::ops::gemm::{Cache, Epilogue, Problem};
use crate::plan::{Origin, Plan, Request};
use crate::terms::{Effort, Job, ModelDims};

pub use gemm::GemmArgs;
pub use step::StepArgs;

/// Measure a training step, or parts of it, on this machine
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub part: Part,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Part {
    Gemm(GemmArgs),
    Step(StepArgs),
}

/// What is measured, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct SubjectArgs {
    /// A TOML file, or a preset's name
    #[arg(long, value_name = "FILE", default_value = "quickstart.toml")]
    pub config: String,
    /// Change one key of the config; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
    /// A device of this machine, `cpu`, `cuda` or `cuda:1` [default: what the config asks for]
    #[arg(long, value_name = "NAME")]
    pub device: Option<DeviceRequest>,
    /// Side of the square product whose rate is the ceiling [default: 2048, on a GPU 8192]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=32768))]
    pub square: Option<u32>,
}

pub fn run(args: BenchArgs) -> Result<()> {
    until_reader_leaves(match args.part {
        Part::Gemm(args) => gemm::run(args),
        Part::Step(args) => step::run(args),
    })
}

/// A config, and what it meets here.
struct Subject {
    config: Config,
    found: FoundDevice,
    dataset: DatasetInfo,
    weights: Option<ModelDims>,
}

impl Subject {
    /// `defaults` count where `--set` says nothing else. A dataset need not be here.
    fn find(args: &SubjectArgs, defaults: &[&str]) -> Result<Self> {
        let defaults = defaults.iter().map(|&setting| setting.to_owned());
        let overrides: Vec<String> = defaults.chain(args.overrides.iter().cloned()).collect();
        let config = Config::load(&args.config, &overrides)?;
        let (dataset, weights) = (dataset(&config)?, weights(&config.train.init_from));
        Ok(Self {
            dataset,
            weights,
            // Last, so that what they take counts as the process's.
            found: find(args.device.unwrap_or(config.system.device))?,
            config,
        })
    }

    /// That of `train`.
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

/// Products by everything that can compute them: as an earlier run found out, or searched now and kept for the next.
struct Searches<'a, D: Device> {
    device: &'a D,
    plan: &'a Plan,
    cache: Option<Cache>,
    cached: Records,
    /// In this run: two names may stand for one problem.
    found: Records,
    tuner: Tuner<'a, D>,
    /// Why the cache is not used, or is not written.
    complaint: Option<String>,
}

impl<'a, D: Device> Searches<'a, D> {
    /// For `problems`. All that the run may hold is taken for free.
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

    /// What is known of one of the problems, and whether an earlier run found it out.
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

    /// Operations per second of a product by what is chosen for it, timed in this run.
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

/// The rate of a large square product, in operations per second: as it is in this run, and as it was in the run whose
/// timings are in the cache.
struct Ceiling {
    now: Option<f64>,
    earlier: Option<f64>,
}

/// `side` counts where the user says nothing else.
fn ceiling<D: Device>(
    device: &D,
    plan: &Plan,
    cache: Option<Cache>,
    (asked, side): (Option<u32>, usize),
) -> Ceiling {
    let side = asked.map_or(side, |asked| asked as usize);
    let problem = Problem::input_gradient(side, side, side, plan.inputs, Epilogue::None);
    let mut searches = Searches::new(device, plan, cache, &[problem]);
    let known = searches.cached.get(&problem);
    Ceiling {
        earlier: known.and_then(|tuned| rate_found(&problem, tuned)),
        now: searches.rate(&problem),
    }
}
