//! The optimizer of a GPU: the numbers that an update reads, a few of them in the memory of the GPU, part of the
//! plan's reserve.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DeviceRepr, DriverError, ValidAsZeroBits};

use super::OnGpu;
use super::adamw::{self, AdamWInputViews, AdamWRule, AdamWStateViews, decay_edges};
use super::outcome::{self, Outcome, StepGradientViews};
use super::recording::Recording;
use super::tally::Tally;
use crate::memory::Refused;
use crate::ops::backend::{Backend, DecayRun, Ended, TrainingState, Update};
use crate::ops::launch::host::{Pinned, upload_new};
use crate::ops::launch::{Gpu, GpuElement, LaunchError};

/// The state of AdamW that is neither a weight nor a moment.
pub struct Optimizer {
    numbers: Numbers,
    recording: Recording,
}

/// The numbers that an update reads, or writes on the way.
struct Numbers {
    partials: CudaSlice<f32>,
    rule: FromHost<AdamWRule>,
    loss_scale: FromHost<f32>,
    decay_edges: CudaSlice<u64>,
}

/// A number that the host gives with every update, without waiting for the GPU.
struct FromHost<T> {
    /// Dropped first: it waits for its copy.
    host: Pinned<T>,
    device: CudaSlice<T>,
}

impl<T: DeviceRepr + ValidAsZeroBits> FromHost<T> {
    fn new(stream: &Arc<CudaStream>) -> Result<Self, DriverError> {
        Ok(Self {
            host: Pinned::new(stream.context(), 1)?,
            device: stream.alloc_zeros(1)?,
        })
    }

    fn set(&mut self, stream: &Arc<CudaStream>, value: T) -> Result<(), DriverError> {
        self.host.write()?[0] = value;
        self.host.send(stream, &mut self.device)
    }
}

impl Optimizer {
    pub(super) fn new(stream: &Arc<CudaStream>, decays: &[DecayRun]) -> Result<Self, DriverError> {
        let parameters = decays.last().map_or(0, |run| run.elements.end);
        let runs = decays.iter().map(|run| (run.elements.clone(), run.decays));
        Ok(Self {
            numbers: Numbers {
                partials: stream.alloc_zeros(outcome::partials_len(parameters))?,
                rule: FromHost::new(stream)?,
                loss_scale: FromHost::new(stream)?,
                decay_edges: upload_new(stream, &decay_edges(runs))?,
            },
            recording: Recording::default(),
        })
    }

    /// See [`Backend::update`].
    pub(super) fn update<T: GpuElement>(
        &mut self,
        backend: &OnGpu<T>,
        mut state: TrainingState<OnGpu<T>>,
        update: &Update,
        tally: &mut Tally,
    ) -> Result<Ended, Refused> {
        let (gpu, stream) = (backend.gpu(), backend.gpu().stream());
        let rule = AdamWRule::from(&update.rule(true, 1.0));
        self.numbers.rule.set(stream, rule)?;
        self.numbers
            .loss_scale
            .set(stream, update.loss_scale as f32)?;
        let (outcome, numbers) = (tally.outcome(), &mut self.numbers);
        let clip = update.settings.grad_clip;
        backend.record(&mut self.recording, || {
            Ok(numbers.launch(gpu, &mut state, clip, outcome)?)
        })?;
        // The weights may be updated by now: no refusal, after which they would be those of the step before.
        let outcome = tally
            .read(stream)
            .map_err(|error| Refused::Device(error.to_string()))?;
        Ok(Ended {
            loss: outcome.loss,
            gradient_norm: outcome.gradient_norm,
        })
    }
}

impl Numbers {
    fn launch<T: GpuElement>(
        &mut self,
        gpu: &Gpu,
        state: &mut TrainingState<OnGpu<T>>,
        clip: f64,
        outcome: &mut CudaSlice<Outcome>,
    ) -> Result<(), LaunchError> {
        let gradients = state.gradients.as_view();
        let step = StepGradientViews {
            gradients: &gradients,
            loss_scale: &self.loss_scale.device.as_view(),
            clip,
        };
        let partials = &mut self.partials.as_view_mut();
        outcome::finish(gpu, step, &mut outcome.as_view_mut(), partials)?;
        let len = state.weights.len();
        let mut weights = state.weights.as_view_mut();
        let (mut master, copy) = match &mut state.master {
            Some(master) => (master.as_view_mut(), Some(&mut weights)),
            // SAFETY: without master weights, T is f32.
            None => match unsafe { weights.transmute_mut(len) } {
                Some(weights) => (weights, None),
                None => unreachable!("weights without a master are f32"),
            },
        };
        let state = AdamWStateViews {
            weights: &mut master,
            m: &mut state.m.as_view_mut(),
            v: &mut state.v.as_view_mut(),
            copy,
        };
        let reads = AdamWInputViews {
            gradients: &gradients,
            decay_edges: &self.decay_edges.as_view(),
            rule: &self.rule.device.as_view(),
            outcome: &outcome.as_view(),
        };
        adamw::update(gpu, state, reads)
    }
}
