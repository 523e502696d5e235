//! One optimizer step: accumulate, which may be retried, then commit, which may not.

pub mod evaluation;
pub mod inference;
pub mod loss_scale;
mod micro;
pub mod recovery;
pub mod scoring;

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::faults::Site;
use crate::memory::{AllocationError, Memory, Recoverable};
use crate::model::{Executor, ParamLayout, Program, State, Workspace};
use crate::ops::backend::{
    Accept, Backend, BatchHeader, DropoutSettings, Ended, GradientWrite, OptimizerSettings, Update,
    Values, ValuesMut,
};
use crate::ops::gemm::Table;
use crate::outliers::{Outliers, SkipSettings, SkippedUpdate};
use crate::rng::Seed;
use crate::schedule::Schedule;
use crate::step::loss_scale::LossScale;
use crate::step::recovery::{Recovery, Workspaces};
use crate::terms::{Engine, Job, ModelDims, NamedChoice, Rung};
use evaluation::mean_loss;
use micro::{load, micro_batches};
use scoring::Scoring;

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
    pub skip: SkipSettings,
}

/// A model and the state of its training.
pub struct Trainer {
    settings: StepSettings,
    executor: Rc<Executor>,
    dims: ModelDims,
    pub layout: ParamLayout,
    state: State,
    /// Moves only in float16.
    pub loss_scale: LossScale,
    /// Times of the last step.
    pub times: StepTimes,
    /// Moves only with a guard of [`StepSettings::skip`].
    pub outliers: Outliers,
    workspaces: Workspaces<Workspace>,
}

/// The state of training, borrowed while it is written.
pub struct Saved<'a> {
    /// In fp32.
    pub weights: &'a dyn Values,
    pub m: &'a dyn Values,
    pub v: &'a dyn Values,
    pub loss_scale: LossScale,
    pub outliers: &'a Outliers,
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
    /// Set where the update was left out: weights and moments are as before.
    pub skipped: Option<SkippedUpdate>,
}

/// Wall-clock time that the host spends in the parts of a step.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepTimes {
    /// Forward and backward, reading included; on a GPU, launching them.
    pub accumulate: Duration,
    /// Clipping and the update; on a GPU, waiting for all that was launched.
    pub commit: Duration,
}

impl Trainer {
    /// Allocates everything that training needs, at the first rung of `ladder` that memory is
    /// granted for; weights and moments are zero. Before the buffers of a rung are made, its GEMMs are
    /// prepared.
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
        settings: StepSettings,
        memory: Memory,
    ) -> Result<Self, AllocationError> {
        let executor = Rc::new(Executor::new(backend));
        let (engine, precision) = (executor.backend().engine(), executor.backend().precision());
        let (build_executor, build_dims) = (executor.clone(), dims.clone());
        let program = move |rung| Program::of(Job::Train, &build_dims, rung, engine, precision);
        // What lasts is the same at every rung.
        let lasting = program(ladder[0]);
        let (workspaces, state) = Workspaces::allocate(
            memory,
            ladder,
            |memory| State::allocate(&lasting, &executor, memory),
            move |rung, memory| {
                let backend = build_executor.backend();
                let program = program(rung);
                let room = room_for_tuning(&program, backend, memory);
                let gemms = program.gemms(backend.inputs());
                backend.prepare(&gemms, Some(room));
                Workspace::new(program, &build_executor, memory)
            },
        )?;
        Ok(Self {
            loss_scale: LossScale::new(executor.backend().inputs()),
            outliers: Outliers::default(),
            executor,
            settings,
            dims: dims.clone(),
            layout: lasting.params,
            times: StepTimes::default(),
            state,
            workspaces,
        })
    }

    /// Step number `step`, counted from 0. A step whose loss or gradient is not finite, or is an outlier, changes no weight and
    /// no moment; the caller sees it in the outcome. In float16 it is first done again with smaller loss
    /// scales: a gradient that overflowed costs time, never a sample.
    ///
    /// # Errors
    /// The errors of `read` and of the device, and when memory is refused at every rung.
    pub fn step<E: Recoverable>(
        &mut self,
        step: u64,
        read: impl ReadSample<E>,
    ) -> Result<StepOutcome, E> {
        self.times = StepTimes::default();
        loop {
            let started = Instant::now();
            self.accumulate(step, &read)?;
            let accumulated = Instant::now();
            let (ended, skipped) = self.commit(step)?;
            self.times.accumulate += accumulated - started;
            self.times.commit += accumulated.elapsed();
            if self.loss_scale.try_again(&ended) {
                continue;
            }
            let outcome = StepOutcome {
                loss: self.mean_loss(&ended),
                gradient_norm: ended.gradient_norm,
                learning_rate: self.settings.schedule.at(step),
                skipped,
            };
            if self.settings.skip.is_on() && outcome.is_finite() {
                let (loss, norm) = (outcome.loss, outcome.gradient_norm);
                self.outliers.push(loss, norm, skipped.is_some());
            }
            return Ok(outcome);
        }
    }

    /// Computes the gradients of the step's mean loss times the loss scale, from zero. Can be repeated: it changes
    /// nothing that it reads.
    fn accumulate<E: Recoverable>(
        &mut self,
        step: u64,
        read: &impl ReadSample<E>,
    ) -> Result<(), E> {
        let (settings, dims, state) = (&self.settings, &self.dims, &self.state);
        let sequences = settings.sequences_per_step;
        let scale = self.loss_scale.value() / (sequences * dims.block_size) as f64;
        let dropout = (dims.dropout > 0.0).then_some(DropoutSettings {
            p: dims.dropout,
            seed: settings.seed,
        });
        self.workspaces.run(|workspace, memory| {
            let begun = workspace.begin(state);
            let mut write = begun.map_err(|refused| memory.refusal(Site::Forward, refused))?;
            for samples in micro_batches(sequences, workspace.program().rung.micro_batch) {
                let count = samples.len();
                let header = BatchHeader {
                    step: step as u32,
                    first_sample: samples.start as u32,
                    scale,
                };
                load(workspace, samples, header, read, memory, Site::Forward)?;
                memory.enter(Site::Forward)?;
                let forward = workspace.forward(state, count, dropout);
                forward.map_err(|refused| memory.refusal(Site::Forward, refused))?;
                memory.enter(Site::Backward)?;
                let backward = workspace.backward(state, count, dropout, write);
                backward.map_err(|refused| memory.refusal(Site::Backward, refused))?;
                write = GradientWrite::Accumulate;
            }
            Ok(())
        })
    }

    /// Mean over every token of the step, in nats.
    fn mean_loss(&self, ended: &Ended) -> f64 {
        ended.loss / (self.settings.sequences_per_step * self.dims.block_size) as f64
    }

    /// Clips and updates, unless the step is an outlier. Never repeated for a step.
    fn commit(&mut self, step: u64) -> Result<(Ended, Option<SkippedUpdate>), AllocationError> {
        let update = Update {
            settings: self.settings.optimizer,
            learning_rate: self.settings.schedule.at(step),
            number: step + 1,
            loss_scale: self.loss_scale.value(),
        };
        let State { numbers, .. } = &self.state;
        let (state, parameters) = (self.state.training(), self.layout.len);
        let (skip, mut skipped) = (self.settings.skip, None);
        let mut accept = |ended: &Ended| {
            let loss = self.mean_loss(ended);
            skipped = self.outliers.judge(skip, loss, ended.gradient_norm);
            skipped.is_none()
        };
        let accept: Option<Accept> = skip.is_on().then_some(&mut accept);
        let ended = self
            .executor
            .update(numbers, state, parameters, &update, accept)
            .map_err(|refused| self.workspaces.memory().refusal(Site::Update, refused))?;
        Ok((ended, skipped))
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
        let state = &self.state;
        self.workspaces.run(|workspace, memory| {
            mean_loss(state, workspace, sequences, &read, memory, Site::Eval)
        })
    }

    /// Scores sequences in the buffers of the training, without dropout.
    ///
    /// # Errors
    /// Those of [`Trainer::step`].
    pub fn score<E: Recoverable>(&mut self, scoring: &mut impl Scoring<E>) -> Result<(), E> {
        let (state, mut done) = (&self.state, 0);
        self.workspaces.run(|workspace, memory| {
            scoring::score(state, workspace, scoring, &mut done, memory, Site::Eval)
        })
    }

    /// Hands out what a checkpoint holds, to be written somewhere.
    ///
    /// # Errors
    /// The errors of `write`, and when memory is refused for good.
    pub fn save<R, E: Recoverable>(
        &mut self,
        mut write: impl FnMut(Saved) -> Result<R, E>,
    ) -> Result<R, E> {
        let (state, loss_scale, outliers) = (&mut self.state, self.loss_scale, &self.outliers);
        let backend = self.executor.backend();
        self.workspaces.run_beside(|rung, memory, recoveries| {
            memory.enter(Site::Checkpoint)?;
            let [weights, m, v] = state.saved(backend);
            write(Saved {
                weights: &*weights,
                m: &*m,
                v: &*v,
                loss_scale,
                outliers,
                rung,
                products: backend.gemm_table(),
                recoveries: std::mem::take(recoveries),
            })
        })
    }

    /// Lets `load` write the weights, in fp32, and both moments, again if memory is refused to it.
    ///
    /// # Errors
    /// The errors of `load` and of the device, and when memory is refused for good.
    pub fn load<E: Recoverable>(
        &mut self,
        mut load: impl FnMut([&mut dyn ValuesMut; 3], &Memory) -> Result<(), E>,
    ) -> Result<(), E> {
        let (state, backend) = (&mut self.state, self.executor.backend());
        self.workspaces.run_beside(|_, memory, _| {
            let [mut weights, mut m, mut v] = state.saved(backend);
            load([&mut *weights, &mut *m, &mut *v], memory)?;
            drop((weights, m, v));
            let rounded = state.round_weights(backend);
            rounded.map_err(|refused| memory.refusal(Site::Launch, refused).into())
        })
    }

    /// The weights in fp32, and both moments: all that a checkpoint holds.
    pub fn values(&mut self) -> [Box<dyn ValuesMut + '_>; 3] {
        self.state.saved(self.executor.backend())
    }

    /// The gradients of the last step, times the loss scale.
    pub fn gradients(&mut self) -> Box<dyn ValuesMut + '_> {
        self.state.gradient_values(self.executor.backend())
    }

    pub fn executor(&self) -> &Executor {
        &self.executor
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
        self.executor.backend().take_choices()
    }
}

impl StepOutcome {
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.gradient_norm.is_finite()
    }
}

/// Bytes that tuning may hold: no more than the buffers that are made after it, so that the plan covers tuning, too.
fn room_for_tuning(program: &Program, backend: &dyn Backend, memory: &Memory) -> u64 {
    let room = memory.room_bytes().unwrap_or(u64::MAX);
    match backend.engine() {
        Engine::Cuda => room,
        Engine::Cpu { .. } => program.workspace_bytes(backend.precision()).min(room),
    }
}
