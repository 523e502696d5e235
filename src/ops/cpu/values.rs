//! Buffers on the CPU as the values that checkpoints read and write.

use super::OnCpu;
use crate::memory::Refused;
use crate::ops::backend::{StoredBackend, Values, ValuesMut};

impl StoredBackend for OnCpu<f32> {
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

    /// Does nothing: there are no master weights.
    fn round(&self, _master: &Vec<f32>, _weights: &mut Vec<f32>) -> Result<(), Refused> {
        Ok(())
    }
}
