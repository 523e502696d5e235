//! `taper bench gemm`.

#[cfg(feature = "cuda")]
use super::GPU_SQUARE;
use super::{CPU_SQUARE, Subject, SubjectArgs, ceiling};
use crate::commands::{in_thread_pool, print_now};
use crate::device::DeviceProfile;
use crate::error::Result;
use crate::ops::gemm::candidate::Device;
#[cfg(feature = "cuda")]
use crate::ops::gemm::gpu::Gpu;
use crate::ops::gemm::tune::tune;
use crate::ops::gemm::{Cpu, Problem};
use crate::plan::Plan;
use crate::report::{GemmBench, ProblemBench};

/// Every matrix product of a training step, by everything that can compute it
///
/// Verifies and times as `train` does before its first step, with `gemm.autotune=full` unless `--set` says
/// otherwise, and keeps nothing.
#[derive(Clone, Debug, clap::Args)]
pub struct GemmArgs {
    #[command(flatten)]
    pub subject: SubjectArgs,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(args: GemmArgs) -> Result<()> {
    let subject = Subject::find(&args.subject, &["gemm.autotune=full"])?;
    let plan = subject.request().plan()?;
    let device = &subject.found.profile;
    let bench = Bench {
        args: &args,
        profile: device,
        plan: &plan,
    };
    in_thread_pool(plan.threads, || match subject.found.ordinal {
        None => bench.run(&Cpu::<f32>::new(plan.inputs), CPU_SQUARE),
        #[cfg(feature = "cuda")]
        Some(ordinal) => {
            let gpu = Gpu::open(ordinal, device, subject.config.gemm.backend)?;
            bench.run(&gpu, GPU_SQUARE)
        }
        #[cfg(not(feature = "cuda"))]
        Some(_) => Err(crate::device::DeviceError::NoCuda.into()),
    })
}

struct Bench<'a> {
    args: &'a GemmArgs,
    profile: &'a DeviceProfile,
    plan: &'a Plan,
}

impl Bench<'_> {
    fn run<D: Device>(&self, device: &D, square: usize) -> Result<()> {
        let Self {
            args,
            profile,
            plan,
        } = *self;
        let (rung, inputs) = (plan.launch().rung, plan.inputs);
        // All that the run may hold is free: nothing of it is allocated.
        let room = plan.budget.value;
        let ceiling = ceiling(device, inputs, (args.subject.square, square), room);
        let mut report = GemmBench::new(&args.subject.config, profile, plan, ceiling);
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
