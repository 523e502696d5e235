//! `taper bench`: how fast the parts of a training step are, measured on this machine.

use crate::commands::plan::{dataset, weights};
use crate::commands::{in_thread_pool, print_now, until_reader_leaves};
use crate::config::{Config, DeviceRequest};
use crate::device::{DeviceProfile, find};
use crate::error::Result;
use crate::ops::gemm::candidate::Device;
#[cfg(feature = "cuda")]
use crate::ops::gemm::gpu::Gpu;
use crate::ops::gemm::tune::{Outcome, tune};
use crate::ops::gemm::{Cpu, Effort, Epilogue, Inputs, Problem};
use crate::plan::{Job, Origin, Plan, Request};
use crate::report::{GemmBench, ProblemBench};

/// Measure parts of a training step on this machine
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub part: Part,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Part {
    Gemm(GemmArgs),
}

/// Every matrix product of a training step, by everything that can compute it
///
/// Verifies and times as `train` does before its first step, with `gemm.autotune=full` unless `--set` says
/// otherwise, and keeps nothing.
#[derive(Clone, Debug, clap::Args)]
pub struct GemmArgs {
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
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: BenchArgs) -> Result<()> {
    let Part::Gemm(args) = args.part;
    let full = ["gemm.autotune=full".to_owned()];
    let overrides: Vec<String> = full.iter().chain(&args.overrides).cloned().collect();
    let config = Config::load(&args.config, &overrides)?;
    let found = find(args.device.unwrap_or(config.system.device))?;
    let (device, ordinal) = (&found.profile, found.ordinal);
    let weights = weights(&config.train.init_from);
    let request = Request {
        config: &config,
        device,
        dataset: &dataset(&config)?,
        origin: Origin {
            weights: weights.as_ref(),
            ..Origin::default()
        },
        job: Job::Train,
        because: &found.because,
    };
    let plan = request.plan()?;
    let bench = Bench {
        args: &args,
        profile: device,
        plan: &plan,
    };
    let done = in_thread_pool(plan.threads, || match ordinal {
        None => bench.run(&Cpu::<f32>::default(), Inputs::Float32, CPU_SQUARE),
        #[cfg(feature = "cuda")]
        Some(ordinal) => {
            let gpu = Gpu::open(ordinal, device, config.gemm.backend)?;
            bench.run(&gpu, plan.precision.into(), GPU_SQUARE)
        }
        #[cfg(not(feature = "cuda"))]
        Some(_) => Err(crate::device::DeviceError::NoCuda.into()),
    });
    until_reader_leaves(done)
}

const CPU_SQUARE: usize = 2048;
#[cfg(feature = "cuda")]
const GPU_SQUARE: usize = 8192;

struct Bench<'a> {
    args: &'a GemmArgs,
    profile: &'a DeviceProfile,
    plan: &'a Plan,
}

impl Bench<'_> {
    fn run<D: Device>(&self, device: &D, inputs: Inputs, square: usize) -> Result<()> {
        let Self {
            args,
            profile,
            plan,
        } = *self;
        let rung = plan.launch().rung;
        // All that the run may hold is free: nothing of it is allocated.
        let room = plan.budget.value;
        let square = args.square.map_or(square, |side| side as usize);
        let ceiling = ceiling(device, inputs, square, room);
        let mut report = GemmBench::new(&args.config, profile, plan, ceiling);
        let say = |text: &str| match args.json {
            true => Ok(()),
            false => print_now(text),
        };
        say(&report.heading())?;
        for (name, problem) in Problem::of_training(&plan.model, rung, inputs) {
            let tuned = tune(device, &problem, plan.gemm, room);
            let times = Problem::times_per_micro_step(name, &plan.model, rung);
            let measured = ProblemBench::new((name, problem), times, &tuned, report.ceiling);
            say(&measured.text())?;
            report.problems.push(measured);
        }
        match args.json {
            true => print_now(&report.json()),
            false => say(&report.total()),
        }
    }
}

/// The best rate of a large square product, in operations per second.
fn ceiling<D: Device>(device: &D, inputs: Inputs, side: usize, room: Option<u64>) -> Option<f64> {
    let problem = Problem::input_gradient(side, side, side, inputs, Epilogue::None);
    let outcomes = tune(device, &problem, Effort::Limited, room).outcomes;
    let rates = outcomes.iter().filter_map(|(_, outcome)| match outcome {
        Outcome::Timed { seconds } => Some(problem.flops() as f64 / seconds),
        _ => None,
    });
    rates.max_by(f64::total_cmp)
}
