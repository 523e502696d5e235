//! The mean loss of a model: in the buffers of its training, or of weights that are not trained.

use std::rc::Rc;

use crate::faults::Site;
use crate::memory::{AllocationError, Memory, Recoverable};
use crate::model::{Executor, Program, State, Workspace, without_backward};
use crate::ops::backend::{Backend, BatchHeader, ValuesMut};
use crate::step::ReadSample;
use crate::step::micro::{load, micro_batches};
use crate::step::recovery::{Recovery, Workspaces};
use crate::terms::{Job, ModelDims, Rung};

/// The mean loss over `sequences` samples, in nats per token, without dropout. Refusals are of `site`.
pub(super) fn mean_loss<E: Recoverable>(
    executor: &Executor,
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
    let loss = executor.backend().loss(&state.numbers);
    let loss = loss.map_err(|refused| memory.refusal(site, refused))?;
    Ok(loss / (sequences * block_size) as f64)
}

/// Evaluator of weights that are not trained: no gradients, no moments, one block's activations.
pub struct Evaluator {
    executor: Rc<Executor>,
    state: State,
    workspaces: Workspaces<Workspace>,
}

impl Evaluator {
    /// Allocates at the first rung of `ladder` that memory is granted for. Nothing is kept for a backward, whatever the
    /// rungs say.
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
        let executor = Rc::new(Executor::new(backend));
        let (engine, precision) = (executor.backend().engine(), executor.backend().precision());
        let (dims, build_executor) = (dims.clone(), executor.clone());
        let program = move |rung| Program::of(Job::Evaluate, &dims, rung, engine, precision);
        // What lasts is the same at every rung.
        let lasting = program(ladder[0]);
        let (workspaces, state) = Workspaces::allocate(
            memory,
            ladder.iter().map(|&rung| without_backward(rung)).collect(),
            |memory| State::allocate(&lasting, &executor, memory),
            move |rung, memory| Workspace::new(program(rung), &build_executor, memory),
        )?;
        Ok(Self {
            executor,
            state,
            workspaces,
        })
    }

    /// Lets `load` write the weights, again if memory is refused to it.
    ///
    /// # Errors
    /// The errors of `load`, and when memory is refused for good.
    pub fn load<E: Recoverable>(
        &mut self,
        mut load: impl FnMut(&mut dyn ValuesMut, &Memory) -> Result<(), E>,
    ) -> Result<(), E> {
        let (backend, state) = (self.executor.backend(), &mut self.state);
        self.workspaces
            .run_beside(|_, memory, _| load(&mut *state.weights(backend), memory))
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
        let (executor, state) = (&*self.executor, &self.state);
        self.workspaces.run(|workspace, memory| {
            let site = Site::EvalOnly;
            mean_loss(executor, state, workspace, sequences, &read, memory, site)
        })
    }

    /// Recoveries since the last call.
    pub fn take_recoveries(&mut self) -> Vec<Recovery> {
        self.workspaces.take_recoveries()
    }
}
