//! `taper bench`: how fast training is on this machine, and what it is made of.

mod gemm;
mod step;

use crate::commands::plan::{dataset, weights};
use crate::commands::until_reader_leaves;
use crate::config::{Config, DeviceRequest};
use crate::data::DatasetInfo;
use crate::device::{Found, find};
use crate::error::Result;
use crate::ops::gemm::candidate::Device;
use crate::ops::gemm::tune::{Outcome, tune};
use crate::ops::gemm::{Effort, Epilogue, Inputs, Problem};
use crate::plan::{Job, ModelDims, Origin, Request};

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
    /// Side of the square products whose best rate is the ceiling [default: 2048, on a GPU 8192]
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
    found: Found,
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

const CPU_SQUARE: usize = 2048;
#[cfg(feature = "cuda")]
const GPU_SQUARE: usize = 8192;

/// The best rate of a large square product, in operations per second. `side` counts where the user says
/// nothing else.
fn ceiling<D: Device>(
    device: &D,
    inputs: Inputs,
    (asked, side): (Option<u32>, usize),
    room: Option<u64>,
) -> Option<f64> {
    let side = asked.map_or(side, |asked| asked as usize);
    let problem = Problem::input_gradient(side, side, side, inputs, Epilogue::None);
    let outcomes = tune(device, &problem, Effort::Limited, room).outcomes;
    let rates = outcomes.iter().filter_map(|(_, outcome)| match outcome {
        Outcome::Timed { seconds } => Some(problem.flops() as f64 / seconds),
        _ => None,
    });
    rates.max_by(f64::total_cmp)
}
