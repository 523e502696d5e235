//! Which device a run is on.

use super::{DeviceError, DeviceProfile};
use crate::config::DeviceRequest;

/// A device of this machine.
#[derive(Clone, Debug)]
pub struct Found {
    pub profile: DeviceProfile,
    /// As CUDA counts; `None` for the CPU.
    pub ordinal: Option<usize>,
    pub because: String,
}

impl Found {
    fn cpu(because: String) -> Self {
        Self {
            profile: DeviceProfile::cpu(),
            ordinal: None,
            because,
        }
    }
}

/// The device that is asked for. `auto` is the first GPU where there is one, and the CPU where there is none:
/// a GPU that is there and fails is never passed over.
///
/// # Errors
/// When the GPU cannot be had.
pub fn find(request: DeviceRequest) -> Result<Found, DeviceError> {
    let gpu = |ordinal, because: &str| {
        DeviceProfile::gpu(ordinal).map(|profile| Found {
            profile,
            ordinal: Some(ordinal),
            because: because.into(),
        })
    };
    match request {
        DeviceRequest::Cpu => Ok(Found::cpu("`system.device` says so".into())),
        DeviceRequest::Cuda(ordinal) => gpu(ordinal, "`system.device` says so"),
        DeviceRequest::Auto => match gpu(0, "the first GPU of this machine") {
            Err(
                none @ (DeviceError::NoCuda | DeviceError::NoDriver { .. } | DeviceError::NoGpu),
            ) => Ok(Found::cpu(none.to_string())),
            found => found,
        },
    }
}
