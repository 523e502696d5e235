//! `taper bench step`.

use std::time::Instant;

#[cfg(feature = "cuda")]
use super::GPU_SQUARE;
use super::{CPU_SQUARE, Subject, SubjectArgs, ceiling};
use crate::commands::explain;
use crate::commands::{backends, in_thread_pool, print_now};
use crate::device::{self, DeviceProfile};
use crate::error::Result;
use crate::faults::{Faults, Site};
use crate::memory::{AllocationError, Memory};
use crate::model::{Lap, init_values};
use crate::ops::backend::Backend;
#[cfg(feature = "cuda")]
use crate::ops::gemm::gpu::GpuGemm;
use crate::ops::gemm::{Cpu, Table};
use crate::plan::Plan;
use crate::report::{Measured, Progress, ReportOptions, StepBench, step_bench_heading};
use crate::rng::{Seed, Stream};
use crate::session::{Divergence, SessionError};
use crate::step::Trainer;

/// How fast a training step is, and where its time goes
///
/// Plans, allocates and tunes as `train` does, and trains on random tokens: no dataset is needed. A few
/// steps more are then done operation by operation, with a clock at each.
#[derive(Clone, Debug, clap::Args)]
pub struct StepArgs {
    #[command(flatten)]
    pub subject: SubjectArgs,
    /// Steps whose median time counts, after a few that do not
    #[arg(long, value_name = "N", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub steps: u32,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Steps that are not timed. The first loads kernels, the second records micro-steps, and the third is like all others.
const WARM_UP_STEPS: u64 = 3;

/// Steps that are done operation by operation. The one with the median time is shown.
const STEPS_TAKEN_APART: usize = 3;

pub(super) fn run(args: StepArgs) -> Result<()> {
    let subject = Subject::find(&args.subject, &[])?;
    let request = subject.request();
    let plan = request.plan()?;
    let (config, device) = (&args.subject.config, &subject.found.profile);
    if !args.json {
        print_now(&step_bench_heading(config, device, &plan))?;
    }
    let run = StepBenchRun {
        args: &args,
        subject: &subject,
        plan: &plan,
    };
    let measured = in_thread_pool(plan.threads, || match subject.found.ordinal {
        None => run.on_cpu(),
        #[cfg(feature = "cuda")]
        Some(ordinal) => {
            let gpu = backends::Opened::new(ordinal, device, (&plan).into())?;
            run.on_gpu(&gpu, ordinal)
        }
        #[cfg(not(feature = "cuda"))]
        Some(_) => Err(device::DeviceError::NoCuda.into()),
    });
    let measured = measured.map_err(|error| explain(error, &request, false))?;
    let report = StepBench::new(config, device, &plan, measured);
    print_now(&if args.json {
        report.json()
    } else {
        report.text()
    })
}

/// Everything that is decided before a backend is there.
struct StepBenchRun<'a> {
    args: &'a StepArgs,
    subject: &'a Subject,
    plan: &'a Plan,
}

impl StepBenchRun<'_> {
    fn on_cpu(&self) -> Result<Measured> {
        let (plan, profile) = (self.plan, self.profile());
        let backend = backends::cpu(profile, plan.into(), self.search());
        let measured = self.steps(backend, self.memory(), device::peak_resident_bytes)?;
        let square = self.args.subject.square(CPU_SQUARE);
        let cache = backends::cpu_cache(profile, plan.threads, plan.gemm);
        Ok(Measured {
            ceiling: ceiling(&Cpu::<f32>::new(plan.inputs), plan, cache, square).now,
            ..measured
        })
    }

    #[cfg(feature = "cuda")]
    fn on_gpu(&self, gpu: &backends::Opened, ordinal: usize) -> Result<Measured> {
        let (plan, profile) = (self.plan, self.profile());
        let card = gpu.device();
        let backend = gpu.backend(self.search())?;
        let context = card.cuda_stream().context().clone();
        let used = || {
            let (free, _) = context.mem_get_info().ok()?;
            Some(profile.available_bytes?.saturating_sub(free as u64))
        };
        let memory = self.memory().in_pool(card.clone());
        let measured = self.steps(backend, memory, used)?;
        let gpu = GpuGemm::on(&card, profile, plan.gemm_backend)
            .map_err(|e| device::explain(e, ordinal))?;
        let square = self.args.subject.square(GPU_SQUARE);
        let cache = backends::gpu_cache(&gpu, plan.gemm, ordinal, profile);
        Ok(Measured {
            ceiling: ceiling(&gpu, plan, cache, square).now,
            ..measured
        })
    }

    fn search(&self) -> backends::Search {
        backends::Search {
            stored: Table::default(),
            watch: Box::new(backends::Spectator {
                progress: Progress::new(ReportOptions::detect(false, self.args.json)),
                interrupt: None,
            }),
        }
    }

    fn profile(&self) -> &DeviceProfile {
        &self.subject.found.profile
    }

    fn memory(&self) -> Memory {
        let (budget, reserve) = (self.plan.budget.value, self.plan.reserve_bytes());
        Memory::limited(budget, reserve, Faults::default())
    }

    /// Measures everything but the ceiling. That takes memory of its own, so everything here is released before.
    fn steps(
        &self,
        backend: Box<dyn Backend>,
        memory: Memory,
        used_bytes: impl FnOnce() -> Option<u64>,
    ) -> Result<Measured> {
        let mut steps = Steps::new(self.plan, backend, memory)?;
        for _ in 0..WARM_UP_STEPS {
            steps.whole()?;
        }
        let whole = (0..self.args.steps).map(|_| steps.whole());
        let step_seconds = whole.collect::<Result<_>>()?;
        // Before clocks take memory of their own.
        let used_bytes = used_bytes();
        let apart = (0..STEPS_TAKEN_APART).map(|_| steps.apart());
        let mut apart = apart.collect::<Result<Vec<_>>>()?;
        apart.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let (taken_apart_seconds, laps) = apart.swap_remove(STEPS_TAKEN_APART / 2);
        let trainer = &mut steps.trainer;
        Ok(Measured {
            rung: trainer.rung(),
            inputs: self.plan.inputs,
            step_seconds,
            taken_apart_seconds,
            laps,
            planned_bytes: trainer.memory().held_bytes(),
            used_bytes,
            ceiling: None,
            choices: trainer.take_choices(),
            recoveries: trainer.take_recoveries(),
        })
    }
}

/// A training run that goes nowhere.
struct Steps {
    trainer: Trainer,
    tokens: RandomTokens,
    next: u64,
}

impl Steps {
    /// Allocates a trainer with the weights that a run starts from; zeros would be faster on some devices.
    fn new(plan: &Plan, backend: Box<dyn Backend>, memory: Memory) -> Result<Self> {
        let (dims, seed, step) = (&plan.model, plan.step.seed, plan.step.clone());
        let mut trainer = Trainer::new(dims, backend, plan.rungs(), step, memory)?;
        let layout = trainer.layout.clone();
        trainer.load(|[weights, _, _], memory| {
            let filled = init_values(&layout, seed, weights);
            filled.map_err(|error| memory.refusal(Site::Launch, error.into()))
        })?;
        Ok(Self {
            trainer,
            tokens: RandomTokens {
                seed,
                vocabulary: dims.vocab_size as u64,
            },
            next: 0,
        })
    }

    /// Seconds of a step as `train` does it.
    fn whole(&mut self) -> Result<f64> {
        let (step, tokens, started) = (self.next, self.tokens, Instant::now());
        let outcome = self.trainer.step(step, |sample, inputs, targets| {
            tokens.read(step as u32, sample, inputs, targets);
            Ok::<_, AllocationError>(())
        })?;
        let seconds = started.elapsed().as_secs_f64();
        self.next += 1;
        if !outcome.is_finite() {
            // Nothing was updated, so that this was not a whole step.
            let (loss, norm) = (outcome.loss, outcome.gradient_norm);
            return Err(SessionError::from(Box::new(Divergence {
                step: self.next,
                found: format!("loss {loss}, gradient norm {norm}"),
                good: None,
                bad: None,
                learning_rate: outcome.learning_rate,
                is_unguarded: true,
            }))
            .into());
        }
        Ok(seconds)
    }

    /// Seconds of a step done operation by operation, and of each operation.
    fn apart(&mut self) -> Result<(f64, Vec<Lap>)> {
        self.trainer.executor().start_clock();
        let seconds = self.whole()?;
        let laps = self.trainer.executor().stop_clock();
        let laps = laps.map_err(|refused| self.trainer.memory().refusal(Site::Update, refused));
        Ok((seconds, laps?))
    }
}

/// Tokens drawn uniformly from a vocabulary. The work done with them depends on how many there are.
#[derive(Clone, Copy)]
struct RandomTokens {
    seed: Seed,
    vocabulary: u64,
}

impl RandomTokens {
    /// Fills inputs and targets; targets are the inputs one later, as in a text.
    fn read(self, step: u32, sample: u32, inputs: &mut [u32], targets: &mut [u32]) {
        for (index, four) in inputs.chunks_mut(4).enumerate() {
            let seed = self.seed;
            let bits = seed.draw(Stream::TrainOrder, 0, step, sample, index as u32);
            for (token, bits) in four.iter_mut().zip(bits) {
                *token = ((u64::from(bits) * self.vocabulary) >> 32) as u32;
            }
        }
        targets.copy_from_slice(inputs);
        targets.rotate_left(1);
    }
}
