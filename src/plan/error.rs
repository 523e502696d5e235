//! Failures to plan.

use super::Refusal;
use crate::device::DeviceError;

/// A request that has no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The device has no kernels.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The parts of the request contradict each other, or the device cannot do what is asked for.
    #[error("{what}")]
    Contradiction { what: String, hint: String },
    /// Not even the smallest launch fits.
    #[error(transparent)]
    DoesNotFit(Box<Refusal>),
}

impl From<Refusal> for PlanError {
    fn from(refusal: Refusal) -> Self {
        Self::DoesNotFit(Box::new(refusal))
    }
}

impl PlanError {
    /// A literal edit that would help.
    pub fn hint(&self) -> String {
        match self {
            Self::Device(error) => error.hint(),
            Self::Contradiction { hint, .. } => hint.clone(),
            Self::DoesNotFit(refusal) => refusal.hint(),
        }
    }
}
