//! Failures to find or to open a device.

use super::libraries::Libraries;
use super::{OLDEST_COMPUTE_CAPABILITY, OLDEST_CUDA, REQUIREMENTS, has_kernels, named};

/// A failure to find or to open a device.
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
    #[error(
        "the NVIDIA driver is for CUDA {}.{}; a run on a GPU needs one for {}.{} or newer",
        .has.0, .has.1, OLDEST_CUDA.0, OLDEST_CUDA.1
    )]
    OldDriver { has: (u32, u32) },
    #[error(
        "{name} has compute capability {}.{}; kernels are there for {}.{} and newer (Turing, 2018)",
        .has.0, .has.1, OLDEST_COMPUTE_CAPABILITY.0, OLDEST_COMPUTE_CAPABILITY.1
    )]
    OldGpu { name: String, has: (u32, u32) },
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
    /// cuBLAS or cuRAND is missing; `reason` names the places of the search. `cuda` is the driver's.
    #[error("a library of CUDA is missing: {reason}")]
    NoLibrary { reason: String, cuda: (u32, u32) },
    /// cuBLAS or cuRAND does not start; candle starts both with every device.
    #[error("a library of CUDA does not start on GPU {ordinal}: {reason}")]
    Library { ordinal: usize, reason: String },
}

const ON_THE_CPU: &str =
    "use the CPU with `--set system.device=cpu` (`taper sample`: with `--device cpu`)";

impl DeviceError {
    /// Text to type instead, or a remedy for the machine.
    pub fn hint(&self) -> String {
        match self {
            DeviceError::UnknownCard { name } => match named::likely(name).as_slice() {
                [one] => format!("did you mean `{one}`?"),
                several @ [_, ..] => format!("there are `{}`", several.join("`, `")),
                [] => {
                    let cards = named::all()
                        .iter()
                        .filter(|card| has_kernels(card.compute_capability));
                    let names = cards.map(|card| card.aliases[0]);
                    format!("known are {}", Vec::from_iter(names).join(", "))
                }
            },
            DeviceError::NoCuda => {
                format!("build it with `cargo build --release --features cuda`, or {ON_THE_CPU}")
            }
            DeviceError::NoDriver { .. } => {
                let oldest = &REQUIREMENTS[0];
                format!(
                    "install the NVIDIA driver for CUDA {}.{} ({}) or newer, or {ON_THE_CPU}",
                    oldest.cuda.0, oldest.cuda.1, oldest.driver
                )
            }
            DeviceError::OldDriver { .. } => {
                let driver = REQUIREMENTS[0].driver;
                format!("update the NVIDIA driver to {driver} or newer, or {ON_THE_CPU}")
            }
            DeviceError::OldGpu { .. } => format!("use a newer GPU, or {ON_THE_CPU}"),
            DeviceError::NoLibrary { cuda, .. } => {
                format!("{}; or {ON_THE_CPU}", Libraries::hint(*cuda))
            }
            DeviceError::NoGpu => {
                "look for it with `nvidia-smi -L`; CUDA_VISIBLE_DEVICES may hide it".into()
            }
            DeviceError::NoSuchGpu { .. } => "list them with `nvidia-smi -L`".into(),
            DeviceError::OutOfMemory { .. } => {
                "see who holds its memory with `taper doctor`, and free some".into()
            }
            DeviceError::Library { .. } => format!(
                "see what `taper doctor` says of the GPU and its free memory, or {ON_THE_CPU}"
            ),
            DeviceError::Driver { .. } => {
                "see whether `nvidia-smi` works; after an update of the driver, restart the machine"
                    .into()
            }
        }
    }
}
