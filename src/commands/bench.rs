//! `taper bench`: how fast the parts of a training step are, measured on this machine.

use crate::commands::plan::{dataset, weights};
use crate::commands::{in_thread_pool, print_now, until_reader_leaves};
use crate::config::Config;
use crate::device::DeviceProfile;
use crate::error::Result;
use crate::ops::gemm::candidate::Device;
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
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: BenchArgs) -> Result<()> {
    let Part::Gemm(args) = args.part;
    let full = ["gemm.autotune=full".to_owned()];
    let overrides: Vec<String> = full.iter().chain(&args.overrides).cloned().collect();
    let config = Config::load(&args.config, &overrides)?;
    let device = DeviceProfile::cpu();
    let weights = weights(&config.train.init_from);
    let request = Request {
        config: &config,
        device: &device,
        dataset: &dataset(&config)?,
        origin: Origin {
            weights: weights.as_ref(),
            ..Origin::default()
        },
        job: Job::Train,
    };
    let plan = request.plan()?;
    let done = in_thread_pool(plan.threads, || bench(&args, &device, &plan));
    until_reader_leaves(done)
}

fn bench(args: &GemmArgs, device: &DeviceProfile, plan: &Plan) -> Result<()> {
    let cpu = Cpu::<f32>::default();
    let rung = plan.launch().rung;
    // All that the run may hold is free: nothing of it is allocated.
    let room = plan.budget.value;
    let mut report = GemmBench::new(&args.config, device, plan, ceiling(&cpu, room));
    let say = |text: &str| match args.json {
        true => Ok(()),
        false => print_now(text),
    };
    say(&report.heading())?;
    for (name, problem) in Problem::of_training(&plan.model, rung, Inputs::Float32) {
        let tuned = tune(&cpu, &problem, plan.gemm, room);
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

/// Sides of the square products that show what the device can do.
const SQUARES: [usize; 2] = [1024, 2048];

/// The best rate over large square products, in operations per second.
fn ceiling<D: Device>(device: &D, room: Option<u64>) -> Option<f64> {
    let rates = SQUARES.into_iter().flat_map(|side| {
        let problem = Problem::input_gradient(side, side, side, Inputs::Float32, Epilogue::None);
        let outcomes = tune(device, &problem, Effort::Limited, room).outcomes;
        let rate = move |(_, outcome)| match outcome {
            Outcome::Timed { seconds } => Some(problem.flops() as f64 / seconds),
            _ => None,
        };
        outcomes.into_iter().filter_map(rate).collect::<Vec<f64>>()
    });
    rates.max_by(f64::total_cmp)
}
