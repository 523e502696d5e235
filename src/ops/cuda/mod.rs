//! What taper asks CUDA itself, without candle, and the operations' kernels. Only in builds with the feature
//! `cuda`.
//!
//! An operation's file has the name and the functions of its CPU body, over arrays in the memory of a GPU.
//! They start kernels (`kernels/*.cu`) in the stream of a [`Gpu`], wait for nothing and allocate nothing.
//! What differs from step to step is read from the GPU's memory, so that a launch can be captured in a graph.

mod backend;
mod batch;
mod element;
pub mod kernels;
pub(in crate::ops) mod launch;
mod memory;
mod recording;
mod tally;
mod values;

pub mod adamw;
pub mod attention;
pub mod cast;
pub mod column_sums;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod gelu;
pub mod host;
pub mod layer_norm;
pub mod outcome;

pub use backend::{OnGpu, Products};
pub use element::GpuElement;
pub use launch::{Gpu, LaunchError};
pub use memory::GpuMemory;

use cudarc::driver::{CudaContext, DriverError, result, sys};

/// Threads of a block, where a kernel has no reason for another number.
pub(in crate::ops) const THREADS: usize = 256;

/// By the driver's code, never by its text.
pub fn is_out_of_memory(error: &DriverError) -> bool {
    error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY
}

/// Waits for the work of this context, then gives back what its memory pool holds and no buffer uses.
pub fn trim_pool(context: &CudaContext) -> Result<(), DriverError> {
    context.synchronize()?;
    // SAFETY: the pool belongs to the context's device, which exists as long as the context; only
    // memory that was freed before the wait is given back.
    unsafe {
        let pool = result::device::get_mem_pool(context.cu_device())?;
        result::mem_pool::trim_to(pool, 0)
    }
}
