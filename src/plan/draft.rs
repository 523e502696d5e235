//! A request before a rung is chosen: the ladder, what its rungs take, and what there is.

use super::budget::{budget, reserve};
use super::ladder::{Launch, Rungs, begin_with};
use super::throughput::Predictor;
use super::{PlanError, Request, precision, resolve};
use crate::device::{DeviceProfile, Hardware};
use crate::memory::{Row, total_bytes};
use crate::model::Program;
use crate::ops::gemm::cpu;
use crate::terms::{Choice, Effort, Engine, Inputs, Job, ModelDims, Precision, Rung};

/// A request, resolved as far as it is before a rung is chosen.
pub(super) struct Draft {
    pub vocab_size: Choice<usize>,
    /// Precision that the run is said to compute in; its buffers may be wider, see [`Measure::precision`].
    pub dtype: Choice<Precision>,
    pub threads: Choice<usize>,
    pub gemm: Choice<Effort>,
    /// The most sequences of a micro-batch that kernels take.
    pub countable: usize,
    /// Whether the ladder begins with a checkpoint's rung.
    pub resumed: bool,
    pub measure: Measure,
    pub ladder: Vec<Launch>,
    pub budget: Choice<Option<u64>>,
}

impl Draft {
    /// # Errors
    /// When the parts of the request contradict each other, or the device cannot do what is asked for.
    pub fn new(request: &Request) -> Result<Self, PlanError> {
        let Request {
            config,
            device,
            dataset,
            origin,
            job,
            ..
        } = *request;
        let vocab_size = resolve::vocab_size(config, dataset, origin.weights)?;
        let model = resolve::model_dims(config, vocab_size.value, origin.weights)?;
        resolve::check_kernels(&model, device)?;
        let dtype = precision::dtype(config, &model, device)?;
        let (precision, inputs) = precision::storage(config, &model, device, dtype.value);
        let threads = resolve::threads(config, device);
        let gemm = resolve::autotune(config, device, job)?;
        let countable = resolve::countable_sequences(&model, device);
        let rungs = Rungs::new(config, &model, precision, countable, job);
        let measure = Measure {
            engine: engine(device, threads.value),
            model,
            precision,
            inputs,
            job,
            device: device.clone(),
            gemm: gemm.value,
        };
        let predictor = Predictor::new(&measure, threads.value, config.sequences_per_step());
        let launch = |rung| {
            let program = measure.program(rung);
            Launch {
                rung,
                bytes: measure.bytes(&program),
                tokens_per_second: predictor.tokens_per_second(&program),
            }
        };
        let mut ladder = rungs.ladder(launch);
        let stored = origin.rung.filter(|rung| rung.micro_batch <= countable);
        if let Some(rung) = stored {
            begin_with(launch(rung), &mut ladder);
        }
        Ok(Self {
            vocab_size,
            dtype,
            threads,
            gemm,
            countable,
            resumed: stored.is_some(),
            measure,
            ladder,
            budget: budget(device, config.system.memory_limit.map(|limit| limit.0)),
        })
    }

    pub fn fits(&self, launch: &Launch) -> bool {
        self.budget
            .value
            .is_none_or(|budget| launch.bytes <= budget)
    }

    pub fn first_that_fits(&self) -> Option<usize> {
        self.ladder.iter().position(|launch| self.fits(launch))
    }

    /// The last rung.
    pub fn smallest(&self) -> &Launch {
        &self.ladder[self.ladder.len() - 1]
    }
}

/// All that decides the memory of a rung.
pub(super) struct Measure {
    pub model: ModelDims,
    pub engine: Engine,
    /// Precision of the buffers.
    pub precision: Precision,
    pub inputs: Inputs,
    pub job: Job,
    pub device: DeviceProfile,
    pub gemm: Effort,
}

impl Measure {
    pub fn program(&self, rung: Rung) -> Program {
        Program::of(self.job, &self.model, rung, self.engine, self.precision)
    }

    /// Total of the buffers and the reserve.
    pub fn bytes(&self, program: &Program) -> u64 {
        let reserve = total_bytes(&self.reserve(program));
        reserve.saturating_add(program.bytes(self.precision))
    }

    /// Every buffer, and the reserve.
    pub fn table(&self, rung: Rung) -> Vec<Row> {
        let program = self.program(rung);
        let mut rows = program.table(self.precision);
        rows.extend(self.reserve(&program));
        rows
    }

    fn reserve(&self, program: &Program) -> Vec<Row> {
        let Engine::Cpu { threads } = self.engine else {
            return reserve(&self.device, 0, 0);
        };
        let problems = program.problems(self.inputs);
        let extensions = self.device.vector_extensions();
        let packed = cpu::packed_bytes(&problems, threads, self.gemm, extensions);
        reserve(&self.device, threads, packed)
    }
}

fn engine(device: &DeviceProfile, threads: usize) -> Engine {
    match device.hardware {
        Hardware::Cpu(_) => Engine::Cpu { threads },
        Hardware::Cuda(_) => Engine::Cuda,
    }
}
