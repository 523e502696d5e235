//! The mean loss of a model: in the buffers of its training, or of weights that are not trained.

use crate::faults::Site;
use crate::memory::{AllocationError, Memory, Recoverable};
use crate::model::{State, Workspace};
use crate::ops::backend::{Backend, BatchHeader, ValuesMut};
use crate::step::ReadSample;
use crate::step::inference::Inference;
use crate::step::micro::{load, micro_batches};
use crate::step::recovery::Recovery;
use crate::step::scoring::{self, Scoring};
use crate::terms::{Engine, ModelDims, NamedChoice, Recompute, Rung};

/// The mean loss over `sequences` samples, in nats per token, without dropout. Refusals are of `site`.
pub(super) fn mean_loss<E: Recoverable>(
    state: &State,
    workspace: &mut Workspace,
    sequences: usize,
    read: &impl ReadSample<E>,
    memory: &mut Memory,
    site: Site,
) -> Result<f64, E> {
    let block_size = workspace.program().block_size;
    let begun = workspace.reset(state);
    begun.map_err(|refused| memory.refusal(site, refused))?;
    for samples in micro_batches(sequences, workspace.program().rung.micro_batch) {
        let count = samples.len();
        load(
            workspace,
            samples,
            BatchHeader::default(),
            read,
            memory,
            site,
        )?;
        memory.enter(site)?;
        let evaluated = workspace.evaluate(state, count);
        evaluated.map_err(|refused| memory.refusal(site, refused))?;
    }
    let loss = workspace.loss(state);
    let loss = loss.map_err(|refused| memory.refusal(site, refused))?;
    Ok(loss / (sequences * block_size) as f64)
}

/// Rows of a micro-batch, and bytes of logits, that keep the units of a CPU and of a GPU busy: more is not faster.
const CPU_ROWS: usize = 4096;
const GPU_ROWS: usize = 16_384;
const CPU_LOGITS_BYTES: usize = 64 << 20;
const GPU_LOGITS_BYTES: usize = 256 << 20;

/// Rungs for [`Evaluator::score`] in float32: half as many sequences from one to the next, down to a single one with
/// little room for logits.
pub fn scoring_ladder(dims: &ModelDims, engine: Engine) -> Vec<Rung> {
    let (rows, logits_bytes) = match engine {
        Engine::Cpu { .. } => (CPU_ROWS, CPU_LOGITS_BYTES),
        Engine::Cuda => (GPU_ROWS, GPU_LOGITS_BYTES),
    };
    let row_bytes = dims.vocab_size * size_of::<f32>();
    let rung = |micro_batch: usize, logits_bytes: usize| Rung {
        micro_batch,
        recompute: Recompute::Block,
        logits_rows: (logits_bytes / row_bytes).clamp(1, micro_batch * dims.block_size),
    };
    let most = (rows / dims.block_size).max(1);
    let halves = std::iter::successors(Some(most), |&batch| (batch > 1).then_some(batch / 2));
    let smallest = rung(1, logits_bytes / 16);
    let mut ladder: Vec<Rung> = halves.map(|batch| rung(batch, logits_bytes)).collect();
    if ladder.last() != Some(&smallest) {
        ladder.push(smallest);
    }
    ladder
}

/// Evaluator of weights that are not trained.
pub struct Evaluator(Inference);

impl Evaluator {
    /// See [`Inference::new`]. Nothing is kept for a backward, whatever the rungs say.
    ///
    /// # Errors
    /// When memory is refused at every rung.
    ///
    /// # Panics
    /// If the ladder is empty.
    pub fn new(
        dims: &ModelDims,
        backend: Box<dyn Backend>,
        ladder: &[Rung],
        memory: Memory,
    ) -> Result<Self, AllocationError> {
        let without_backward = ladder.iter().map(|&rung| Rung {
            recompute: Recompute::Block,
            ..rung
        });
        let ladder = without_backward.collect();
        Inference::new(dims, backend, ladder, memory).map(Self)
    }

    /// See [`Inference::load`].
    ///
    /// # Errors
    /// The errors of `load`, and when memory is refused for good.
    pub fn load<E: Recoverable>(
        &mut self,
        load: impl FnMut(&mut dyn ValuesMut, &Memory) -> Result<(), E>,
    ) -> Result<(), E> {
        self.0.load(load)
    }

    /// The mean loss over `sequences` samples, in nats per token.
    ///
    /// # Errors
    /// The errors of `read` and of the device, and when memory is refused at every rung.
    pub fn evaluate<E: Recoverable>(
        &mut self,
        sequences: usize,
        read: impl ReadSample<E>,
    ) -> Result<f64, E> {
        self.0.run(|state, workspace, memory| {
            mean_loss(state, workspace, sequences, &read, memory, Site::EvalOnly)
        })
    }

    /// Scores sequences.
    ///
    /// # Errors
    /// Those of [`Evaluator::evaluate`].
    pub fn score<E: Recoverable>(&mut self, scoring: &mut impl Scoring<E>) -> Result<(), E> {
        let mut done = 0;
        self.0.run(|state, workspace, memory| {
            scoring::score(state, workspace, scoring, &mut done, memory, Site::EvalOnly)
        })
    }

    /// Recoveries since the last call.
    pub fn take_recoveries(&mut self) -> Vec<Recovery> {
        self.0.take_recoveries()
    }

    /// Choices about GEMMs since the last call.
    pub fn take_choices(&self) -> Vec<NamedChoice> {
        self.0.take_choices()
    }
}
