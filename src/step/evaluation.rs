//! The mean loss of a model: in the buffers of its training, or of weights that are not trained.

use crate::faults::Site;
use crate::memory::{AllocationError, Memory, Recoverable};
use crate::model::{State, Workspace};
use crate::ops::backend::{Backend, BatchHeader, ValuesMut};
use crate::step::ReadSample;
use crate::step::inference::Inference;
use crate::step::micro::{load, micro_batches};
use crate::step::recovery::Recovery;
use crate::terms::{ModelDims, NamedChoice, Recompute, Rung};

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

    /// Recoveries since the last call.
    pub fn take_recoveries(&mut self) -> Vec<Recovery> {
        self.0.take_recoveries()
    }

    /// Choices about GEMMs since the last call.
    pub fn take_choices(&self) -> Vec<NamedChoice> {
        self.0.take_choices()
    }
}
