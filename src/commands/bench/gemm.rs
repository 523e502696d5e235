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
    let run = GemmBenchRun {
        args: &args,
        profile: device,
        plan: &plan,
    };
    let square = |default| args.subject.square(default);
    in_thread_pool(plan.threads, || match subject.found.ordinal {
        None => {
            let cache = backends::cpu_cache(device, plan.threads, plan.gemm);
            run.on(&Cpu::<f32>::new(plan.inputs), cache, square(CPU_SQUARE))
        }
        #[cfg(feature = "cuda")]
        Some(ordinal) => {
            let gpu = GpuGemm::open(ordinal, device, plan.gemm_backend)?;
            let cache = backends::gpu_cache(&gpu, plan.gemm, ordinal, device);
            run.on(&gpu, cache, square(GPU_SQUARE))
        }
        #[cfg(not(feature = "cuda"))]
        Some(_) => Err(crate::device::DeviceError::NoCuda.into()),
    })
}

/// Everything that is decided before a device is there.
struct GemmBenchRun<'a> {
    args: &'a GemmArgs,
    profile: &'a DeviceProfile,
    plan: &'a Plan,
}

impl GemmBenchRun<'_> {
    fn on<D: Device>(&self, device: &D, cache: Option<Cache>, square: usize) -> Result<()> {
        let Self {
            args,
            profile,
            plan,
        } = *self;
        let ceiling = ceiling(device, plan, cache.clone(), square);
        let mut report = GemmBench::new(&args.subject.config, profile, plan, ceiling.now);
        let say = |text: &str| {
            if args.json { Ok(()) } else { print_now(text) }
        };
        say(&report.heading())?;
        let gemms = plan.program(plan.launch().rung).gemms(plan.inputs);
        let problems: Vec<Problem> = gemms.iter().map(|gemm| gemm.problem).collect();
        report.cache = cache.as_ref().map(|cache| cache.path().to_owned());
        let mut searches = Searches::new(device, plan, cache, &problems);
        for gemm in gemms {
            let (tuned, is_cached) = searches.find(&gemm.problem);
            // A share is of one run.
            let of = if is_cached {
                ceiling.earlier
            } else {
                ceiling.now
            };
            let measured = ProblemBench::new(gemm, tuned, is_cached, of);
            say(&measured.text())?;
            report.problems.push(measured);
        }
        if let Some(complaint) = &searches.complaint {
            say(&format!("\nthe cache is of no use: {complaint}\n"))?;
        }
        print_now(&if args.json {
            report.json()
        } else {
            report.total()
        })
    }
}
