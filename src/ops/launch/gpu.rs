//! The open GPU that kernels are launched on, and the failures of a launch.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::CudaDevice;
use cudarc::driver::sys::{CUdevice_attribute, CUfunction_attribute, CUresult};
use cudarc::driver::{
    CudaFunction, CudaStream, CudaView, CudaViewMut, DriverError, LaunchArgs, LaunchConfig,
    PushKernelArg,
};
use rustc_hash::FxHashMap;

use super::GpuElement;
use super::kernels::{Kernel, KernelError};
use crate::device::CardLimits;

/// Failure to start a kernel. A failure while it runs shows at a later call.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error("the GPU failed: {0}")]
    Driver(#[from] DriverError),
}

impl LaunchError {
    /// Whether memory is lacking, by the driver's code, never by text.
    pub fn is_out_of_memory(&self) -> bool {
        let status = match self {
            Self::Driver(error) => Some(error.0),
            Self::Kernel(error) => error.status(),
        };
        status == Some(CUresult::CUDA_ERROR_OUT_OF_MEMORY)
    }
}

/// An open GPU: its stream, its limits, and the kernels that were launched on it so far.
pub struct Gpu {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    limits: CardLimits,
    sm_count: usize,
    l2_bytes: usize,
    /// Kernels by operation and element.
    loaded: Mutex<FxHashMap<[&'static str; 2], CudaFunction>>,
    /// Kernels by their own names.
    named: Mutex<FxHashMap<String, CudaFunction>>,
}

/// Most bytes of shared memory per block without an attribute of the function: "Technical Specifications per
/// Compute Capability" of the CUDA C++ Programming Guide.
const SHARED_BYTES_WITHOUT_ASKING: usize = 48 << 10;

impl Gpu {
    /// Reads the limits of `device`.
    ///
    /// # Errors
    /// The driver's failure to tell them.
    pub fn new(device: &CudaDevice) -> Result<Self, DriverError> {
        use CUdevice_attribute as Attribute;
        let stream = device.cuda_stream();
        let attribute = |which| {
            let value = stream.context().attribute(which)?;
            Ok::<_, DriverError>(value.unsigned_abs())
        };
        let compute_capability = (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let shared_bytes =
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let sm_count = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let l2_bytes = attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?;
        Ok(Self {
            device: device.clone(),
            limits: CardLimits {
                compute_capability,
                shared_bytes_per_block: shared_bytes as usize,
            },
            sm_count: sm_count.max(1) as usize,
            l2_bytes: l2_bytes as usize,
            loaded: Mutex::default(),
            named: Mutex::default(),
            stream,
        })
    }

    /// The stream that every kernel is launched in.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    pub fn limits(&self) -> &CardLimits {
        &self.limits
    }

    pub fn sm_count(&self) -> usize {
        self.sm_count
    }

    pub fn l2_bytes(&self) -> usize {
        self.l2_bytes
    }

    /// The kernel `operation` for elements `T`. Its first use compiles it, which takes memory of the GPU.
    pub(in crate::ops) fn kernel<T: GpuElement>(
        &self,
        operation: &'static str,
    ) -> Result<CudaFunction, LaunchError> {
        self.kernel_with_shared::<T>(operation, 0)
    }

    /// The kernel `operation` for elements `T`, whose blocks ask for at most `shared_bytes` of shared memory at
    /// launch. Its first use compiles it, as in [`Gpu::kernel`].
    pub(in crate::ops) fn kernel_with_shared<T: GpuElement>(
        &self,
        operation: &'static str,
        shared_bytes: usize,
    ) -> Result<CudaFunction, LaunchError> {
        let key = [operation, T::SUFFIX];
        // Nothing panics while it is held.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = loaded.get(&key) {
            return Ok(function.clone());
        }
        let function = self.load(&key.join("_"), shared_bytes)?;
        loaded.insert(key, function.clone());
        Ok(function)
    }

    /// The kernel of this name, whose blocks ask for at most `shared_bytes` of shared memory at launch.
    pub(in crate::ops) fn kernel_named(
        &self,
        name: &str,
        shared_bytes: usize,
    ) -> Result<CudaFunction, LaunchError> {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = named.get(name) {
            return Ok(function.clone());
        }
        let function = self.load(name, shared_bytes)?;
        named.insert(name.to_owned(), function.clone());
        Ok(function)
    }

    fn load(&self, name: &str, shared_bytes: usize) -> Result<CudaFunction, LaunchError> {
        let kernel = Kernel::find(name, self.limits.compute_capability)?;
        let function = kernel.load(&self.device)?;
        if shared_bytes > SHARED_BYTES_WITHOUT_ASKING {
            let limit = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(limit, small(shared_bytes))?;
        }
        Ok(function)
    }

    pub(in crate::ops) fn launch<'a>(&'a self, kernel: &'a CudaFunction) -> LaunchArgs<'a> {
        self.stream.launch_builder(kernel)
    }
}

const NULL: u64 = 0;

/// Adds an array as the next argument; null if there is none.
pub(in crate::ops) fn push_optional<'a, T>(
    launch: &mut LaunchArgs<'a>,
    array: Option<&'a CudaView<T>>,
) {
    match array {
        Some(array) => launch.arg(array),
        None => launch.arg(&NULL),
    };
}

/// Adds an array that the kernel writes as the next argument; null if there is none.
pub(in crate::ops) fn push_optional_mut<'a, T>(
    launch: &mut LaunchArgs<'a>,
    array: Option<&'a mut CudaViewMut<T>>,
) {
    match array {
        Some(array) => launch.arg(array),
        None => launch.arg(&NULL),
    };
}

/// Configuration of a launch of `blocks` blocks of `threads` threads each, in one row.
pub(in crate::ops) fn grid(blocks: usize, threads: usize) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (small(blocks) as u32, 1, 1),
        block_dim: (small(threads) as u32, 1, 1),
        shared_mem_bytes: 0,
    }
}

/// Converts a size to the integer that kernels take.
///
/// # Panics
/// If `size` is 2^31 or more, which no array of rows or columns is.
pub(in crate::ops) fn small(size: usize) -> i32 {
    assert!(size <= i32::MAX as usize, "{size} is beyond 31 bits");
    size as i32
}
