//! The loss so far, in the memory of the GPU, part of the plan's reserve.

use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DriverError};

use super::outcome::Outcome;
use crate::ops::launch::host::download;

/// See [`Backend::tally`](crate::ops::backend::Backend::tally).
pub struct Tally {
    outcome: CudaSlice<Outcome>,
}

impl Tally {
    pub(super) fn new(stream: &Arc<CudaStream>) -> Result<Self, DriverError> {
        Ok(Self {
            outcome: stream.alloc_zeros(1)?,
        })
    }

    pub(super) fn outcome(&mut self) -> &mut CudaSlice<Outcome> {
        &mut self.outcome
    }

    /// Waits for the GPU.
    pub(super) fn read(&self, stream: &Arc<CudaStream>) -> Result<Outcome, DriverError> {
        let outcome = download(stream, &self.outcome)?;
        Ok(outcome[0])
    }
}
