//! Memory on the card: allocated and freed at once, or in the order of a stream.

use std::ffi::{c_int, c_uint};

use super::guard::{with_context, write};
use super::result::CuResult;
use super::state::lock;
use crate::memory::Stamp;

/// # Safety
/// `address` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> CuResult {
    with_context(|driver| {
        // SAFETY: as the caller promises.
        unsafe { write(address, 0) }?;
        if bytes == 0 {
            return Err(CuResult::ERROR_INVALID_VALUE);
        }
        driver.objects().captures.refuse_outside_work()?;
        let taken = driver.take(bytes as u64, None, Stamp::default())?;
        // SAFETY: as the caller promises.
        unsafe { write(address, taken) }
    })
}

/// Freeing the null address is allowed and does nothing.
///
/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFree_v2(address: u64) -> CuResult {
    with_context(|driver| {
        driver.objects().captures.refuse_outside_work()?;
        match address {
            0 => Ok(()),
            _ => driver.free_at_once(address),
        }
    })
}

/// Nothing at all is asked for by empty tensors: the null address, as from a real driver.
///
/// # Safety
/// `address` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocAsync(
    address: *mut u64,
    bytes: usize,
    stream: usize,
) -> CuResult {
    with_context(|driver| {
        let pool = lock(&driver.holdings).current_pool;
        // SAFETY: as the caller promises.
        unsafe { alloc_from(driver, address, bytes, pool, stream) }
    })
}

/// # Safety
/// `address` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocFromPoolAsync(
    address: *mut u64,
    bytes: usize,
    pool: usize,
    stream: usize,
) -> CuResult {
    // SAFETY: as the caller promises.
    with_context(|driver| unsafe { alloc_from(driver, address, bytes, pool, stream) })
}

/// # Safety
/// `address` is null or may be written.
unsafe fn alloc_from(
    driver: &super::state::Driver,
    address: *mut u64,
    bytes: usize,
    pool: usize,
    stream: usize,
) -> super::guard::Outcome {
    // SAFETY: as the caller promises.
    unsafe { write(address, 0) }?;
    let into = driver.objects().stream_ref(stream)?;
    if bytes == 0 {
        return Ok(());
    }
    // What is allocated in a capture is there from the beginning.
    let captured = driver.objects().captures.is_captured(into.key);
    let born = if captured {
        Stamp::default()
    } else {
        driver.begin_allocation(&into)
    };
    let taken = driver.take(bytes as u64, Some(pool), born)?;
    driver.objects().captures.own(into.key, taken);
    // SAFETY: as the caller promises.
    unsafe { write(address, taken) }
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeAsync(address: u64, stream: usize) -> CuResult {
    with_context(|driver| {
        let mut objects = driver.objects();
        let into = objects.stream_ref(stream)?;
        let captured = address != 0 && objects.captures.frees(into.key, address)?;
        drop(objects);
        if captured || address == 0 {
            return Ok(());
        }
        driver.begin_free(address)?;
        driver.queue_free(&into, address)
    })
}

/// # Safety
/// The pointers are null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> CuResult {
    with_context(|driver| {
        // SAFETY: as the caller promises.
        unsafe {
            write(free, driver.memory.free_bytes() as usize)?;
            write(total, driver.card.total_bytes as usize)
        }
    })
}

/// # Safety
/// The pointers are null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetAddressRange_v2(
    start: *mut u64,
    bytes: *mut usize,
    address: u64,
) -> CuResult {
    with_context(|driver| {
        let found = driver.memory.allocation_of(address);
        let found = found.ok_or(CuResult::ERROR_INVALID_VALUE)?;
        if !start.is_null() {
            // SAFETY: as the caller promises.
            unsafe { write(start, found.0) }?;
        }
        if !bytes.is_null() {
            // SAFETY: as the caller promises.
            unsafe { write(bytes, found.1 as usize) }?;
        }
        Ok(())
    })
}

/// `CU_POINTER_ATTRIBUTE_MEMORY_TYPE`, and the value of a pointer to the card's memory.
const MEMORY_TYPE: c_uint = 2;
const ON_DEVICE: c_uint = 2;
/// `CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL`.
const DEVICE_ORDINAL: c_uint = 9;

/// # Safety
/// `value` is null or holds what the attribute has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuPointerGetAttribute(
    value: *mut c_uint,
    attribute: c_uint,
    address: u64,
) -> CuResult {
    with_context(|driver| {
        let found = driver.memory.allocation_of(address);
        found.ok_or(CuResult::ERROR_INVALID_VALUE)?;
        match attribute {
            // SAFETY: as the caller promises.
            MEMORY_TYPE => unsafe { write(value, ON_DEVICE) },
            // SAFETY: as the caller promises.
            DEVICE_ORDINAL => unsafe { write(value.cast::<c_int>(), 0) },
            _ => Err(super::refused::refuse(
                "cuPointerGetAttribute",
                "this attribute",
            )),
        }
    })
}
