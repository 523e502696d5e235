//! The micro-step: its buffers, its samples, and its two halves.

use std::ops::Range;
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

    /// Makes `samples`, by their indices within the step or evaluation, the micro-batch.
    ///
    /// # Errors
    /// The errors of `read`, and those of the device, as of `site`.
    pub fn load<E: Recoverable>(
        &mut self,
        backend: &B,
        samples: Range<usize>,
        header: BatchHeader,
        read: &impl ReadSample<E>,
        memory: &Memory,
        site: Site,
    ) -> Result<(), E> {
        let block_size = self.gpt.dims().block_size;
        let rows = samples.len() * block_size;
        let loaded = backend.load(&mut self.batch, rows, header, &mut |inputs, targets| {
            let inputs = inputs[..rows].chunks_exact_mut(block_size);
            let targets = targets[..rows].chunks_exact_mut(block_size);
            for (sample, (inputs, targets)) in samples.clone().zip(inputs.zip(targets)) {
                read(sample as u32, inputs, targets)?;
            }
            Ok(())
        });
        loaded.map_err(|error| match error {
            LoadError::Read(error) => error,
            LoadError::Refused(refused) => memory.refusal(site, refused).into(),
        })
    }
}

/// The samples of the micro-batches of `sequences` samples, `most` at a time, in order.
pub(super) fn micro_batches(sequences: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let firsts = (0..sequences).step_by(most);
    firsts.map(move |first| first..sequences.min(first + most))
}

/// The dropout of a run.
#[derive(Clone, Copy)]
pub(super) struct DropoutSettings {
    /// Probability of dropping an element, in (0, 1).
    pub p: f64,
    pub seed: Seed,
}

/// A micro-step of training, in two halves. A micro-batch of full size is recorded and replayed.
pub(super) struct MicroStep<'a, B: Backend> {
    pub backend: &'a B,
    pub weights: &'a B::Compute,
    pub count: usize,
    pub dropout: Option<DropoutSettings>,
}

impl<B: Backend> MicroStep<'_, B> {
    fn masks<'b>(&self, batch: &'b B::Batch) -> Option<Masks<'b, B::Header>> {
        self.dropout.map(|DropoutSettings { p, seed }| Masks {
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
        gradients: &mut B::Full,
        write: GradientWrite,
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
                    write,
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
        if full {
            self.backend.record(recording, work)
        } else {
            work()
        }
    }
}
