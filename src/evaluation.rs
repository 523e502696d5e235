//! The mean loss of a model: during training in its buffers, or of weights that are not trained.

use std::rc::Rc;

use crate::error::Result;
use crate::faults::Site;
use crate::memory::{Allocator, Group, Host, Memory, Planned};
use crate::model::{Engine, ParamLayout, Purpose, Recompute, Rung, plan_buffers};
use crate::ops::Element;
use crate::ops::gemm::{Cpu, Products};
use crate::plan::ModelDims;
use crate::recovery::{Recovery, Workspaces};
use crate::step::{ReadSample, Tokens, Workspace, sum};

/// The mean loss over `sequences` samples, in nats per token, without dropout.
pub(crate) fn evaluate<T: Element>(
    Workspace { gpt, tokens }: &mut Workspace<T>,
    weights: &[T],
    sequences: usize,
    read: &impl ReadSample,
    (memory, site): (&mut Memory, Site),
) -> Result<f64> {
    let block_size = gpt.dims().block_size;
    let mut total = 0.0;
    for first in (0..sequences).step_by(gpt.max_sequences()) {
        let count = gpt.max_sequences().min(sequences - first);
        let batch = tokens.fill(first, count, block_size, read)?;
        memory.enter(site)?;
        total += sum(gpt.losses(weights, batch));
    }
    Ok(total / (sequences * block_size) as f64)
}

/// Evaluates weights that are not trained: no gradients, no moments, one block's activations.
pub struct Evaluator<T: Element> {
    pub weights: Vec<T>,
    workspaces: Workspaces<Workspace<T>>,
}

impl<T: Element> Evaluator<T> {
    /// Nothing is kept for a backward, whatever the rungs of `ladder` say.
    ///
    /// # Errors
    /// When memory is refused at every rung.
    pub fn new(dims: &ModelDims, threads: usize, ladder: &[Rung], memory: Memory) -> Result<Self> {
        let parameters = ParamLayout::new(dims).len;
        let dims = dims.clone();
        let products = Rc::new(Products::untuned(Cpu::default()));
        let (workspaces, weights) = Workspaces::allocate(
            memory,
            ladder.iter().map(|&rung| without_backward(rung)).collect(),
            |memory| weights(parameters, &mut Host::<T>::new(memory)),
            move |rung, memory| {
                let engine = (threads, &products);
                Workspace::new(&dims, rung, engine, Purpose::Inference, memory)
            },
        )?;
        Ok(Self {
            weights,
            workspaces,
        })
    }

    /// The mean loss over `sequences` samples, in nats per token.
    pub fn evaluate(&mut self, sequences: usize, read: impl ReadSample) -> Result<f64> {
        let weights = &self.weights;
        self.workspaces.run(|workspace, memory| {
            evaluate(
                workspace,
                weights,
                sequences,
                &read,
                (memory, Site::EvalOnly),
            )
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
    let Ok(_) = Tokens::new(rung.micro_batch * dims.block_size, memory);
}

fn without_backward(rung: Rung) -> Rung {
    Rung {
        recompute: Recompute::Block,
        ..rung
    }
}

fn weights<A: Allocator>(parameters: usize, memory: &mut A) -> Result<A::Compute, A::Error> {
    memory.compute(Group::Weights, format_args!("weights"), parameters)
}
