//! The loss so far, and the numbers that an update reads beside the training state: in the memory of the GPU, part of
//! the plan's reserve.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DeviceRepr, DriverError, ValidAsZeroBits};

use super::OnGpu;
use super::adamw::{self, AdamWInputViews, AdamWRule, AdamWStateViews, decay_edges};
use super::graph::Graph;
use super::outcome::{self, Outcome, StepGradientViews};
use crate::memory::Refused;
use crate::ops::backend::{Accept, Buffer, DecayRun, Ended, TrainingState, Update};
use crate::ops::launch::host::{Pinned, download, upload_new};
use crate::ops::launch::{Gpu, GpuElement, LaunchError};

/// See [`Backend::numbers`](crate::ops::backend::Backend::numbers).
pub(super) struct Numbers {
    outcome: CudaSlice<Outcome>,
    /// `None` without updates.
    optimizer: Option<Optimizer>,
}

/// The state of AdamW that is neither a weight nor a moment.
struct Optimizer {
    inputs: UpdateInputs,
    graph: Graph,
}

/// The numbers that an update reads, or writes on the way.
struct UpdateInputs {
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

impl Numbers {
    pub fn new(stream: &Arc<CudaStream>, decays: &[DecayRun]) -> Result<Self, DriverError> {
        Ok(Self {
            outcome: stream.alloc_zeros(1)?,
            optimizer: match decays.last() {
                Some(last) => Some(Optimizer {
                    inputs: UpdateInputs::new(stream, decays, last.elements.end)?,
                    graph: Graph::default(),
                }),
                None => None,
            },
        })
    }

    pub fn outcome(&mut self) -> &mut CudaSlice<Outcome> {
        &mut self.outcome
    }

    /// The outcome so far. Waits for the GPU.
    pub fn read(&self, stream: &Arc<CudaStream>) -> Result<Outcome, DriverError> {
        let outcome = download(stream, &self.outcome)?;
        Ok(outcome[0])
    }

    /// See [`Backend::update`](crate::ops::backend::Backend::update).
    pub fn update<T: GpuElement>(
        &mut self,
        backend: &OnGpu<T>,
        state: TrainingState,
        update: &Update,
        accept: Option<Accept>,
    ) -> Result<Ended, Refused> {
        let Some(Optimizer { inputs, graph }) = &mut self.optimizer else {
            unreachable!("an update of no parameters");
        };
        let (gpu, stream) = (&backend.gpu, &backend.stream);
        let rule = AdamWRule::from(&update.rule(true, 1.0));
        inputs.rule.set(stream, rule)?;
        inputs.loss_scale.set(stream, update.loss_scale as f32)?;
        let (outcome, clip) = (&mut self.outcome, update.settings.grad_clip);
        // The weights may be updated by then: no refusal, after which they would be those of the step before.
        let failed = |error: DriverError| Refused::Device(error.to_string());
        let Some(accept) = accept else {
            backend.replay(graph, || {
                inputs.finish(gpu, &state, clip, outcome)?;
                Ok(inputs.apply::<T>(gpu, state, outcome)?)
            })?;
            return self.ended(stream).map_err(failed);
        };
        inputs.finish(gpu, &state, clip, outcome)?;
        let ended = self.ended(stream)?;
        if ended.is_finite() && accept(&ended) {
            let Some(Optimizer { inputs, .. }) = &mut self.optimizer else {
                unreachable!("an update of no parameters");
            };
            inputs.apply::<T>(gpu, state, &self.outcome)?;
            stream.synchronize().map_err(failed)?;
        }
        Ok(ended)
    }

    /// Loss and gradient norm of the step. Waits for the GPU.
    fn ended(&self, stream: &Arc<CudaStream>) -> Result<Ended, DriverError> {
        let outcome = self.read(stream)?;
        Ok(Ended {
            loss: outcome.loss,
            gradient_norm: outcome.gradient_norm,
        })
    }
}

impl UpdateInputs {
    fn new(
        stream: &Arc<CudaStream>,
        decays: &[DecayRun],
        parameters: usize,
    ) -> Result<Self, DriverError> {
        let runs = decays.iter().map(|run| (run.elements.clone(), run.decays));
        Ok(Self {
            partials: stream.alloc_zeros(outcome::partials_len(parameters))?,
            rule: FromHost::new(stream)?,
            loss_scale: FromHost::new(stream)?,
            decay_edges: upload_new(stream, &decay_edges(runs))?,
        })
    }

    /// Completes the outcome.
    fn finish(
        &mut self,
        gpu: &Gpu,
        state: &TrainingState,
        clip: f64,
        outcome: &mut CudaSlice<Outcome>,
    ) -> Result<(), LaunchError> {
        let gradients = state.gradients.read::<CudaSlice<f32>>();
        let step = StepGradientViews {
            gradients: &gradients.as_view(),
            loss_scale: &self.loss_scale.device.as_view(),
            clip,
        };
        let partials = &mut self.partials.as_view_mut();
        outcome::finish(gpu, step, &mut outcome.as_view_mut(), partials)
    }

    /// Updates the weights and their moments by a complete outcome.
    fn apply<T: GpuElement>(
        &self,
        gpu: &Gpu,
        state: TrainingState,
        outcome: &CudaSlice<Outcome>,
    ) -> Result<(), LaunchError> {
        let gradients = state.gradients.read::<CudaSlice<f32>>();
        let gradients = gradients.as_view();
        let (mut weights, mut master) = (
            state.weights.write::<CudaSlice<T>>(),
            state.master.map(Buffer::write::<CudaSlice<f32>>),
        );
        let (len, mut weights) = (weights.len(), weights.as_view_mut());
        let (mut master, copy) = match &mut master {
            Some(master) => (master.as_view_mut(), Some(&mut weights)),
            // SAFETY: without master weights, T is f32.
            None => match unsafe { weights.transmute_mut(len) } {
                Some(weights) => (weights, None),
                None => unreachable!("weights without a master are f32"),
            },
        };
        let (mut m, mut v) = (
            state.m.write::<CudaSlice<f32>>(),
            state.v.write::<CudaSlice<f32>>(),
        );
        let state = AdamWStateViews {
            weights: &mut master,
            m: &mut m.as_view_mut(),
            v: &mut v.as_view_mut(),
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
