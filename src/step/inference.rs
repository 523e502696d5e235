//! A model whose weights are not trained.

use std::rc::Rc;

use crate::memory::{AllocationError, Memory, Recoverable};
use crate::model::{Executor, State, Workspace, gpt2};
use crate::ops::backend::{Backend, ValuesMut};
use crate::step::recovery::{Recovery, Workspaces};
use crate::terms::{ModelDims, NamedChoice, Purpose, Rung};

/// Weights on a device, and the buffers that they compute in: no gradients, no moments, one block's activations.
pub struct Inference {
    executor: Rc<Executor>,
    state: State,
    workspaces: Workspaces<Workspace>,
}

impl Inference {
    /// Allocates at the first rung of `ladder` that memory is granted for.
    ///
    /// # Errors
    /// When memory is refused at every rung.
    ///
    /// # Panics
    /// If the ladder is empty.
    pub fn new(
        dims: &ModelDims,
        backend: Box<dyn Backend>,
        ladder: Vec<Rung>,
        memory: Memory,
    ) -> Result<Self, AllocationError> {
        Self::for_purpose(Purpose::Inference, dims, backend, ladder, memory)
    }

    /// See [`Inference::new`]; the buffers are those of a generation with up to `positions` positions.
    ///
    /// # Errors
    /// When memory is refused at every rung.
    ///
    /// # Panics
    /// If the ladder is empty.
    pub fn for_generation(
        positions: usize,
        dims: &ModelDims,
        backend: Box<dyn Backend>,
        ladder: Vec<Rung>,
        memory: Memory,
    ) -> Result<Self, AllocationError> {
        let purpose = Purpose::Generation { positions };
        Self::for_purpose(purpose, dims, backend, ladder, memory)
    }

    fn for_purpose(
        purpose: Purpose,
        dims: &ModelDims,
        backend: Box<dyn Backend>,
        ladder: Vec<Rung>,
        memory: Memory,
    ) -> Result<Self, AllocationError> {
        let executor = Rc::new(Executor::new(backend));
        let (engine, precision) = (executor.backend().engine(), executor.backend().precision());
        let (dims, build_executor) = (dims.clone(), executor.clone());
        let program = move |rung| gpt2(&dims, rung, purpose, engine, precision);
        // What lasts is the same at every rung.
        let lasting = program(ladder[0]);
        let (workspaces, state) = Workspaces::allocate(
            memory,
            ladder,
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

    /// Does `work` in the buffers of the present rung, with the retries of [`Workspaces::run`].
    ///
    /// # Errors
    /// Those of [`Workspaces::run`].
    pub fn run<R, E: Recoverable>(
        &mut self,
        mut work: impl FnMut(&State, &mut Workspace, &mut Memory) -> Result<R, E>,
    ) -> Result<R, E> {
        let state = &self.state;
        self.workspaces
            .run(|workspace, memory| work(state, workspace, memory))
    }

    /// Recoveries since the last call.
    pub fn take_recoveries(&mut self) -> Vec<Recovery> {
        self.workspaces.take_recoveries()
    }

    /// Choices about GEMMs since the last call.
    pub fn take_choices(&self) -> Vec<NamedChoice> {
        self.executor.backend().take_choices()
    }
}
