//! The border to C: what every function of the API checks before it does anything.

use std::ffi::{CStr, c_char};
use std::sync::Arc;

use super::context;
use super::result::CuResult;
use super::state::{Driver, current};

/// What a function of the API comes to, before it is turned into a `CUresult`.
pub type Outcome<T = ()> = Result<T, CuResult>;

/// Runs `work` once `cuInit` was called.
pub fn with_driver(work: impl FnOnce(&Arc<Driver>) -> Outcome) -> CuResult {
    match current() {
        Some(driver) => work(&driver).into(),
        None => CuResult::ERROR_NOT_INITIALIZED,
    }
}

/// Runs `work` if this thread has a living context without an error. Meanwhile the card goes on.
pub fn with_context(work: impl FnOnce(&Arc<Driver>) -> Outcome) -> CuResult {
    with_driver(|driver| {
        driver.go_on();
        context::check(driver)?;
        work(driver)
    })
}

/// Stores a result where the caller wants it.
///
/// # Safety
/// `out` is null or may be written.
pub unsafe fn write<T>(out: *mut T, value: T) -> Outcome {
    if out.is_null() {
        return Err(CuResult::ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, and the caller promises that it may be written; C may have packed it.
    unsafe { out.write_unaligned(value) };
    Ok(())
}

/// Reads what the caller points to.
///
/// # Safety
/// `from` is null or may be read.
pub unsafe fn read<T: Copy>(from: *const T) -> Outcome<T> {
    if from.is_null() {
        return Err(CuResult::ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, and the caller promises that it may be read.
    Ok(unsafe { from.read_unaligned() })
}

/// Reads a C string.
///
/// # Safety
/// `text` is null or a C string that lives as long as the result is used.
pub unsafe fn read_text<'a>(text: *const c_char) -> Outcome<&'a str> {
    if text.is_null() {
        return Err(CuResult::ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, and the caller promises that it is a C string.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| CuResult::ERROR_INVALID_VALUE)
}

/// Writes a C string into a buffer of the caller's, cut to fit.
///
/// # Safety
/// `out` is null or `length` bytes of it may be written.
pub unsafe fn write_text(out: *mut c_char, length: usize, text: &str) -> Outcome {
    if out.is_null() || length == 0 {
        return Err(CuResult::ERROR_INVALID_VALUE);
    }
    let kept = text.len().min(length - 1);
    // SAFETY: `kept + 1 <= length` bytes, which the caller promises may be written.
    unsafe {
        out.cast::<u8>()
            .copy_from_nonoverlapping(text.as_ptr(), kept);
        out.add(kept).write(0);
    }
    Ok(())
}
