//! Page-locked memory of the host: plain memory here, but freed only as what it is.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashMap;
use std::ffi::{c_uint, c_void};
use std::sync::Mutex;

use super::guard::{Outcome, with_context, write};
use super::result::CuResult;
use super::state::lock;

/// What page-locked memory is aligned to.
const PAGE: usize = 4096;

/// Page-locked memory of this process: address and size. Memory of the host has nothing to do with the card.
static LOCKED: Mutex<Option<HashMap<usize, usize>>> = Mutex::new(None);
/// Memory that was page-locked later.
static REGISTERED: Mutex<Option<HashMap<usize, usize>>> = Mutex::new(None);

/// # Safety
/// `address` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(
    address: *mut *mut c_void,
    bytes: usize,
    _flags: c_uint,
) -> CuResult {
    with_context(|_| {
        let layout = layout(bytes)?;
        // SAFETY: the layout has at least one byte.
        let memory = unsafe { alloc(layout) };
        if memory.is_null() {
            return Err(CuResult::ERROR_OUT_OF_MEMORY);
        }
        let mut locked = lock(&LOCKED);
        locked
            .get_or_insert_default()
            .insert(memory as usize, bytes);
        // SAFETY: as the caller promises.
        unsafe { write(address, memory.cast()) }
    })
}

/// Whether these bytes are page-locked.
pub fn is_locked(address: usize, bytes: usize) -> bool {
    let holds =
        |(start, length): (&usize, &usize)| *start <= address && address + bytes <= start + length;
    let in_list = |list: &Mutex<Option<HashMap<usize, usize>>>| {
        lock(list)
            .as_ref()
            .is_some_and(|list| list.iter().any(holds))
    };
    in_list(&LOCKED) || in_list(&REGISTERED)
}

fn layout(bytes: usize) -> Outcome<Layout> {
    if bytes == 0 {
        return Err(CuResult::ERROR_INVALID_VALUE);
    }
    Layout::from_size_align(bytes, PAGE).map_err(|_| CuResult::ERROR_OUT_OF_MEMORY)
}

/// # Safety
/// As `cuMemHostAlloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocHost_v2(address: *mut *mut c_void, bytes: usize) -> CuResult {
    // SAFETY: as the caller promises.
    unsafe { cuMemHostAlloc(address, bytes, 0) }
}

/// # Safety
/// Nobody uses the memory any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeHost(address: *mut c_void) -> CuResult {
    with_context(|driver| {
        let mut locked = lock(&LOCKED);
        let bytes = locked
            .as_mut()
            .and_then(|all| all.remove(&(address as usize)));
        driver.check_host_free(address as usize, bytes.unwrap_or(0))?;
        let layout = layout(bytes.ok_or(CuResult::ERROR_INVALID_VALUE)?)?;
        // SAFETY: it was allocated above with this layout, and is removed from the list only once.
        unsafe { dealloc(address.cast(), layout) };
        Ok(())
    })
}

/// # Safety
/// None is needed: the memory itself is left alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostRegister_v2(
    address: usize,
    bytes: usize,
    _flags: c_uint,
) -> CuResult {
    with_context(|_| {
        if address == 0 || bytes == 0 {
            return Err(CuResult::ERROR_INVALID_VALUE);
        }
        let mut registered = lock(&REGISTERED);
        let registered = registered.get_or_insert_default();
        let overlaps = |(start, length): (&usize, &usize)| {
            *start < address + bytes && address < start + length
        };
        if registered.iter().any(overlaps) {
            return Err(CuResult::ERROR_HOST_MEMORY_ALREADY_REGISTERED);
        }
        registered.insert(address, bytes);
        Ok(())
    })
}

/// # Safety
/// None is needed: the memory itself is left alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostUnregister(address: usize) -> CuResult {
    with_context(|driver| {
        let mut registered = lock(&REGISTERED);
        let removed = registered.as_mut().and_then(|all| all.remove(&address));
        let bytes = removed.ok_or(CuResult::ERROR_HOST_MEMORY_NOT_REGISTERED)?;
        driver.check_host_free(address, bytes)
    })
}
