//! A request before a rung is chosen: the ladder, what its rungs take, and what there is.

use super::budget::{budget, reserve};
use super::ladder::{Launch, Rungs};
use super::throughput::Predictor;
use super::{PlanError, Request, resolve};
use crate::device::{DeviceProfile, Hardware};
use crate::memory::{Planned, Row, total_bytes};
use crate::model::packed_bytes;
use crate::step::evaluation::plan_evaluation;
use crate::step::plan_training;
use crate::terms::{Choice, Effort, Engine, Inputs, Job, ModelDims, Precision, Recompute, Rung};

/// What a request comes to before a rung is chosen.
pub(super) struct Draft {
    pub vocab_size: Choice<usize>,
    /// What the run is said to compute in.
    pub dtype: Choice<Precision>,
    /// Of buffers.
    pub precision: Precision,
    pub inputs: Inputs,
    pub threads: Choice<usize>,
    pub gemm: Choice<Effort>,
    pub pinned: Option<usize>,
    /// The most sequences of a micro-batch that kernels take.
    pub countable: usize,
    /// Whether the ladder begins with a checkpoint's rung.
    pub resumed: bool,
    pub measure: Measure,
    pub ladder: Vec<Launch>,
    pub budget: Choice<Option<u64>>,
}

impl Draft {
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
        let dtype = resolve::precision(config, &model, device)?;
        let (precision, inputs) = resolve::storage(config, &model, device, dtype.value);
        let threads = resolve::threads(config, device);
        let sequences_per_step = config.sequences_per_step();
        let pinned = config.train.batch_size.pinned();
        let countable = resolve::countable_sequences(&model, device);
        let rungs = Rungs {
            sequences_per_step,
            block_size: model.block_size,
            vocab_size: model.vocab_size,
            element_bytes: precision.element_bytes() as usize,
            countable,
            pinned,
            // Nothing is kept in an evaluation, so nothing is recomputed.
            recomputes: match job {
                Job::Train => resolve::recomputes(config),
                Job::Evaluate => &[Recompute::Block],
            },
        };
        let predictor = Predictor::new(
            &model,
            device,
            inputs,
            threads.value,
            (job, sequences_per_step),
        );
        let gemm = resolve::autotune(config, device, job)?;
        let measure = Measure::new(
            model.clone(),
            device,
            (precision, inputs),
            (threads.value, gemm.value),
            job,
        );
        let mut ladder = rungs.ladder(&predictor, |rung| measure.bytes(rung));
        let stored = origin.rung.filter(|rung| rung.micro_batch <= countable);
        if let Some(rung) = stored {
            let bytes = measure.bytes(rung);
            let below = |launch: &Launch| {
                launch.bytes < bytes && launch.rung.micro_batch <= rung.micro_batch
            };
            ladder.retain(below);
            let tokens_per_second = predictor.tokens_per_second(rung);
            ladder.insert(
                0,
                Launch {
                    rung,
                    bytes,
                    tokens_per_second,
                },
            );
        }
        Ok(Self {
            vocab_size,
            dtype,
            precision,
            inputs,
            threads,
            gemm,
            pinned,
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

/// Asks the constructors what they would allocate.
pub(super) struct Measure {
    pub model: ModelDims,
    pub engine: Engine,
    pub precision: Precision,
    pub inputs: Inputs,
    pub job: Job,
    pub device: DeviceProfile,
    pub gemm: Effort,
}

impl Measure {
    pub fn new(
        model: ModelDims,
        device: &DeviceProfile,
        (precision, inputs): (Precision, Inputs),
        (threads, gemm): (usize, Effort),
        job: Job,
    ) -> Self {
        Self {
            model,
            engine: match device.hardware {
                Hardware::Cpu(_) => Engine::Cpu { threads },
                Hardware::Cuda(_) => Engine::Cuda,
            },
            precision,
            inputs,
            job,
            device: device.clone(),
            gemm,
        }
    }

    pub fn bytes(&self, rung: Rung) -> u64 {
        let reserve = total_bytes(&self.reserve(rung));
        let buffers = self.walk(rung, Planned::sum(self.precision));
        reserve.saturating_add(buffers.total_bytes())
    }

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
