//! The mean loss of a model: during training in its buffers, or of weights that are not trained.

use std::rc::Rc;

use crate::faults::Site;
use crate::memory::{AllocationError, Allocator, Group, Memory, Planned, Recoverable};
use crate::model::{ParamLayout, plan_buffers};
use crate::ops::backend::{Backend, BatchHeader, plan_batch};
use crate::step::recovery::{Recovery, Workspaces};
use crate::step::{ReadSample, Workspace};
use crate::terms::{Engine, ModelDims, Purpose, Recompute, Rung};

/// The mean loss over `sequences` samples, in nats per token, without dropout.
pub(crate) fn evaluate<B: Backend, E: Recoverable>(
    (backend, weights, tally): (&B, &B::Compute, &mut B::Tally),
    workspace: &mut Workspace<B>,
    sequences: usize,
    read: &impl ReadSample<E>,
    (memory, site): (&mut Memory, Site),
) -> Result<f64, E> {
    let (block_size, most) = (
        workspace.gpt.dims().block_size,
        workspace.gpt.max_sequences(),
    );
    backend
        .reset(tally)
        .map_err(|refused| memory.refusal(site, refused))?;
    for first in (0..sequences).step_by(most) {
        let count = most.min(sequences - first);
        let (samples, header) = ((first, count), BatchHeader::default());
        workspace.load(backend, samples, header, read, (memory, site))?;
        memory.enter(site)?;
        let losses = workspace.gpt.losses(weights, &workspace.batch, count);
        losses
            .and_then(|losses| backend.add_losses(losses, block_size, tally))
            .map_err(|refused| memory.refusal(site, refused))?;
    }
    let loss = backend
        .loss(tally)
        .map_err(|refused| memory.refusal(site, refused))?;
    Ok(loss / (sequences * block_size) as f64)
}

/// Evaluates weights that are not trained: no gradients, no moments, one block's activations.
pub struct Evaluator<B: Backend> {
    backend: Rc<B>,
    weights: B::Compute,
    tally: B::Tally,
    workspaces: Workspaces<Workspace<B>>,
}

impl<B: Backend> Evaluator<B> {
    /// Nothing is kept for a backward, whatever the rungs of `ladder` say.
    ///
    /// # Errors
    /// When memory is refused at every rung.
    pub fn new(
        dims: &ModelDims,
        backend: B,
        ladder: &[Rung],
        memory: Memory,
    ) -> Result<Self, AllocationError> {
        let parameters = ParamLayout::new(dims).len;
        let dims = dims.clone();
        let backend = Rc::new(backend);
        let build_backend = backend.clone();
        let (workspaces, (weights, tally)) = Workspaces::allocate(
            memory,
            ladder.iter().map(|&rung| without_backward(rung)).collect(),
            |memory| {
                let weights = weights(parameters, &mut backend.allocator(memory))?;
                let tally = backend.tally();
                Ok((
                    weights,
                    tally.map_err(|refused| memory.refusal(Site::Launch, refused))?,
                ))
            },
            move |rung, memory| {
                Workspace::new(&dims, rung, &build_backend, Purpose::Inference, memory)
            },
        )?;
        Ok(Self {
            backend,
            weights,
            tally,
            workspaces,
        })
    }

    /// Lets `load` write the weights, again if memory is refused to it.
    ///
    /// # Errors
    /// What `load` says, and when memory is refused for good.
    pub fn load<E: Recoverable>(
        &mut self,
        mut load: impl FnMut(&B, &mut B::Compute, &Memory) -> Result<(), E>,
    ) -> Result<(), E> {
        let (backend, weights) = (&self.backend, &mut self.weights);
        self.workspaces
            .run_beside(|_, memory, _| load(backend, weights, memory))
    }

    /// The mean loss over `sequences` samples, in nats per token.
    ///
    /// # Errors
    /// What reading a sample or the device says, and when memory is refused at every rung.
    pub fn evaluate<E: Recoverable>(
        &mut self,
        sequences: usize,
        read: impl ReadSample<E>,
    ) -> Result<f64, E> {
        let (backend, weights, tally) = (&*self.backend, &self.weights, &mut self.tally);
        self.workspaces.run(|workspace, memory| {
            let model = (backend, weights, &mut *tally);
            evaluate(model, workspace, sequences, &read, (memory, Site::EvalOnly))
        })
    }

    /// What was recovered from since the last call.
    pub fn take_recoveries(&mut self) -> Vec<Recovery> {
        self.workspaces.take_recoveries()
    }
}

/// Notes in `memory` every buffer of an [`Evaluator`] at one rung.
pub fn plan_evaluation(dims: &ModelDims, rung: Rung, engine: Engine, memory: &mut Planned) {
    let Ok(()) = weights(ParamLayout::new(dims).len, memory);
    plan_buffers(
        dims,
        without_backward(rung),
        engine,
        Purpose::Inference,
        memory,
    );
    let Ok(()) = plan_batch(rung.micro_batch * dims.block_size, engine, memory);
}

pub(crate) fn without_backward(rung: Rung) -> Rung {
    Rung {
        recompute: Recompute::Block,
        ..rung
    }
}

pub(crate) fn weights<A: Allocator>(
    parameters: usize,
    memory: &mut A,
) -> Result<A::Compute, A::Error> {
    memory.compute(Group::Weights, format_args!("weights"), parameters)
}
