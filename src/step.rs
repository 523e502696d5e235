//! One optimizer step: accumulate, which may be retried, then commit, which may not.

use std::rc::Rc;

use crate::error::Result;
use crate::evaluation::evaluate;
use crate::faults::Site;
use crate::memory::{AllocationError, Allocator, Group, Host, Memory, Planned, Precision};
use crate::model::{Batch, Engine, Gpt, ParamLayout, Purpose, Rung, plan_buffers};
use crate::ops::Element;
use crate::ops::dropout::Dropout;
use crate::ops::gemm::{Inputs, Problem, Products, Table};
use crate::ops::parallel::zero;
use crate::optim::{Optimizer, OptimizerSettings, gradient_norm};
use crate::plan::{ModelDims, NamedChoice};
use crate::recovery::{Recovery, Workspaces};
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
pub struct Trainer<T: Element> {
    settings: StepSettings,
    products: Rc<Products<T>>,
    dims: ModelDims,
    pub layout: ParamLayout,
    pub weights: Vec<T>,
    gradients: Vec<T>,
    pub optimizer: Optimizer<T>,
    workspaces: Workspaces<Workspace<T>>,
}

/// The state of training, borrowed while it is written.
pub struct Saved<'a, T> {
    pub weights: &'a [T],
    pub m: &'a [T],
    pub v: &'a [T],
    /// The rung that training goes on with.
    pub rung: Rung,
    /// What computes its matrix products.
    pub products: Table,
    /// What was recovered from on the way here: what is written is not without it.
    pub recoveries: Vec<Recovery>,
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

/// The buffers that do not depend on the rung, flat in [`ParamLayout`]'s order.
struct Lasting<C, F> {
    weights: C,
    gradients: F,
    m: F,
    v: F,
}

impl<C, F> Lasting<C, F> {
    fn new<A>(parameters: usize, memory: &mut A) -> Result<Self, A::Error>
    where
        A: Allocator<Compute = C, Full = F>,
    {
        Ok(Self {
            weights: memory.compute(Group::Weights, format_args!("weights"), parameters)?,
            gradients: memory.full(Group::Gradients, format_args!("gradients"), parameters)?,
            m: memory.full(Group::Moments, format_args!("first moment"), parameters)?,
            v: memory.full(Group::Moments, format_args!("second moment"), parameters)?,
        })
    }
}

/// Notes in `memory` every buffer of a [`Trainer`] at one rung.
pub fn plan_training(dims: &ModelDims, rung: Rung, engine: Engine, memory: &mut Planned) {
    let parameters = ParamLayout::new(dims).len;
    let Ok(_) = Lasting::new(parameters, memory);
    if memory.precision().is_mixed() {
        let Ok(()) = memory.full(Group::Master, format_args!("master weights"), parameters);
    }
    plan_buffers(dims, rung, engine, Purpose::Training, memory);
    let Ok(_) = Tokens::new(rung.micro_batch * dims.block_size, memory);
}

/// The buffers of a micro-step.
pub(crate) struct Workspace<T: Element> {
    pub gpt: Gpt<T>,
    pub tokens: Tokens<Vec<u32>>,
}

impl<T: Element> Workspace<T> {
    pub fn new(
        dims: &ModelDims,
        rung: Rung,
        engine: (usize, &Rc<Products<T>>),
        purpose: Purpose,
        memory: &mut Memory,
    ) -> Result<Self, AllocationError> {
        let rows = rung.micro_batch * dims.block_size;
        Ok(Self {
            gpt: Gpt::new(dims, rung, engine, purpose, memory)?,
            tokens: Tokens::new(rows, &mut Host::<T>::new(memory))?,
        })
    }
}

impl<T: Element> Trainer<T> {
    /// Allocates everything that training needs, at the first rung of `ladder` that memory is
    /// granted for; weights and moments are zero. Before the buffers of a rung are made, `products` are
    /// prepared for it.
    ///
    /// # Errors
    /// When memory is refused at every rung.
    pub fn new(
        dims: &ModelDims,
        (threads, products): (usize, Products<T>),
        ladder: Vec<Rung>,
        settings: StepSettings,
        memory: Memory,
    ) -> Result<Self> {
        let layout = ParamLayout::new(dims);
        let parameters = layout.len;
        let products = Rc::new(products);
        let (build_dims, build_products) = (dims.clone(), products.clone());
        let (workspaces, lasting) = Workspaces::allocate(
            memory,
            ladder,
            |memory| Lasting::new(parameters, &mut Host::new(memory)),
            move |rung, memory| {
                let (dims, products) = (&build_dims, &build_products);
                let problems = Problem::of_training(dims, rung, Inputs::Float32);
                products.prepare(&problems, Some(room_for_tuning(dims, rung, memory)));
                Workspace::new(dims, rung, (threads, products), Purpose::Training, memory)
            },
        )?;
        Ok(Self {
            products,
            optimizer: Optimizer::new(settings.optimizer, &layout, lasting.m, lasting.v),
            settings,
            dims: dims.clone(),
            layout,
            weights: lasting.weights,
            gradients: lasting.gradients,
            workspaces,
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
        let (settings, dims) = (&self.settings, &self.dims);
        let (weights, gradients) = (&self.weights, &mut self.gradients);
        let sequences = settings.sequences_per_step;
        let tokens_per_step = (sequences * dims.block_size) as f64;
        self.workspaces.run(|Workspace { gpt, tokens }, memory| {
            zero(gradients);
            let mut total = 0.0;
            for first in (0..sequences).step_by(gpt.max_sequences()) {
                let count = gpt.max_sequences().min(sequences - first);
                let dropout = dropout(settings, dims, step, first);
                let batch = tokens.fill(first, count, dims.block_size, &read)?;
                memory.enter(Site::Forward)?;
                gpt.forward(weights, batch, dropout);
                memory.enter(Site::Backward)?;
                let scale = T::of(1.0 / tokens_per_step);
                total += sum(gpt.backward(weights, gradients, batch, scale, dropout));
            }
            Ok(total / tokens_per_step)
        })
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

    /// The mean loss over `sequences` samples, in nats per token, without dropout.
    pub fn evaluate(&mut self, sequences: usize, read: impl ReadSample) -> Result<f64> {
        let weights = &self.weights;
        self.workspaces.run(|workspace, memory| {
            evaluate(workspace, weights, sequences, &read, (memory, Site::Eval))
        })
    }

    /// Hands out what a checkpoint holds, to be written somewhere.
    pub fn save<R>(&mut self, mut write: impl FnMut(Saved<T>) -> Result<R>) -> Result<R> {
        let (weights, optimizer, products) = (&self.weights, &self.optimizer, &self.products);
        self.workspaces.run_beside(|rung, memory, recoveries| {
            memory.enter(Site::Checkpoint)?;
            write(Saved {
                weights,
                m: &optimizer.m,
                v: &optimizer.v,
                rung,
                products: products.table(),
                recoveries: std::mem::take(recoveries),
            })
        })
    }

    /// The gradients of the last step, flat in the layout's order, before clipping.
    pub fn gradients(&self) -> &[T] {
        &self.gradients
    }

    pub fn rung(&self) -> Rung {
        self.workspaces.rung()
    }

    pub fn memory(&self) -> &Memory {
        self.workspaces.memory()
    }

    /// What was recovered from since the last call.
    pub fn take_recoveries(&mut self) -> Vec<Recovery> {
        self.workspaces.take_recoveries()
    }

    /// What was decided about matrix products since the last call.
    pub fn take_choices(&mut self) -> Vec<NamedChoice> {
        self.products.take_choices()
    }
}

fn dropout(settings: &StepSettings, dims: &ModelDims, step: u64, first: usize) -> Option<Dropout> {
    (dims.dropout > 0.0).then_some(Dropout {
        p: dims.dropout,
        seed: settings.seed,
        step: step as u32,
        first_sample: first as u32,
    })
}

impl StepOutcome {
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.gradient_norm.is_finite()
    }
}

/// Tuning holds no more than the buffers do that are made after it, so that the plan counts for it, too.
fn room_for_tuning(dims: &ModelDims, rung: Rung, memory: &Memory) -> u64 {
    let mut planned = Planned::sum(Precision::Float32);
    let engine = Engine::Cpu { threads: 1 };
    plan_buffers(dims, rung, engine, Purpose::Training, &mut planned);
    let room = memory.room_bytes().unwrap_or(u64::MAX);
    planned.total_bytes().min(room)
}

/// The token ids of a micro-batch.
pub(crate) struct Tokens<I> {
    inputs: I,
    targets: I,
}

impl<I> Tokens<I> {
    pub fn new<A: Allocator<Ids = I>>(rows: usize, memory: &mut A) -> Result<Self, A::Error> {
        Ok(Self {
            inputs: memory.ids(Group::Workspaces, format_args!("inputs"), rows)?,
            targets: memory.ids(Group::Workspaces, format_args!("targets"), rows)?,
        })
    }
}

impl Tokens<Vec<u32>> {
    /// Samples `first..first + count`.
    pub fn fill(
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

/// In f64 and in row order, so that it does not depend on the micro-batch.
pub(crate) fn sum<T: Element>(losses: &[T]) -> f64 {
    losses.iter().map(|loss| loss.widen()).sum()
}
