//! A GPU of this machine as the CUDA driver describes it to a context on it, and the device that a run opens there.

use std::sync::Arc;

use candle_core::CudaDevice;
use candle_core::cuda::CudaError;
use cudarc::driver::sys::{CUdevice_attribute as Attribute, CUresult};
use cudarc::driver::{CudaContext, DriverError, result};

use super::capability::cores_per_sm;
use super::driver;
use super::gpu::Reading;
use super::nvml::processes_of;
use super::{
    Cuda, DeviceError, DeviceProfile, GpuProcess, Gpus, Hardware, OLDEST_CUDA, gpus, has_kernels,
    load_libraries,
};

/// Probes the GPU that CUDA counts as `ordinal`, in a context that takes some hundred MiB of the card as long as it
/// is held; they are not part of `available_bytes`. Rates are those of the named card, or of its nearest relative.
///
/// # Errors
/// [`DeviceError`] when there is no driver or no such GPU, when either is too old, when a library is missing, or when
/// the driver fails.
pub fn probe(ordinal: usize) -> Result<(DeviceProfile, Arc<CudaContext>), DeviceError> {
    let explain = |error| explain(error, ordinal);
    // First: without a GPU that has kernels, the driver's age and missing libraries do not matter.
    let (name, has) = identity(ordinal).map_err(explain)?;
    if !has_kernels(has) {
        return Err(DeviceError::OldGpu { name, has });
    }
    let cuda = supported_cuda()?;
    let context = CudaContext::new(ordinal).map_err(explain)?;
    let profile = read(&context).map_err(explain)?;
    require_libraries(cuda)?;
    Ok((profile, context))
}

/// Name and compute capability, by functions that every driver has and without a context.
fn identity(ordinal: usize) -> Result<(String, (u32, u32)), DriverError> {
    result::init()?;
    let ordinal =
        i32::try_from(ordinal).map_err(|_| DriverError(CUresult::CUDA_ERROR_INVALID_DEVICE))?;
    let device = result::device::get(ordinal)?;
    let attribute = |which| {
        // SAFETY: the device is one that the driver has just given.
        unsafe { result::device::get_attribute(device, which) }.map(i32::unsigned_abs)
    };
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Ok((result::device::get_name(device)?, (major, minor)))
}

/// Has CUDA load a kernel's code when it is first launched, unless the environment says otherwise. Before CUDA 12.2 a
/// library loaded all of its kernels into the GPU's memory ("Lazy Loading" in the CUDA C++ Programming Guide).
///
/// # Safety
/// No other thread runs yet.
pub unsafe fn load_code_lazily() {
    const MODE: &str = "CUDA_MODULE_LOADING";
    if std::env::var_os(MODE).is_none() {
        // SAFETY: as the caller promises.
        unsafe { std::env::set_var(MODE, "LAZY") };
    }
}

/// The driver's CUDA; `None` where there is no driver, which shows at the next call.
fn supported_cuda() -> Result<Option<(u32, u32)>, DeviceError> {
    match driver::supported_version() {
        Some(has) if has < OLDEST_CUDA => Err(DeviceError::OldDriver { has }),
        supported => Ok(supported),
    }
}

/// Opens the libraries that candle starts with every device, for a driver that supports `cuda`.
fn require_libraries(cuda: Option<(u32, u32)>) -> Result<(), DeviceError> {
    match cuda.and_then(|cuda| Some((cuda, load_libraries(cuda).explain()?))) {
        Some((cuda, reason)) => Err(DeviceError::NoLibrary { reason, cuda }),
        None => Ok(()),
    }
}

fn read(context: &CudaContext) -> Result<DeviceProfile, DriverError> {
    // The driver answers with small positive numbers.
    let attribute = |which| context.attribute(which).map(i32::unsigned_abs);
    let (major, minor) = context.compute_capability()?;
    let compute_capability = (major.unsigned_abs(), minor.unsigned_abs());
    let sm_count = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    let (free, total) = context.mem_get_info()?;
    let reading = Reading {
        name: context.name()?,
        compute_capability,
        total_bytes: Some(total as u64),
        free_bytes: Some(free as u64),
        cores: Some(sm_count * cores_per_sm(compute_capability)),
        bus_bits: attribute(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH).ok(),
        memory_mhz: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)
            .map(|khz| khz / 1000)
            .ok(),
        processes: Vec::new(),
    };
    let cuda_version = driver::supported_version();
    let mut profile = reading.interpret(driver_version(), cuda_version).profile;
    if let Hardware::Cuda(cuda) = &mut profile.hardware {
        *cuda = Cuda {
            sm_count,
            shared_memory_per_block_bytes: attribute(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
            )?
            .into(),
            l2_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?.into(),
            // Informative: a run does not need them.
            holders: context
                .uuid()
                .map_or(Vec::new(), |uuid| holders(uuid.bytes)),
            ..cuda.clone()
        };
    }
    Ok(profile)
}

/// Other processes that hold memory of the GPU with this identity.
fn holders(uuid: [std::ffi::c_char; 16]) -> Vec<GpuProcess> {
    let own = std::process::id();
    let mut processes = processes_of(uuid.map(|byte| byte as u8));
    processes.retain(|process| process.pid != own);
    processes
}

/// Version of the driver itself, from NVML; CUDA does not tell it. "unknown" without NVML: a card with no
/// version counts as one that is not in this machine.
fn driver_version() -> Option<String> {
    let version = match gpus() {
        Gpus::Found { driver_version, .. } => driver_version,
        Gpus::NoLibrary | Gpus::Failed { .. } => None,
    };
    version.or_else(|| Some("unknown".into()))
}

/// Meaning of a driver's error on GPU `ordinal`.
pub fn explain(error: DriverError, ordinal: usize) -> DeviceError {
    match error.0 {
        CUresult::CUDA_ERROR_STUB_LIBRARY => DeviceError::NoDriver {
            reason: driver::missing().unwrap_or_else(|| "`libcuda.so.1` is only a stub".into()),
        },
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => DeviceError::OutOfMemory { ordinal },
        CUresult::CUDA_ERROR_NO_DEVICE => DeviceError::NoGpu,
        CUresult::CUDA_ERROR_INVALID_DEVICE => DeviceError::NoSuchGpu {
            ordinal,
            count: CudaContext::device_count().unwrap_or(0).unsigned_abs(),
        },
        code => DeviceError::Driver {
            ordinal,
            code: code as u32,
            text: error
                .error_string()
                .map(|text| text.to_string_lossy().into_owned())
                .unwrap_or_else(|_| "no text".into()),
        },
    }
}

/// candle's device on the GPU that CUDA counts as `ordinal`, with a stream of its own.
///
/// # Errors
/// [`DeviceError`] when there is no driver or no such GPU, when the driver is too old or fails, or when one of CUDA's
/// libraries is missing or does not start.
pub fn open(ordinal: usize) -> Result<CudaDevice, DeviceError> {
    require_libraries(supported_cuda()?)?;
    let device = CudaDevice::new_with_stream(ordinal).map_err(|error| match cause(error) {
        Some(CudaError::Cuda(error)) => explain(error, ordinal),
        Some(other) => DeviceError::Library {
            ordinal,
            reason: driver::missing().unwrap_or_else(|| other.to_string()),
        },
        None => DeviceError::Library {
            ordinal,
            reason: "candle does not say why".into(),
        },
    })?;
    driver::without_event_tracking(&device);
    Ok(device)
}

/// CUDA's error, taken out of candle's wrapping.
fn cause(error: candle_core::Error) -> Option<CudaError> {
    match error {
        candle_core::Error::Cuda(error) => error.downcast().ok().map(|error| *error),
        candle_core::Error::WithBacktrace { inner, .. } => cause(*inner),
        candle_core::Error::Context { inner, .. } => cause(*inner),
        _ => None,
    }
}
