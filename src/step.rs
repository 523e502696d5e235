//! One optimizer step: accumulate, which may be retried, then commit, which may not.

use crate::error::Result;
use crate::memory::{Group, Memory, OutOfMemory};
use crate::model::{Batch, Gpt, ParamLayout, Sizes};
use crate::ops::Element;
use crate::ops::dropout::Dropout;
use crate::ops::parallel::zero;
use crate::optim::{Optimizer, OptimizerSettings, gradient_norm};
use crate::plan::ModelDims;
use crate::rng::Seed;
use crate::schedule::Schedule;

/// Writes one sample: `T` inputs and the `T` targets that follow them. The number given is the
/// sample's index within its step or evaluation.
pub trait ReadSample: Fn(u32, &mut [u32], &mut [u32]) -> Result<()> {}
impl<F: Fn(u32, &mut [u32], &mut [u32]) -> Result<()>> ReadSample for F {}

/// What one step is made of, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSettings {
    pub seed: Seed,
    pub sequences_per_step: usize,
    pub optimizer: OptimizerSettings,
    pub schedule: Schedule,
}

/// A model and the state of its training.
pub struct Trainer<T> {
    settings: StepSettings,
    gpt: Gpt<T>,
    tokens: Tokens,
    pub layout: ParamLayout,
    pub weights: Vec<T>,
    gradients: Vec<T>,
    pub optimizer: Optimizer<T>,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
    /// Mean over every token of the step, in nats.
    pub loss: f64,
    /// Global L2 norm before clipping.
    pub gradient_norm: f64,
    pub learning_rate: f64,
}

impl<T: Element> Trainer<T> {
    /// Allocates everything that training needs; weights and moments are zero.
    pub fn new(
        dims: &ModelDims,
        sizes: Sizes,
        settings: StepSettings,
        memory: &mut Memory,
    ) -> Result<Self, OutOfMemory> {
        let layout = ParamLayout::new(dims);
        let weights = memory.buffer(Group::Weights, "weights", layout.len)?;
        let gradients = memory.buffer(Group::Gradients, "gradients", layout.len)?;
        let optimizer = Optimizer::new(settings.optimizer, &layout, memory)?;
        Ok(Self {
            gpt: Gpt::for_training(dims, sizes, memory)?,
            tokens: Tokens::new(sizes.sequences * dims.block_size),
            settings,
            layout,
            weights,
            gradients,
            optimizer,
        })
    }

    /// Step number `step`, counted from 0. A step whose loss or gradient is not finite changes
    /// nothing; the caller sees it in the outcome.
    pub fn step(&mut self, step: u64, read: impl ReadSample) -> Result<StepOutcome> {
        let loss = self.accumulate(step, read)?;
        let outcome = StepOutcome {
            loss,
            gradient_norm: gradient_norm(&self.gradients),
            learning_rate: self.settings.schedule.at(step),
        };
        if outcome.is_finite() {
            self.commit(step, outcome);
        }
        Ok(outcome)
    }

    /// The gradients of the step's mean loss, from zero. Can be repeated: it changes nothing that
    /// it reads.
    fn accumulate(&mut self, step: u64, read: impl ReadSample) -> Result<f64> {
        let sequences = self.settings.sequences_per_step;
        let block_size = self.gpt.dims().block_size;
        let scale = T::of(1.0 / (sequences * block_size) as f64);
        zero(&mut self.gradients);
        let mut total = 0.0;
        for first in (0..sequences).step_by(self.gpt.max_sequences()) {
            let count = self.gpt.max_sequences().min(sequences - first);
            let dropout = self.dropout(step, first);
            let batch = self.tokens.fill(first, count, block_size, &read)?;
            let losses = self.gpt.forward_backward(
                &self.weights,
                &mut self.gradients,
                batch,
                scale,
                dropout,
            );
            total += sum(losses);
        }
        Ok(total / (sequences * block_size) as f64)
    }

    /// Clips and updates. Never repeated for a step.
    fn commit(&mut self, step: u64, outcome: StepOutcome) {
        self.optimizer.update(
            &mut self.weights,
            &self.gradients,
            outcome.gradient_norm,
            outcome.learning_rate,
            step + 1,
        );
    }

    fn dropout(&self, step: u64, first: usize) -> Option<Dropout> {
        let p = self.gpt.dims().dropout;
        (p > 0.0).then_some(Dropout {
            p,
            seed: self.settings.seed,
            step: step as u32,
            first_sample: first as u32,
        })
    }

    /// The mean loss over `sequences` samples, in nats per token, without dropout.
    pub fn evaluate(&mut self, sequences: usize, read: impl ReadSample) -> Result<f64> {
        let (gpt, tokens) = (&mut self.gpt, &mut self.tokens);
        evaluate(gpt, tokens, &self.weights, sequences, read)
    }

    /// The gradients of the last step, flat in the layout's order, before clipping.
    pub fn gradients(&self) -> &[T] {
        &self.gradients
    }

    pub fn gpt(&mut self) -> &mut Gpt<T> {
        &mut self.gpt
    }
}

impl StepOutcome {
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.gradient_norm.is_finite()
    }
}

/// The token ids of a micro-batch.
pub struct Tokens {
    inputs: Vec<u32>,
    targets: Vec<u32>,
}

impl Tokens {
    pub fn new(rows: usize) -> Self {
        Self {
            inputs: vec![0; rows],
            targets: vec![0; rows],
        }
    }

    /// Samples `first..first + count`.
    fn fill(
        &mut self,
        first: usize,
        count: usize,
        block_size: usize,
        read: &impl ReadSample,
    ) -> Result<Batch<'_>> {
        let rows = count * block_size;
        let inputs = self.inputs[..rows].chunks_exact_mut(block_size);
        let targets = self.targets[..rows].chunks_exact_mut(block_size);
        for (i, (inputs, targets)) in inputs.zip(targets).enumerate() {
            read((first + i) as u32, inputs, targets)?;
        }
        Ok(Batch {
            inputs: &self.inputs[..rows],
            targets: &self.targets[..rows],
            sequences: count,
        })
    }
}

/// The mean loss of `gpt` over `sequences` samples, in nats per token.
pub fn evaluate<T: Element>(
    gpt: &mut Gpt<T>,
    tokens: &mut Tokens,
    weights: &[T],
    sequences: usize,
    read: impl ReadSample,
) -> Result<f64> {
    let block_size = gpt.dims().block_size;
    let mut total = 0.0;
    for first in (0..sequences).step_by(gpt.max_sequences()) {
        let count = gpt.max_sequences().min(sequences - first);
        let batch = tokens.fill(first, count, block_size, &read)?;
        total += sum(gpt.losses(weights, batch));
    }
    Ok(total / (sequences * block_size) as f64)
}

/// In f64 and in row order, so that it does not depend on the micro-batch.
fn sum<T: Element>(losses: &[T]) -> f64 {
    losses.iter().map(|loss| loss.widen()).sum()
}
