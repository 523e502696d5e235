//! Why a device cannot be had.

use super::named;

/// Why a device cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("no card called `{name}` is known")]
    UnknownCard { name: String },
    /// Only in builds without the feature `cuda`.
    #[error("this build of taper has no CUDA")]
    NoCuda,
    /// CUDA's driver library is missing, or lacks what is needed; `reason` says which.
    #[error("no GPU can be used: {reason}")]
    NoDriver { reason: String },
    #[error("the NVIDIA driver finds no GPU")]
    NoGpu,
    #[error("there is no GPU {ordinal}; the driver counts {count}, from 0")]
    NoSuchGpu { ordinal: usize, count: u32 },
    #[error("the NVIDIA driver fails on GPU {ordinal}: {text} (CUDA error {code})")]
    Driver {
        ordinal: usize,
        code: u32,
        text: String,
    },
    #[error("GPU {ordinal} has no memory left, not even to start")]
    OutOfMemory { ordinal: usize },
    /// cuBLAS or cuRAND, which candle starts with every device.
    #[error("a library of CUDA does not start on GPU {ordinal}: {reason}")]
    Library { ordinal: usize, reason: String },
}

impl DeviceError {
    /// What to type instead, or what to do about the machine.
    pub fn hint(&self) -> String {
        match self {
            DeviceError::UnknownCard { name } => match named::nearest(name) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => {
                    let names = named::all().iter().map(|card| card.aliases[0]);
                    format!("known are {}", Vec::from_iter(names).join(", "))
                }
            },
            DeviceError::NoCuda => {
                "build it with `cargo build --release --features cuda`, or use the CPU with \
                 `--set system.device=cpu`"
                    .into()
            }
            DeviceError::NoDriver { .. } => {
                "install the NVIDIA driver for CUDA 13.0 or newer, or use the CPU with \
                 `--set system.device=cpu`"
                    .into()
            }
            DeviceError::NoGpu => {
                "look for it with `nvidia-smi -L`; CUDA_VISIBLE_DEVICES may hide it".into()
            }
            DeviceError::NoSuchGpu { .. } => "list them with `nvidia-smi -L`".into(),
            DeviceError::OutOfMemory { .. } => {
                "see who holds its memory with `taper doctor`, and free some".into()
            }
            DeviceError::Library { .. } => {
                "see what `taper doctor` says of the GPU and its free memory, or use the CPU with \
                 `--set system.device=cpu`"
                    .into()
            }
            DeviceError::Driver { .. } => {
                "see whether `nvidia-smi` works; after an update of the driver, restart the machine"
                    .into()
            }
        }
    }
}
