//! The micro-step: its buffers, its samples, and its two halves.

use std::rc::Rc;

use super::ReadSample;
use crate::faults::Site;
use crate::memory::{AllocationError, Memory, Recoverable};
use crate::model::{FlatGradients, Gpt};
use crate::ops::backend::{Backend, BatchHeader, Done, GradientWrite, LoadError, Masks};
use crate::rng::Seed;
use crate::terms::{ModelDims, Purpose, Rung};

/// The buffers of a micro-step.
pub(crate) struct Workspace<B: Backend> {
    pub gpt: Gpt<B>,
    pub batch: B::Batch,
    forward: B::Recording,
    backward: B::Recording,
}

impl<B: Backend> Workspace<B> {
    pub fn new(
        dims: &ModelDims,
        rung: Rung,
        backend: &Rc<B>,
        purpose: Purpose,
        memory: &mut Memory,
    ) -> Result<Self, AllocationError> {
        Ok(Self {
            gpt: Gpt::new(dims, rung, backend, purpose, memory)?,
            batch: backend.batch(rung.micro_batch * dims.block_size, memory)?,
            forward: B::Recording::default(),
            backward: B::Recording::default(),
        })
    }

    /// Makes samples `first..first + count` the micro-batch.
    ///
    /// # Errors
    /// What `read` says, and what the device says, at `site`.
    pub fn load<E: Recoverable>(
        &mut self,
        backend: &B,
        (first, count): (usize, usize),
        header: BatchHeader,
        read: &impl ReadSample<E>,
        (memory, site): (&Memory, Site),
    ) -> Result<(), E> {
        let block_size = self.gpt.dims().block_size;
        let rows = count * block_size;
        let loaded = backend.load(&mut self.batch, rows, header, &mut |inputs, targets| {
            let inputs = inputs[..rows].chunks_exact_mut(block_size);
            let targets = targets[..rows].chunks_exact_mut(block_size);
            for (i, (inputs, targets)) in inputs.zip(targets).enumerate() {
                read((first + i) as u32, inputs, targets)?;
            }
            Ok(())
        });
        loaded.map_err(|error| match error {
            LoadError::Read(error) => error,
            LoadError::Refused(refused) => memory.refusal(site, refused).into(),
        })
    }
}

/// A micro-step of training, in two halves that are recorded if they are of full size.
pub(super) struct MicroStep<'a, B: Backend> {
    pub backend: &'a B,
    pub weights: &'a B::Compute,
    pub count: usize,
    /// Probability and seed.
    pub dropout: Option<(f64, Seed)>,
}

impl<B: Backend> MicroStep<'_, B> {
    fn masks<'b>(&self, batch: &'b B::Batch) -> Option<Masks<'b, B::Header>> {
        self.dropout.map(|(p, seed)| Masks {
            p,
            seed,
            header: B::header(batch),
        })
    }

    pub fn forward(&self, workspace: &mut Workspace<B>) -> Done {
        let Workspace {
            gpt,
            batch,
            forward,
            ..
        } = workspace;
        let (count, masks) = (self.count, self.masks(batch));
        let full = count == gpt.max_sequences();
        let work = || gpt.forward(self.weights, batch, count, masks);
        self.run(full, forward, work)
    }

    pub fn backward(
        &self,
        workspace: &mut Workspace<B>,
        (gradients, sum): (&mut B::Full, GradientWrite),
        tally: &mut B::Tally,
    ) -> Done {
        let Workspace {
            gpt,
            batch,
            backward,
            ..
        } = workspace;
        let (count, masks) = (self.count, self.masks(batch));
        let (full, positions) = (count == gpt.max_sequences(), gpt.dims().block_size);
        let work = || {
            let losses = gpt.backward(
                self.weights,
                FlatGradients {
                    buffer: &mut *gradients,
                    sum,
                },
                batch,
                count,
                masks,
            )?;
            self.backend.add_losses(losses, positions, tally)
        };
        self.run(full, backward, work)
    }

    fn run(
        &self,
        full: bool,
        recording: &mut B::Recording,
        mut work: impl FnMut() -> Done,
    ) -> Done {
        match full {
            true => self.backend.record(recording, work),
            false => work(),
        }
    }
}
