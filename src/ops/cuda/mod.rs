//! What taper asks CUDA itself, without candle, and the operations' kernels. Only in builds with the feature
//! `cuda`.
//!
//! An operation's file has the name and the functions of its CPU body, over arrays in the memory of a GPU.
//! They start kernels (`kernels/*.cu`) in the stream of a [`Gpu`], wait for nothing and allocate nothing.
//! What differs from step to step is read from the GPU's memory, so that a launch can be captured in a graph.

mod backend;
mod batch;
pub(in crate::ops) mod check;
mod clock;
mod element;
mod launch;
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
pub use clock::EventClock;
pub use element::GpuElement;
pub use launch::{Gpu, LaunchError};

use candle_core::CudaDevice;
use cudarc::driver::{CudaContext, DriverError, result, sys};

/// Threads of a block, where a kernel has no reason for another number.
const THREADS: usize = 256;

/// What bind.c keeps at most, in bytes.
const REASONS_BYTES: usize = 2048;

unsafe extern "C" {
    // SAFETY: bind.c writes no more than `capacity` bytes to `text`, and returns how many.
    safe fn taper_cuda_missing(text: &mut [u8; REASONS_BYTES], capacity: usize) -> usize;
}

/// Which of CUDA's libraries, or functions of theirs, were called but not found so far, and why: a line
/// each. They are looked for when they are first called; see build/cuda_imports.rs.
pub fn missing() -> Option<String> {
    let mut text = [0; REASONS_BYTES];
    let length = taper_cuda_missing(&mut text, REASONS_BYTES);
    (length > 0).then(|| String::from_utf8_lossy(&text[..length]).into_owned())
}

/// By the driver's code, never by its text.
pub fn is_out_of_memory(error: &DriverError) -> bool {
    error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY
}

/// GPUs that the driver counts; none where there is no driver.
pub fn device_count() -> u32 {
    CudaContext::device_count().map_or(0, i32::unsigned_abs)
}

/// The newest CUDA version that the driver supports, (major, minor).
pub fn supported_version() -> Option<(u32, u32)> {
    let mut version = 0;
    // SAFETY: writes one int, and needs no context.
    let status = unsafe { sys::cuDriverGetVersion(&mut version) };
    let version = u32::try_from(version).ok()?;
    // 13000 is 13.0.
    status.result().ok()?;
    Some((version / 1000, version % 1000 / 10))
}

/// Has no launch record events for its arrays, which would take time and cannot be captured.
pub fn without_event_tracking(device: &CudaDevice) {
    // SAFETY: all work is in the device's one stream, and copies with the host are waited for (host.rs); what
    // another stream copies is ordered by events of our own (batch.rs).
    unsafe { device.disable_event_tracking() }
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
