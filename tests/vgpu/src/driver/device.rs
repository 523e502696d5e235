//! `cuInit`, the driver's version, and what can be asked about the card.

use std::ffi::{c_char, c_int, c_uint};

use super::guard::{Outcome, with_driver, write, write_text};
use super::result::CuResult;
use super::state::{say, start_from_environment};
use crate::card::Card;

/// The only device.
pub(super) fn check_device(device: c_int) -> Outcome {
    match device {
        0 => Ok(()),
        _ => Err(CuResult::ERROR_INVALID_DEVICE),
    }
}

/// # Safety
/// None is needed: nothing is read or written through a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuInit(flags: c_uint) -> CuResult {
    match flags {
        0 => start_from_environment().into(),
        _ => CuResult::ERROR_INVALID_VALUE,
    }
}

/// # Safety
/// `version` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> CuResult {
    with_driver(|driver| {
        let (major, minor) = driver.card.driver;
        // SAFETY: as the caller promises.
        unsafe { write(version, (major * 1000 + minor * 10) as c_int) }
    })
}

/// # Safety
/// `count` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> CuResult {
    // SAFETY: as the caller promises.
    with_driver(|_| unsafe { write(count, 1) })
}

/// # Safety
/// `device` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> CuResult {
    with_driver(|_| {
        check_device(ordinal)?;
        // SAFETY: as the caller promises.
        unsafe { write(device, ordinal) }
    })
}

/// # Safety
/// `name` is null or `length` bytes of it may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(
    name: *mut c_char,
    length: c_int,
    device: c_int,
) -> CuResult {
    with_driver(|driver| {
        check_device(device)?;
        let length = usize::try_from(length).unwrap_or(0);
        // SAFETY: as the caller promises.
        unsafe { write_text(name, length, &driver.card.name) }
    })
}

/// # Safety
/// `bytes` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) -> CuResult {
    with_driver(|driver| {
        check_device(device)?;
        // SAFETY: as the caller promises.
        unsafe { write(bytes, driver.card.total_bytes as usize) }
    })
}

/// # Safety
/// `uuid` is null or 16 bytes of it may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: c_int) -> CuResult {
    with_driver(|_| {
        check_device(device)?;
        // SAFETY: as the caller promises.
        unsafe { write(uuid, *b"taper vgpu no. 0") }
    })
}

/// # Safety
/// As `cuDeviceGetUuid_v2`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid(uuid: *mut [u8; 16], device: c_int) -> CuResult {
    // SAFETY: as the caller promises.
    unsafe { cuDeviceGetUuid_v2(uuid, device) }
}

/// # Safety
/// `value` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(
    value: *mut c_int,
    attribute: c_uint,
    device: c_int,
) -> CuResult {
    with_driver(|driver| {
        check_device(device)?;
        let Some(found) = attribute_of(&driver.card, attribute) else {
            say(&format!(
                "cuDeviceGetAttribute: attribute {attribute} is not implemented"
            ));
            return Err(CuResult::ERROR_NOT_SUPPORTED);
        };
        // SAFETY: as the caller promises.
        unsafe { write(value, found) }
    })
}

/// # Safety
/// The pointers are null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceComputeCapability(
    major: *mut c_int,
    minor: *mut c_int,
    device: c_int,
) -> CuResult {
    with_driver(|driver| {
        check_device(device)?;
        let (first, second) = driver.card.compute_capability;
        // SAFETY: as the caller promises.
        unsafe {
            write(major, first as c_int)?;
            write(minor, second as c_int)
        }
    })
}

/// Threads of the largest block.
pub const MAX_THREADS_PER_BLOCK: u32 = 1024;
/// Threads of the largest block along each side.
pub const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
/// Blocks of the largest grid along each side.
pub const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
/// 32-bit registers of an SM, and of a block.
pub const REGISTERS: u32 = 65_536;

/// The value of a `CUdevice_attribute`; the numbers are those of `cuda.h`, the same for every card
/// where no field of the card is named.
fn attribute_of(card: &Card, attribute: c_uint) -> Option<c_int> {
    let newer = |major| u32::from(card.compute_capability.0 >= major);
    let value: u32 = match attribute {
        1 => MAX_THREADS_PER_BLOCK,
        2..=4 => MAX_BLOCK[attribute as usize - 2],
        5..=7 => MAX_GRID[attribute as usize - 5],
        8 => card.shared_per_block as u32,
        9 => 64 << 10,               // constant memory
        10 => 32,                    // warp size
        11 => i32::MAX as u32,       // pitch
        12 | 82 => REGISTERS,        // per block, per SM
        13 => card.clock_mhz * 1000, // kHz
        14 => 512,                   // alignment of textures
        15 => 1,                     // copies overlap kernels
        16 => card.sm_count,
        17 | 18 => 0,                 // no time limit, not integrated
        19 => 0,                      // host memory is not mapped
        20 => 0,                      // compute mode: default
        31 => 1,                      // concurrent kernels
        32 => 0,                      // ECC
        33..=35 | 50 => 0,            // PCI bus, device, TCC, domain
        36 => card.memory_mhz * 1000, // kHz
        37 => card.memory_bus_bits,
        38 => card.l2_bytes as u32,
        39 => card.threads_per_sm,
        40 => 2, // asynchronous engines
        41 => 1, // unified addressing
        75 => card.compute_capability.0,
        76 => card.compute_capability.1,
        78..=80 => 1, // stream priorities, global and local L1
        81 => card.shared_per_sm as u32,
        83..=86 => 0, // no managed memory, not a board of several
        87 => 32,     // single to double precision
        88..=91 => 0, // no access to pageable memory, no preemption
        95 | 96 => 0, // no cooperative launches: blocks do not run side by side
        97 => card.shared_per_block_optin as u32,
        98 => 0,
        99 => 1,        // host memory can be registered
        100..=105 => 0, // no virtual memory management, no shared handles
        106 => card.blocks_per_sm,
        107 => 0,
        108 => (card.l2_bytes as u32 / 4 * 3) * newer(8),
        109 => 0,
        110 => 0,
        111 => 1024 * newer(8), // shared memory that the system keeps of each block
        112..=114 => 0,
        115 => 1, // memory pools
        116..=119 => 0,
        120 => newer(9), // clusters
        121..=127 => 0,
        132..=133 => 0,
        _ => return None,
    };
    c_int::try_from(value).ok()
}
