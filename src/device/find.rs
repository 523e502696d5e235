//! Choice of the device that a run is on.

use super::{DeviceError, DeviceProfile};
use crate::config::DeviceRequest;

/// A device of this machine.
#[derive(Clone, Debug)]
pub struct FoundDevice {
    pub profile: DeviceProfile,
    /// Number of the GPU, as CUDA counts; `None` for the CPU.
    pub ordinal: Option<usize>,
    pub because: String,
    /// Context in which the GPU was probed. A run that opens the GPU keeps it: making one takes up to a second.
    #[cfg(feature = "cuda")]
    pub context: Option<std::sync::Arc<cudarc::driver::CudaContext>>,
}

impl FoundDevice {
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

/// Finds the requested device. `auto` is the first GPU if there is one, else the CPU. A GPU that is there and fails
/// is never passed over.
///
/// # Errors
/// [`DeviceError`] when the GPU cannot be used.
pub fn find(request: DeviceRequest) -> Result<FoundDevice, DeviceError> {
    match request {
        DeviceRequest::Cpu => Ok(FoundDevice::cpu("`system.device` says so".into())),
        DeviceRequest::Cuda(ordinal) => FoundDevice::gpu(ordinal, "`system.device` says so"),
        DeviceRequest::Auto => match FoundDevice::gpu(0, "the first GPU of this machine") {
            Err(
                none @ (DeviceError::NoCuda | DeviceError::NoDriver { .. } | DeviceError::NoGpu),
            ) => Ok(FoundDevice::cpu(none.to_string())),
            found => found,
        },
    }
}
