//! `taper bench gemm`.

#[cfg(feature = "cuda")]
use super::GPU_SQUARE;
use super::{CPU_SQUARE, Searches, Subject, SubjectArgs, ceiling};
use crate::commands::{backends, in_thread_pool, print_now};
use crate::device::DeviceProfile;
use crate::error::Result;
use crate::ops::gemm::candidate::Device;
#[cfg(feature = "cuda")]
use crate::ops::gemm::gpu::GpuGemm;
use crate::ops::gemm::{Cache, Cpu, Problem};
use crate::plan::Plan;
use crate::report::{GemmBench, ProblemBench};

/// Every matrix product of a training step, by everything that can compute it
///
/// Verifies and times as `train` does before its first step, with `gemm.autotune=full` unless `--set` says
/// otherwise. What an earlier run has timed is taken from the cache, and said to be; what is timed now is kept there.
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
        None => {
            let cache = backends::cpu_cache(&plan, device);
            bench.run(&Cpu::<f32>::new(plan.inputs), cache, CPU_SQUARE)
        }
        #[cfg(feature = "cuda")]
        Some(ordinal) => {
            let gpu = GpuGemm::open(ordinal, device, plan.gemm_backend)?;
            let cache = backends::gpu_cache(&gpu, &plan, (ordinal, device));
            bench.run(&gpu, cache, GPU_SQUARE)
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
    fn run<D: Device>(&self, device: &D, cache: Option<Cache>, square: usize) -> Result<()> {
        let Self {
            args,
            profile,
            plan,
        } = *self;
        let square = (args.subject.square, square);
        let ceiling = ceiling(device, plan, cache.clone(), square);
        let mut report = GemmBench::new(&args.subject.config, profile, plan, ceiling.now);
        let say = |text: &str| match args.json {
            true => Ok(()),
            false => print_now(text),
        };
        say(&report.heading())?;
        let rung = plan.launch().rung;
        let gemms = Problem::of_training(&plan.model, rung, plan.inputs);
        let problems: Vec<Problem> = gemms.iter().map(|gemm| gemm.problem).collect();
        report.cache = cache.as_ref().map(|cache| cache.path().to_owned());
        let mut searches = Searches::new(device, plan, cache, &problems);
        for gemm in gemms {
            let (tuned, is_cached) = searches.find(&gemm.problem);
            // A share is of one run.
            let of = match is_cached {
                true => ceiling.earlier,
                false => ceiling.now,
            };
            let measured = ProblemBench::new(gemm, tuned, is_cached, of);
            say(&measured.text())?;
            report.problems.push(measured);
        }
        if let Some(complaint) = &searches.complaint {
            say(&format!("\nthe cache is of no use: {complaint}\n"))?;
        }
        match args.json {
            true => print_now(&report.json()),
            false => say(&report.total()),
        }
    }
}
