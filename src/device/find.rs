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
    /// The one that the GPU was looked at in. A run that opens the GPU goes on in it: to make one takes up to a second.
    #[cfg(feature = "cuda")]
    pub context: Option<std::sync::Arc<cudarc::driver::CudaContext>>,
}

impl Found {
    fn cpu(because: String) -> Self {
        Self {
            profile: DeviceProfile::cpu(),
            ordinal: None,
            because,
            #[cfg(feature = "cuda")]
            context: None,
        }
    }

    #[cfg(feature = "cuda")]
    fn gpu(ordinal: usize, because: &str) -> Result<Self, DeviceError> {
        let (profile, context) = super::cuda::probe(ordinal)?;
        Ok(Self {
            profile,
            ordinal: Some(ordinal),
            because: because.into(),
            context: Some(context),
        })
    }

    #[cfg(not(feature = "cuda"))]
    fn gpu(_: usize, _: &str) -> Result<Self, DeviceError> {
        Err(DeviceError::NoCuda)
    }
}

/// The device that is asked for. `auto` is the first GPU where there is one, and the CPU where there is none:
/// a GPU that is there and fails is never passed over.
///
/// # Errors
/// When the GPU cannot be had.
pub fn find(request: DeviceRequest) -> Result<Found, DeviceError> {
    match request {
        DeviceRequest::Cpu => Ok(Found::cpu("`system.device` says so".into())),
        DeviceRequest::Cuda(ordinal) => Found::gpu(ordinal, "`system.device` says so"),
        DeviceRequest::Auto => match Found::gpu(0, "the first GPU of this machine") {
            Err(
                none @ (DeviceError::NoCuda | DeviceError::NoDriver { .. } | DeviceError::NoGpu),
            ) => Ok(Found::cpu(none.to_string())),
            found => found,
        },
    }
}
