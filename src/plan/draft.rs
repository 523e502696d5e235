//! A request before a rung is chosen: the ladder, what its rungs take, and what there is.

use super::budget::{budget, reserve};
use super::ladder::{Launch, Rungs, begin_with};
use super::throughput::Predictor;
use super::{PlanError, Request, precision, resolve};
use crate::device::{DeviceProfile, Hardware};
use crate::memory::{Planned, Row, total_bytes};
use crate::model::packed_bytes;
use crate::step::evaluation::plan_evaluation;
use crate::step::plan_training;
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
        let sequences = config.sequences_per_step();
        let predictor = Predictor::new(
            &measure.model,
            device,
            inputs,
            threads.value,
            job,
            sequences,
        );
        let launch = |rung| Launch {
            rung,
            bytes: measure.bytes(rung),
            tokens_per_second: predictor.tokens_per_second(rung),
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

/// A dry run of the constructors that allocate: how much memory a rung takes.
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
    /// Total of the buffers and the reserve.
    pub fn bytes(&self, rung: Rung) -> u64 {
        let reserve = total_bytes(&self.reserve(rung));
        let buffers = self.walk(rung, Planned::sum(self.precision));
        reserve.saturating_add(buffers.total_bytes())
    }

    /// Every buffer, and the reserve.
    pub fn table(&self, rung: Rung) -> Vec<Row> {
        let mut rows = self.walk(rung, Planned::table(self.precision)).into_rows();
        rows.extend(self.reserve(rung));
        rows
    }

    fn reserve(&self, rung: Rung) -> Vec<Row> {
        let threads = match self.engine {
            Engine::Cpu { threads } => threads,
            Engine::Cuda => 0,
        };
        let packed = packed_bytes(
            &self.model,
            rung,
            self.inputs,
            threads,
            self.gemm,
            self.device.vector_extensions(),
        );
        reserve(&self.device, threads, packed)
    }

    fn walk(&self, rung: Rung, mut memory: Planned) -> Planned {
        match self.job {
            Job::Train => plan_training(&self.model, rung, self.engine, &mut memory),
            Job::Evaluate => plan_evaluation(&self.model, rung, self.engine, &mut memory),
        }
        memory
    }
}

fn engine(device: &DeviceProfile, threads: usize) -> Engine {
    match device.hardware {
        Hardware::Cpu(_) => Engine::Cpu { threads },
        Hardware::Cuda(_) => Engine::Cuda,
    }
}
