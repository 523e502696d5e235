//! Weights and moments of any backend as checkpoints see them.

use super::{Values, ValuesMut};
use crate::error::Result;
use crate::faults::Site;
use crate::memory::{Memory, Refused};
use crate::ops::backend::Backend;
use crate::ops::cpu::OnCpu;
use crate::step::{Lasting, Trainer};

/// A backend whose training can be saved and gone on with.
pub trait Stored: Backend {
    fn values<'a>(&'a self, buffer: &'a Self::Full) -> Box<dyn Values + 'a>;
    fn values_mut<'a>(&'a self, buffer: &'a mut Self::Full) -> Box<dyn ValuesMut + 'a>;
    /// The weights that the model computes with, widened to f32.
    fn weights<'a>(&'a self, weights: &'a Self::Compute) -> Box<dyn Values + 'a>;
    /// What is written is rounded to their precision.
    fn weights_mut<'a>(&'a self, weights: &'a mut Self::Compute) -> Box<dyn ValuesMut + 'a>;
    /// `weights` become `master`, rounded.
    ///
    /// # Errors
    /// What the device says.
    fn round(&self, master: &Self::Full, weights: &mut Self::Compute) -> Result<(), Refused>;
}

impl<C, F> Lasting<C, F> {
    /// The weights in fp32.
    pub fn full_weights<'a, B>(&'a self, backend: &'a B) -> Box<dyn Values + 'a>
    where
        B: Stored<Compute = C, Full = F>,
    {
        match &self.master {
            Some(master) => backend.values(master),
            None => backend.weights(&self.weights),
        }
    }
}

impl<B: Stored> Trainer<B> {
    /// Lets `load` write the weights, in fp32, and both moments, again if memory is refused to it.
    ///
    /// # Errors
    /// What `load` or the device says, and when memory is refused for good.
    pub fn load(
        &mut self,
        mut load: impl FnMut([&mut dyn ValuesMut; 3], &Memory) -> Result<()>,
    ) -> Result<()> {
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

impl Stored for OnCpu<f32> {
    fn values<'a>(&'a self, buffer: &'a Vec<f32>) -> Box<dyn Values + 'a> {
        Box::new(buffer.as_slice())
    }

    fn values_mut<'a>(&'a self, buffer: &'a mut Vec<f32>) -> Box<dyn ValuesMut + 'a> {
        Box::new(buffer.as_mut_slice())
    }

    fn weights<'a>(&'a self, weights: &'a Vec<f32>) -> Box<dyn Values + 'a> {
        self.values(weights)
    }

    fn weights_mut<'a>(&'a self, weights: &'a mut Vec<f32>) -> Box<dyn ValuesMut + 'a> {
        self.values_mut(weights)
    }

    /// Nothing to do: there is no master beside the weights.
    fn round(&self, _master: &Vec<f32>, _weights: &mut Vec<f32>) -> Result<(), Refused> {
        Ok(())
    }
}
