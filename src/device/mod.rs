//! The processors and the memory that a run may use, as far as the system tells.
//!
//! Every figure that a system may hide is an `Option`: a probe never fails, it only knows less.

mod capability;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod driver;
mod error;
mod find;
mod gpu;
mod heap;
mod instructions;
mod libraries;
mod limits;
pub mod named;
mod nvml;
mod requirements;

use serde::Serialize;

use crate::terms::{GpuInputs, Inputs, VectorExtension};

pub use capability::{NEWEST_COMPUTE_CAPABILITY, OLDEST_COMPUTE_CAPABILITY, has_kernels};
pub(crate) use cpu::kib_field;
pub use cpu::{forget_peak_resident_bytes, peak_resident_bytes, resident_bytes};
#[cfg(feature = "cuda")]
pub use cuda::{explain, load_code_lazily, open};
#[cfg(feature = "cuda")]
pub use driver::{device_count, missing, supported_version};
pub use error::DeviceError;
pub use find::{FoundDevice, find};
pub use gpu::{GpuProcess, Gpus, InstalledGpu};
pub use heap::{return_freed_memory, share_one_heap_where_limited};
pub use instructions::{Amx, Avx512Bf16};
#[cfg(feature = "cuda")]
pub use libraries::load as load_libraries;
pub use libraries::{FoundLibrary, Libraries, MissingLibrary};
pub use limits::mappable_bytes;
pub use nvml::gpus;
pub use requirements::{OLDEST_CUDA, REQUIREMENTS, Requirement};

/// One device: the CPU of this machine, a GPU in it, or a named card that is not here.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceProfile {
    /// The vendor's name for it, or "CPU" where the system does not tell.
    pub name: String,
    /// Memory of the card; for the CPU physical memory, or the cgroup's limit where that is lower.
    pub total_bytes: Option<u64>,
    /// Memory that this process could still take: free memory of the card; for the CPU as much as fits without
    /// swapping and without meeting the cgroup's limit.
    pub available_bytes: Option<u64>,
    pub hardware: Hardware,
}

/// Figures that only one kind of device has.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Hardware {
    Cpu(Cpu),
    Cuda(Cuda),
}

/// A CPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Cores that affinity and cgroup quotas leave to the process.
    pub cores: Option<usize>,
    /// Vector extensions that this process may use: the CPU has them and the system allows them.
    /// Narrowest first.
    pub vector_extensions: Vec<VectorExtension>,
    /// Memory that this process already held when it was probed; not part of `available_bytes`.
    pub process_bytes: Option<u64>,
    /// Memory that `ulimit -v` or `ulimit -d` lets this process map beside what it has; `None` without such a limit.
    pub mappable_bytes: Option<u64>,
}

/// A CUDA GPU. Rates are dense (no structured sparsity), in operations or bytes per second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cuda {
    /// Streaming multiprocessors.
    pub sm_count: u32,
    /// (major, minor)
    pub compute_capability: (u32, u32),
    /// The most shared memory that one block may ask for (opt-in).
    pub shared_memory_per_block_bytes: u64,
    pub l2_bytes: u64,
    pub memory_bytes_per_second: f64,
    /// Tensor cores with fp32 accumulation; `None` below compute capability 8.0.
    pub peak_bf16: Option<f64>,
    /// Tensor cores with fp32 accumulation.
    pub peak_fp16: f64,
    /// CUDA cores, no TF32.
    pub peak_fp32: f64,
    /// `None` for a card that is not here.
    pub driver_version: Option<String>,
    /// The newest CUDA version the driver supports.
    pub cuda_version: Option<(u32, u32)>,
    /// Other processes that hold its memory, the largest first, as far as the driver tells.
    pub holders: Vec<GpuProcess>,
}

/// Limits of a GPU that decide which kernels it can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CardLimits {
    /// (major, minor)
    pub compute_capability: (u32, u32),
    /// Largest shared memory that one block may ask for (opt-in).
    pub shared_bytes_per_block: usize,
}

impl From<&Cuda> for CardLimits {
    fn from(card: &Cuda) -> Self {
        Self {
            compute_capability: card.compute_capability,
            shared_bytes_per_block: card.shared_memory_per_block_bytes as usize,
        }
    }
}

impl Cuda {
    /// The datasheet's rate of GEMMs with such inputs, in operations per second; `None` where it has no figure.
    pub fn peak(&self, inputs: Inputs) -> Option<f64> {
        match inputs.on_gpu()? {
            GpuInputs::Float32 => Some(self.peak_fp32),
            // Half of bf16's on every card that has both.
            GpuInputs::Tf32 => self.peak_bf16.map(|peak| peak / 2.0),
            GpuInputs::Bfloat16 => self.peak_bf16,
            GpuInputs::Float16 => Some(self.peak_fp16),
        }
    }
}

impl DeviceProfile {
    /// Probes a GPU of this machine, by the number that CUDA gives it. Takes a second at most.
    ///
    /// # Errors
    /// [`DeviceError::NoCuda`] in a build without CUDA; others when the GPU cannot be used.
    pub fn gpu(ordinal: usize) -> Result<Self, DeviceError> {
        #[cfg(feature = "cuda")]
        return cuda::probe(ordinal).map(|(profile, _)| profile);
        #[cfg(not(feature = "cuda"))]
        {
            let _ = ordinal;
            Err(DeviceError::NoCuda)
        }
    }

    /// Cores this process may use; `None` on a GPU or where the system does not tell.
    pub fn cores(&self) -> Option<usize> {
        match &self.hardware {
            Hardware::Cpu(cpu) => cpu.cores,
            Hardware::Cuda(_) => None,
        }
    }

    /// Vector extensions of a CPU; none of a GPU.
    pub fn vector_extensions(&self) -> &[VectorExtension] {
        match &self.hardware {
            Hardware::Cpu(cpu) => &cpu.vector_extensions,
            Hardware::Cuda(_) => &[],
        }
    }
}
