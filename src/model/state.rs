//! The buffers and numbers that last from step to step.

use super::{Executor, Program, StateIds, TrainingIds};
use crate::faults::Site;
use crate::memory::{AllocationError, Memory};
use crate::ops::backend::{Backend, Buffer, BufferId, Done, TrainingState, ValuesMut};

/// The buffers of a program that do not depend on the rung, and the numbers of its steps.
pub struct State {
    pub(super) buffers: Vec<Buffer>,
    /// The loss so far, and what an update reads beside the buffers.
    pub numbers: Buffer,
    ids: StateIds,
}

impl State {
    /// Allocates zeros.
    ///
    /// # Errors
    /// When memory is refused.
    pub fn allocate(
        program: &Program,
        executor: &Executor,
        memory: &mut Memory,
    ) -> Result<Self, AllocationError> {
        let backend = executor.backend();
        let specs = program.lasting().iter();
        let buffers = specs.map(|spec| backend.allocate(spec, memory));
        let buffers = buffers.collect::<Result<_, _>>()?;
        let decays = match program.state.training {
            Some(_) => program.params.decay_runs(),
            None => Vec::new(),
        };
        let numbers = backend.numbers(&decays);
        Ok(Self {
            buffers,
            numbers: numbers.map_err(|refused| memory.refusal(Site::Launch, refused))?,
            ids: program.state,
        })
    }

    fn buffer(&self, BufferId(index): BufferId) -> &Buffer {
        &self.buffers[index]
    }

    fn training_ids(&self) -> TrainingIds {
        let Some(ids) = self.ids.training else {
            unreachable!("a state for inference was asked for moments");
        };
        ids
    }

    pub fn gradients(&self) -> Option<BufferId> {
        self.ids.training.map(|ids| ids.gradients)
    }

    /// # Panics
    /// If the program is for inference.
    pub fn training(&self) -> TrainingState<'_> {
        let ids = self.training_ids();
        TrainingState {
            weights: self.buffer(self.ids.weights),
            master: ids.master.map(|master| self.buffer(master)),
            m: self.buffer(ids.m),
            v: self.buffer(ids.v),
            gradients: self.buffer(ids.gradients),
        }
    }

    /// The weights that the model computes with.
    pub fn weights<'a>(&'a mut self, backend: &'a dyn Backend) -> Box<dyn ValuesMut + 'a> {
        let BufferId(weights) = self.ids.weights;
        backend.values(&mut self.buffers[weights])
    }

    /// # Panics
    /// If the program is for inference.
    pub fn gradient_values<'a>(&'a mut self, backend: &'a dyn Backend) -> Box<dyn ValuesMut + 'a> {
        let BufferId(gradients) = self.training_ids().gradients;
        backend.values(&mut self.buffers[gradients])
    }

    /// The weights in fp32, and both moments: all that a checkpoint holds.
    ///
    /// # Panics
    /// If the program is for inference.
    pub fn saved<'a>(&'a mut self, backend: &'a dyn Backend) -> [Box<dyn ValuesMut + 'a>; 3] {
        let ids = self.training_ids();
        let weights = ids.master.unwrap_or(self.ids.weights);
        let ids = [weights, ids.m, ids.v].map(|BufferId(index)| index);
        match self.buffers.get_disjoint_mut(ids) {
            Ok(buffers) => buffers.map(|buffer| backend.values(buffer)),
            Err(error) => unreachable!("three buffers of a state: {error}"),
        }
    }

    /// Rounds fp32 weights to those that the model computes with, where they are not the same.
    ///
    /// # Errors
    /// The device's refusal.
    pub fn round_weights(&self, backend: &dyn Backend) -> Done {
        match self.training().master {
            Some(master) => backend.round(master, self.buffer(self.ids.weights)),
            None => Ok(()),
        }
    }
}
