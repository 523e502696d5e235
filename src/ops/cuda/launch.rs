//! The GPU that kernels are launched on, and how a launch fails.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::CudaDevice;
use cudarc::driver::sys::CUresult;
use cudarc::driver::{
    CudaFunction, CudaStream, CudaView, CudaViewMut, DriverError, LaunchArgs, LaunchConfig,
    PushKernelArg,
};

use super::GpuElement;
use crate::ops::kernels::{Kernel, KernelError, compute_capability};

/// Why a kernel did not start. What goes wrong while it runs shows at a later call.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error("the GPU failed: {0}")]
    Driver(#[from] DriverError),
}

impl LaunchError {
    /// By the driver's code, never by text.
    pub fn is_out_of_memory(&self) -> bool {
        let status = match self {
            Self::Driver(error) => Some(error.0),
            Self::Kernel(error) => error.status(),
        };
        status == Some(CUresult::CUDA_ERROR_OUT_OF_MEMORY)
    }
}

/// An open GPU: its stream, and the kernels that were launched on it so far.
pub struct Gpu {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    compute_capability: (u32, u32),
    loaded: Mutex<HashMap<[&'static str; 2], CudaFunction>>,
}

impl Gpu {
    /// # Errors
    /// The driver's, when it does not tell what the GPU can do.
    pub fn new(device: &CudaDevice) -> Result<Self, DriverError> {
        Ok(Self {
            device: device.clone(),
            stream: device.cuda_stream(),
            compute_capability: compute_capability(device)?,
            loaded: Mutex::default(),
        })
    }

    /// The stream that every kernel is launched in.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// The kernel `operation` for elements `T`. Its first use compiles it, which takes memory of the GPU.
    pub(super) fn kernel<T: GpuElement>(
        &self,
        operation: &'static str,
    ) -> Result<CudaFunction, LaunchError> {
        // Nothing panics while it is held.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let key = [operation, T::SUFFIX];
        if let Some(function) = loaded.get(&key) {
            return Ok(function.clone());
        }
        let kernel = Kernel::find(&key.join("_"), self.compute_capability)?;
        let function = kernel.load(&self.device)?;
        loaded.insert(key, function.clone());
        Ok(function)
    }

    pub(super) fn launch<'a>(&'a self, kernel: &'a CudaFunction) -> LaunchArgs<'a> {
        self.stream.launch_builder(kernel)
    }
}

const NULL: u64 = 0;

/// Adds an array as the next argument, null for one that is not there.
pub(super) fn push_optional<'a, T>(launch: &mut LaunchArgs<'a>, array: Option<&'a CudaView<T>>) {
    match array {
        Some(array) => launch.arg(array),
        None => launch.arg(&NULL),
    };
}

pub(super) fn push_optional_mut<'a, T>(
    launch: &mut LaunchArgs<'a>,
    array: Option<&'a mut CudaViewMut<T>>,
) {
    match array {
        Some(array) => launch.arg(array),
        None => launch.arg(&NULL),
    };
}

/// Blocks of so many threads each, in one row.
pub(super) fn grid(blocks: usize, threads: usize) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (small(blocks) as u32, 1, 1),
        block_dim: (small(threads) as u32, 1, 1),
        shared_mem_bytes: 0,
    }
}

/// A size as kernels take it.
///
/// # Panics
/// From 2^31 on, which no array of rows or columns has.
pub(super) fn small(size: usize) -> i32 {
    assert!(size <= i32::MAX as usize, "{size} is beyond 31 bits");
    size as i32
}
