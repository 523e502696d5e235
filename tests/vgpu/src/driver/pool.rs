//! Memory pools.

use std::ffi::{c_int, c_uint, c_void};

use super::device::check_device;
use super::guard::{read, with_context, with_driver, write};
use super::refused::refuse;
use super::result::CuResult;
use super::state::lock;

/// The beginning of a `CUmemPoolProps`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PoolProperties {
    allocation_type: c_int,
    handle_types: c_int,
    location_type: c_int,
    location: c_int,
}

/// `CU_MEM_ALLOCATION_TYPE_PINNED`, on a device.
const PINNED: c_int = 1;
const ON_DEVICE: c_int = 1;

/// # Safety
/// The pointers are null, or may be read and written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolCreate(
    pool: *mut usize,
    properties: *const PoolProperties,
) -> CuResult {
    with_driver(|driver| {
        // SAFETY: as the caller promises.
        let wanted = unsafe { read(properties) }?;
        if (wanted.allocation_type, wanted.location_type) != (PINNED, ON_DEVICE) {
            return Err(refuse(
                "cuMemPoolCreate",
                "a pool that is not on the device",
            ));
        }
        if wanted.handle_types != 0 {
            return Err(refuse("cuMemPoolCreate", "a pool that is shared"));
        }
        check_device(wanted.location)?;
        let handle = lock(&driver.holdings).add_pool();
        // SAFETY: as the caller promises.
        unsafe { write(pool, handle) }
    })
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolDestroy(pool: usize) -> CuResult {
    with_driver(|driver| {
        lock(&driver.holdings).remove_pool(pool)?;
        driver.set_aside();
        Ok(())
    })
}

/// # Safety
/// `pool` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetDefaultMemPool(pool: *mut usize, device: c_int) -> CuResult {
    with_driver(|driver| {
        check_device(device)?;
        // SAFETY: as the caller promises.
        unsafe { write(pool, lock(&driver.holdings).default_pool) }
    })
}

/// # Safety
/// `pool` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetMemPool(pool: *mut usize, device: c_int) -> CuResult {
    with_driver(|driver| {
        check_device(device)?;
        // SAFETY: as the caller promises.
        unsafe { write(pool, lock(&driver.holdings).current_pool) }
    })
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceSetMemPool(device: c_int, pool: usize) -> CuResult {
    with_driver(|driver| {
        check_device(device)?;
        let mut holdings = lock(&driver.holdings);
        holdings.pool(pool)?;
        holdings.current_pool = pool;
        Ok(())
    })
}

/// Gives back blocks in which nothing is in use, but keeps so many bytes.
///
/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolTrimTo(pool: usize, keep: usize) -> CuResult {
    with_context(|driver| {
        let mut holdings = lock(&driver.holdings);
        let pool = holdings.pool(pool)?;
        pool.shrink(keep as u64);
        drop(holdings);
        driver.set_aside();
        Ok(())
    })
}

/// Attributes of `CUmemPool_attribute` from here on are 64-bit numbers; those before it are switches
/// of how freed memory may be used again, which make no difference here.
const RELEASE_THRESHOLD: c_uint = 4;
const RESERVED: c_uint = 5;
const MOST_RESERVED: c_uint = 6;
const USED: c_uint = 7;
const MOST_USED: c_uint = 8;

/// # Safety
/// `value` is null or may be written, as wide as the attribute is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolGetAttribute(
    pool: usize,
    attribute: c_uint,
    value: *mut c_void,
) -> CuResult {
    with_driver(|driver| {
        let mut holdings = lock(&driver.holdings);
        let pool = holdings.pool(pool)?;
        let found = match attribute {
            // SAFETY: as the caller promises.
            1..=3 => return unsafe { write(value.cast::<c_int>(), 1) },
            RELEASE_THRESHOLD => pool.release_threshold,
            RESERVED => pool.reserved(),
            MOST_RESERVED => pool.most_reserved,
            USED => pool.used,
            MOST_USED => pool.most_used,
            _ => return Err(refuse("cuMemPoolGetAttribute", "this attribute")),
        };
        // SAFETY: as the caller promises.
        unsafe { write(value.cast::<u64>(), found) }
    })
}

/// # Safety
/// `value` is null or may be read, as wide as the attribute is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolSetAttribute(
    pool: usize,
    attribute: c_uint,
    value: *const c_void,
) -> CuResult {
    with_driver(|driver| {
        let mut holdings = lock(&driver.holdings);
        let pool = holdings.pool(pool)?;
        match attribute {
            1..=3 => {}
            // SAFETY: as the caller promises.
            RELEASE_THRESHOLD => pool.release_threshold = unsafe { read(value.cast()) }?,
            // The most can only be forgotten.
            // SAFETY: as the caller promises.
            MOST_RESERVED | MOST_USED if unsafe { read(value.cast::<u64>()) }? == 0 => {
                match attribute {
                    MOST_USED => pool.most_used = pool.used,
                    _ => pool.most_reserved = pool.reserved(),
                }
            }
            MOST_RESERVED | MOST_USED => return Err(CuResult::ERROR_INVALID_VALUE),
            _ => return Err(refuse("cuMemPoolSetAttribute", "this attribute")),
        }
        Ok(())
    })
}
