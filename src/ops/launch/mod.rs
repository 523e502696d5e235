//! Launches of kernels, below the operations and the GEMMs: the open GPU, kernels by name, copies with the host.
//! GELU is here because both the operations and the GEMMs launch it. Only in builds with the feature `cuda`.

mod element;
pub mod gelu;
mod gpu;
pub mod host;
pub mod kernels;

pub use element::GpuElement;
pub use gpu::{Gpu, LaunchError};
pub(in crate::ops) use gpu::{grid, push_optional, push_optional_mut, small};

use cudarc::driver::{DriverError, sys};

/// Threads of a block, unless a kernel has a reason for another number.
pub(in crate::ops) const THREADS: usize = 256;

/// Whether the driver lacks memory, by its code, never by its text.
pub fn is_out_of_memory(error: &DriverError) -> bool {
    error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY
}
