//! One optimizer step: accumulate, which may be retried, then commit, which may not.

pub mod evaluation;
mod lasting;
pub mod loss_scale;
mod micro;
pub mod recovery;

use std::rc::Rc;

use crate::faults::Site;
use crate::memory::{AllocationError, Memory, Planned, Recoverable};
use crate::model::{ParamLayout, plan_buffers};
use crate::ops::backend::{
    Backend, BatchHeader, Ended, GradientWrite, OptimizerSettings, StoredBackend, TrainingState,
    Update, ValuesMut, plan_batch,
};
use crate::ops::gemm::{Problem, Table};
use crate::rng::Seed;
use crate::schedule::Schedule;
use crate::step::loss_scale::LossScale;
use crate::step::recovery::{Recovery, Workspaces};
use crate::terms::{Engine, ModelDims, NamedChoice, Purpose, Rung};
use evaluation::Evaluation;

pub use lasting::Lasting;
pub(crate) use micro::Workspace;
use micro::{DropoutSettings, MicroStep, micro_batches};

/// Writes one sample: `T` inputs and the `T` targets that follow them. The number given is the
/// sample's index within its step or evaluation.
pub trait ReadSample<E>: Fn(u32, &mut [u32], &mut [u32]) -> Result<(), E> {}
impl<E, F: Fn(u32, &mut [u32], &mut [u32]) -> Result<(), E>> ReadSample<E> for F {}

/// The settings of a step, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSettings {
    pub seed: Seed,
    pub sequences_per_step: usize,
    pub optimizer: OptimizerSettings,
    pub schedule: Schedule,
}

/// A model and the state of its training.
pub struct Trainer<B: Backend> {
    settings: StepSettings,
    backend: Rc<B>,
    dims: ModelDims,
    pub layout: ParamLayout,
    pub state: Lasting<B::Compute, B::Full>,
    tally: B::Tally,
    optimizer: B::Optimizer,
    /// Moves only in float16.
    pub loss_scale: LossScale,
    workspaces: Workspaces<Workspace<B>>,
}

/// The state of training, borrowed while it is written.
pub struct Saved<'a, B: Backend> {
    pub state: &'a Lasting<B::Compute, B::Full>,
    pub loss_scale: LossScale,
    /// The rung that training goes on with.
    pub rung: Rung,
    /// The winners among the candidates for its GEMMs.
    pub products: Table,
    /// Recoveries since the last save; written into this checkpoint.
    pub recoveries: Vec<Recovery>,
}

/// The outcome of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
    /// Mean over every token of the step, in nats.
    pub loss: f64,
    /// Global L2 norm before clipping.
    pub gradient_norm: f64,
    pub learning_rate: f64,
}

/// Notes in `memory` every buffer of a [`Trainer`] at one rung.
pub fn plan_training(dims: &ModelDims, rung: Rung, engine: Engine, memory: &mut Planned) {
    let parameters = ParamLayout::new(dims).len;
    let Ok(_) = Lasting::new(parameters, memory);
    plan_buffers(dims, rung, engine, Purpose::Training, memory);
    let Ok(()) = plan_batch(rung.micro_batch * dims.block_size, engine, memory);
}

impl<B: Backend> Trainer<B> {
    /// Allocates everything that training needs, at the first rung of `ladder` that memory is
    /// granted for; weights and moments are zero. Before the buffers of a rung are made, its products are
    /// prepared.
    ///
    /// # Errors
    /// When memory is refused at every rung.
    pub fn new(
        dims: &ModelDims,
        backend: B,
        ladder: Vec<Rung>,
        settings: StepSettings,
        memory: Memory,
    ) -> Result<Self, AllocationError> {
        let layout = ParamLayout::new(dims);
        let parameters = layout.len;
        let backend = Rc::new(backend);
        let (lasting_backend, build_backend) = (backend.clone(), backend.clone());
        let build_dims = dims.clone();
        let (workspaces, (state, tally, optimizer)) = Workspaces::allocate(
            memory,
            ladder,
            |memory| {
                let state = Lasting::new(parameters, &mut lasting_backend.allocator(memory))?;
                let numbers = lasting_backend.tally().and_then(|tally| {
                    let decays = ParamLayout::new(dims).decay_runs();
                    Ok((tally, lasting_backend.optimizer(&decays)?))
                });
                let (tally, optimizer) =
                    numbers.map_err(|refused| memory.refusal(Site::Launch, refused))?;
                Ok((state, tally, optimizer))
            },
            move |rung, memory| {
                let (dims, backend) = (&build_dims, &build_backend);
                let gemms = Problem::of_training(dims, rung, backend.inputs());
                backend.prepare(
                    &gemms,
                    Some(room_for_tuning(dims, rung, &**backend, memory)),
                );
                Workspace::new(dims, rung, backend, Purpose::Training, memory)
            },
        )?;
        Ok(Self {
            loss_scale: LossScale::new(backend.inputs()),
            backend,
            settings,
            dims: dims.clone(),
            layout,
            state,
            tally,
            optimizer,
            workspaces,
        })
    }

    /// Step number `step`, counted from 0. A step whose loss or gradient is not finite changes
    /// nothing; the caller sees it in the outcome. In float16 it is first done again with smaller loss
    /// scales: a gradient that overflowed costs time, never a sample.
    ///
    /// # Errors
    /// The errors of `read` and of the device, and when memory is refused at every rung.
    pub fn step<E: Recoverable>(
        &mut self,
        step: u64,
        read: impl ReadSample<E>,
    ) -> Result<StepOutcome, E> {
        loop {
            self.accumulate(step, &read)?;
            let ended = self.commit(step)?;
            if self.loss_scale.try_again(&ended) {
                continue;
            }
            let tokens = self.settings.sequences_per_step * self.dims.block_size;
            return Ok(StepOutcome {
                loss: ended.loss / tokens as f64,
                gradient_norm: ended.gradient_norm,
                learning_rate: self.settings.schedule.at(step),
            });
        }
    }

    /// Computes the gradients of the step's mean loss times the loss scale, from zero. Can be repeated: it changes
    /// nothing that it reads.
    fn accumulate<E: Recoverable>(
        &mut self,
        step: u64,
        read: &impl ReadSample<E>,
    ) -> Result<(), E> {
        let (settings, dims, backend) = (&self.settings, &self.dims, &*self.backend);
        let (state, tally) = (&mut self.state, &mut self.tally);
        let (weights, gradients) = (&state.weights, &mut state.gradients);
        let sequences = settings.sequences_per_step;
        let scale = self.loss_scale.value() / (sequences * dims.block_size) as f64;
        self.workspaces.run(|workspace, memory| {
            let begun = backend.reset(tally).and_then(|()| backend.begin(gradients));
            let mut write = begun.map_err(|refused| memory.refusal(Site::Forward, refused))?;
            for samples in micro_batches(sequences, workspace.gpt.max_sequences()) {
                let work = MicroStep {
                    backend,
                    weights,
                    count: samples.len(),
                    dropout: (dims.dropout > 0.0).then_some(DropoutSettings {
                        p: dims.dropout,
                        seed: settings.seed,
                    }),
                };
                let header = BatchHeader {
                    step: step as u32,
                    first_sample: samples.start as u32,
                    scale,
                };
                workspace.load(backend, samples, header, read, memory, Site::Forward)?;
                memory.enter(Site::Forward)?;
                work.forward(workspace)
                    .map_err(|refused| memory.refusal(Site::Forward, refused))?;
                memory.enter(Site::Backward)?;
                work.backward(workspace, gradients, write, tally)
                    .map_err(|refused| memory.refusal(Site::Backward, refused))?;
                write = GradientWrite::Accumulate;
            }
            Ok(())
        })
    }

    /// Clips and updates. Never repeated for a step.
    fn commit(&mut self, step: u64) -> Result<Ended, AllocationError> {
        let update = Update {
            settings: self.settings.optimizer,
            learning_rate: self.settings.schedule.at(step),
            number: step + 1,
            loss_scale: self.loss_scale.value(),
        };
        let state = TrainingState::<B> {
            weights: &mut self.state.weights,
            master: self.state.master.as_mut(),
            m: &mut self.state.m,
            v: &mut self.state.v,
            gradients: &self.state.gradients,
        };
        let ended = self
            .backend
            .update(&mut self.optimizer, state, &update, &mut self.tally);
        ended.map_err(|refused| self.workspaces.memory().refusal(Site::Update, refused))
    }

    /// The mean loss over `sequences` samples, in nats per token, without dropout.
    ///
    /// # Errors
    /// Those of [`Trainer::step`].
    pub fn evaluate<E: Recoverable>(
        &mut self,
        sequences: usize,
        read: impl ReadSample<E>,
    ) -> Result<f64, E> {
        let (backend, weights, tally) = (&*self.backend, &self.state.weights, &mut self.tally);
        self.workspaces.run(|workspace, memory| {
            let evaluation = Evaluation {
                backend,
                weights,
                tally: &mut *tally,
                site: Site::Eval,
            };
            evaluation.mean_loss(workspace, sequences, &read, memory)
        })
    }

    /// Hands out what a checkpoint holds, to be written somewhere.
    ///
    /// # Errors
    /// The errors of `write`, and when memory is refused for good.
    pub fn save<R, E: Recoverable>(
        &mut self,
        mut write: impl FnMut(&B, Saved<B>) -> Result<R, E>,
    ) -> Result<R, E> {
        let (state, backend, loss_scale) = (&self.state, &*self.backend, self.loss_scale);
        self.workspaces.run_beside(|rung, memory, recoveries| {
            memory.enter(Site::Checkpoint)?;
            let saved = Saved {
                state,
                loss_scale,
                rung,
                products: backend.products(),
                recoveries: std::mem::take(recoveries),
            };
            write(backend, saved)
        })
    }

    /// Does `work`, which can be repeated, with the state of training; again when memory is refused, without the
    /// buffers of a rung.
    fn with_state<R, E: Recoverable>(
        &mut self,
        mut work: impl FnMut(&B, &mut Lasting<B::Compute, B::Full>, &Memory) -> Result<R, E>,
    ) -> Result<R, E> {
        let (backend, state) = (&*self.backend, &mut self.state);
        self.workspaces
            .run_beside(|_, memory, _| work(backend, state, memory))
    }

    pub fn backend(&self) -> &B {
        &self.backend
    }

    pub fn rung(&self) -> Rung {
        self.workspaces.rung()
    }

    pub fn memory(&self) -> &Memory {
        self.workspaces.memory()
    }

    /// Recoveries since the last call.
    pub fn take_recoveries(&mut self) -> Vec<Recovery> {
        self.workspaces.take_recoveries()
    }

    /// Choices about GEMMs since the last call.
    pub fn take_choices(&mut self) -> Vec<NamedChoice> {
        self.backend.take_choices()
    }
}

impl<B: StoredBackend> Trainer<B> {
    /// Lets `load` write the weights, in fp32, and both moments, again if memory is refused to it.
    ///
    /// # Errors
    /// The errors of `load` and of the device, and when memory is refused for good.
    pub fn load<E: Recoverable>(
        &mut self,
        mut load: impl FnMut([&mut dyn ValuesMut; 3], &Memory) -> Result<(), E>,
    ) -> Result<(), E> {
        self.with_state(|backend, state, memory| {
            let mut weights = match &mut state.master {
                Some(master) => backend.values_mut(master),
                None => backend.weights_mut(&mut state.weights),
            };
            let mut m = backend.values_mut(&mut state.m);
            let mut v = backend.values_mut(&mut state.v);
            load([&mut *weights, &mut *m, &mut *v], memory)?;
            drop(weights);
            if let Some(master) = &state.master {
                let rounded = backend.round(master, &mut state.weights);
                rounded.map_err(|refused| memory.refusal(Site::Launch, refused))?;
            }
            Ok(())
        })
    }
}

impl StepOutcome {
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.gradient_norm.is_finite()
    }
}

/// Bytes that tuning may hold: no more than the buffers that are made after it, so that the plan covers tuning, too.
fn room_for_tuning<B: Backend>(dims: &ModelDims, rung: Rung, backend: &B, memory: &Memory) -> u64 {
    let room = memory.room_bytes().unwrap_or(u64::MAX);
    if backend.engine() == Engine::Cuda {
        return room;
    }
    let mut planned = Planned::sum(backend.precision());
    plan_buffers(
        dims,
        rung,
        backend.engine(),
        Purpose::Training,
        &mut planned,
    );
    planned.total_bytes().min(room)
}
