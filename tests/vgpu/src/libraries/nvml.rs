//! NVML: what a program asks about the card without using it.

use std::ffi::{c_char, c_int, c_uint};
use std::process;
use std::sync::Arc;

use crate::driver::guard;
use crate::driver::state::{Driver, current, start_from_environment};

/// An `nvmlReturn_t`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub c_uint);

impl Status {
    pub const SUCCESS: Status = Status(0);
    pub const UNINITIALIZED: Status = Status(1);
    pub const INVALID_ARGUMENT: Status = Status(2);
    pub const NOT_SUPPORTED: Status = Status(3);
    pub const NOT_FOUND: Status = Status(6);
    pub const INSUFFICIENT_SIZE: Status = Status(7);
    pub const DRIVER_NOT_LOADED: Status = Status(9);
}

type Outcome<T = ()> = Result<T, Status>;

/// The only device.
const DEVICE: usize = 0x7600_0000_0001;
/// The process that stands for all others on the card. No real one has this number.
const OTHERS: c_uint = c_uint::MAX - 1;

fn with(work: impl FnOnce(&Arc<Driver>) -> Outcome) -> Status {
    let driver = current().ok_or(Status::UNINITIALIZED);
    let outcome = driver.and_then(|driver| work(&driver));
    outcome.err().unwrap_or(Status::SUCCESS)
}

fn with_device(device: usize, work: impl FnOnce(&Arc<Driver>) -> Outcome) -> Status {
    with(|driver| match device {
        DEVICE => work(driver),
        _ => Err(Status::INVALID_ARGUMENT),
    })
}

/// # Safety
/// `out` is null or may be written.
unsafe fn write<T>(out: *mut T, value: T) -> Outcome {
    // SAFETY: as the caller promises.
    unsafe { guard::write(out, value) }.map_err(|_| Status::INVALID_ARGUMENT)
}

/// # Safety
/// `out` is null or `length` bytes of it may be written.
unsafe fn write_text(out: *mut c_char, length: c_uint, text: &str) -> Outcome {
    if text.len() >= length as usize {
        return Err(Status::INSUFFICIENT_SIZE);
    }
    // SAFETY: as the caller promises.
    let written = unsafe { guard::write_text(out, length as usize, text) };
    written.map_err(|_| Status::INVALID_ARGUMENT)
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInit_v2() -> Status {
    match start_from_environment() {
        Ok(()) => Status::SUCCESS,
        Err(_) => Status::DRIVER_NOT_LOADED,
    }
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> Status {
    // SAFETY: none is needed.
    unsafe { nvmlInit_v2() }
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlShutdown() -> Status {
    Status::SUCCESS
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlErrorString(status: Status) -> *const c_char {
    let text = match status {
        Status::SUCCESS => c"success",
        Status::UNINITIALIZED => c"not initialised",
        Status::INVALID_ARGUMENT => c"invalid argument",
        Status::NOT_FOUND => c"not found",
        Status::INSUFFICIENT_SIZE => c"insufficient size",
        Status::DRIVER_NOT_LOADED => c"driver not loaded",
        _ => c"not supported",
    };
    text.as_ptr()
}

/// # Safety
/// `version` is null or `length` bytes of it may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(
    version: *mut c_char,
    length: c_uint,
) -> Status {
    with(|driver| {
        let (major, minor) = driver.card.driver;
        // SAFETY: as the caller promises.
        unsafe { write_text(version, length, &format!("vgpu {major}.{minor}")) }
    })
}

/// # Safety
/// `version` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> Status {
    with(|driver| {
        let (major, minor) = driver.card.driver;
        // SAFETY: as the caller promises.
        unsafe { write(version, (major * 1000 + minor * 10) as c_int) }
    })
}

/// # Safety
/// `name` is null or `length` bytes of it may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetProcessName(
    process: c_uint,
    name: *mut c_char,
    length: c_uint,
) -> Status {
    with(|_| match process {
        // SAFETY: as the caller promises.
        OTHERS => unsafe { write_text(name, length, "others") },
        _ => Err(Status::NOT_FOUND),
    })
}

/// # Safety
/// `count` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> Status {
    // SAFETY: as the caller promises.
    with(|_| unsafe { write(count, 1) })
}

/// # Safety
/// `device` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(
    index: c_uint,
    device: *mut usize,
) -> Status {
    with(|_| match index {
        // SAFETY: as the caller promises.
        0 => unsafe { write(device, DEVICE) },
        _ => Err(Status::INVALID_ARGUMENT),
    })
}

/// # Safety
/// `name` is null or `length` bytes of it may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(
    device: usize,
    name: *mut c_char,
    length: c_uint,
) -> Status {
    // SAFETY: as the caller promises.
    with_device(device, |driver| unsafe {
        write_text(name, length, &driver.card.name)
    })
}

/// # Safety
/// The pointers are null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCudaComputeCapability(
    device: usize,
    major: *mut c_int,
    minor: *mut c_int,
) -> Status {
    with_device(device, |driver| {
        let (first, second) = driver.card.compute_capability;
        // SAFETY: as the caller promises.
        unsafe {
            write(major, first as c_int)?;
            write(minor, second as c_int)
        }
    })
}

/// Defines functions that return one number.
macro_rules! numbers {
    ($($name:ident $card:ident => $value:expr;)*) => {
        $(
            /// # Safety
            /// `value` is null or may be written.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name(device: usize, value: *mut c_uint) -> Status {
                with_device(device, |driver| {
                    let $card = &driver.card;
                    // SAFETY: as the caller promises.
                    unsafe { write(value, $value) }
                })
            }
        )*
    };
}
numbers! {
    nvmlDeviceGetNumGpuCores card => card.cores_per_sm * card.sm_count;
    nvmlDeviceGetMemoryBusWidth card => card.memory_bus_bits;
}

/// `NVML_CLOCK_MEM`.
const MEMORY_CLOCK: c_uint = 2;

/// # Safety
/// `megahertz` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMaxClockInfo(
    device: usize,
    clock: c_uint,
    megahertz: *mut c_uint,
) -> Status {
    with_device(device, |driver| {
        let found = match clock {
            MEMORY_CLOCK => driver.card.memory_mhz,
            _ => driver.card.clock_mhz,
        };
        // SAFETY: as the caller promises.
        unsafe { write(megahertz, found) }
    })
}

/// An `nvmlMemory_v2_t`.
#[repr(C)]
pub struct MemoryInfo {
    version: c_uint,
    total: u64,
    reserved: u64,
    free: u64,
    used: u64,
}

/// # Safety
/// `info` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: usize,
    info: *mut MemoryInfo,
) -> Status {
    with_device(device, |driver| {
        let (total, free) = (driver.card.total_bytes, driver.memory.free_bytes());
        let found = MemoryInfo {
            // `nvmlMemory_v2`: the size of the structure, and the version above it.
            version: size_of::<MemoryInfo>() as c_uint | 2 << 24,
            total,
            reserved: 0,
            free,
            used: total - free,
        };
        // SAFETY: as the caller promises.
        unsafe { write(info, found) }
    })
}

/// An `nvmlProcessInfo_t`.
#[repr(C)]
pub struct ProcessInfo {
    process: c_uint,
    used: u64,
    instances: [c_uint; 2],
}

/// # Safety
/// `count` is null or may be read and written, and as many of `infos` may be written as it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: usize,
    count: *mut c_uint,
    infos: *mut ProcessInfo,
) -> Status {
    with_device(device, |driver| {
        let others = driver.used_by_others();
        let used = driver.card.total_bytes - driver.memory.free_bytes();
        let own = used.saturating_sub(others);
        let all = [(process::id(), own), (OTHERS, others)];
        let holding: Vec<_> = all.into_iter().filter(|(_, bytes)| *bytes > 0).collect();
        // SAFETY: as the caller promises.
        let room = unsafe { guard::read(count) }.map_err(|_| Status::INVALID_ARGUMENT)?;
        // SAFETY: as the caller promises.
        unsafe { write(count, holding.len() as c_uint) }?;
        if holding.len() > room as usize {
            return Err(Status::INSUFFICIENT_SIZE);
        }
        for (index, (process, used)) in holding.into_iter().enumerate() {
            let info = ProcessInfo {
                process,
                used,
                instances: [c_uint::MAX; 2],
            };
            // SAFETY: the caller promises as many as `count` said.
            unsafe { write(infos.wrapping_add(index), info) }?;
        }
        Ok(())
    })
}

/// None shows anything on a screen.
///
/// # Safety
/// `count` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    device: usize,
    count: *mut c_uint,
    _infos: *mut ProcessInfo,
) -> Status {
    // SAFETY: as the caller promises.
    with_device(device, |_| unsafe { write(count, 0) })
}
