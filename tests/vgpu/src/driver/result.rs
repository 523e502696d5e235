//! What a driver function returns, under the driver's own names and words.

use std::ffi::{CStr, c_char};

use super::guard::{Outcome, write};

/// A `CUresult`.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CuResult(pub u32);

/// Every result this driver gives: value, name and the text that a real driver has for it.
macro_rules! results {
    ($($value:literal $name:ident $text:literal;)*) => {
        impl CuResult {
            $(#[doc = $text] pub const $name: CuResult = CuResult($value);)*

            /// The name with its `CUDA_` prefix, and the text; nothing for a value that is not one.
            fn words(self) -> Option<(&'static str, &'static str)> {
                match self.0 {
                    $($value => Some((
                        concat!("CUDA_", stringify!($name), "\0"),
                        concat!($text, "\0"),
                    )),)*
                    _ => None,
                }
            }
        }
    };
}

results! {
    0 SUCCESS "no error";
    1 ERROR_INVALID_VALUE "invalid argument";
    2 ERROR_OUT_OF_MEMORY "out of memory";
    3 ERROR_NOT_INITIALIZED "initialization error";
    4 ERROR_DEINITIALIZED "driver shutting down";
    34 ERROR_STUB_LIBRARY "CUDA driver is a stub library";
    100 ERROR_NO_DEVICE "no CUDA-capable device is detected";
    101 ERROR_INVALID_DEVICE "invalid device ordinal";
    200 ERROR_INVALID_IMAGE "device kernel image is invalid";
    201 ERROR_INVALID_CONTEXT "invalid device context";
    209 ERROR_NO_BINARY_FOR_GPU "no kernel image is available for execution on the device";
    218 ERROR_INVALID_PTX "a PTX JIT compilation failed";
    222 ERROR_UNSUPPORTED_PTX_VERSION "the provided PTX was compiled with an unsupported toolchain.";
    301 ERROR_FILE_NOT_FOUND "file not found";
    304 ERROR_OPERATING_SYSTEM "OS call failed or operation not supported on this OS";
    400 ERROR_INVALID_HANDLE "invalid resource handle";
    401 ERROR_ILLEGAL_STATE "the operation cannot be performed in the present state";
    500 ERROR_NOT_FOUND "named symbol not found";
    600 ERROR_NOT_READY "device not ready";
    700 ERROR_ILLEGAL_ADDRESS "an illegal memory access was encountered";
    701 ERROR_LAUNCH_OUT_OF_RESOURCES "too many resources requested for launch";
    708 ERROR_PRIMARY_CONTEXT_ACTIVE "cannot set while device is active in this process";
    709 ERROR_CONTEXT_IS_DESTROYED "context is destroyed";
    710 ERROR_ASSERT "device-side assert triggered";
    712 ERROR_HOST_MEMORY_ALREADY_REGISTERED "part or all of the requested memory range is already mapped";
    713 ERROR_HOST_MEMORY_NOT_REGISTERED "pointer does not correspond to a registered memory region";
    715 ERROR_ILLEGAL_INSTRUCTION "an illegal instruction was encountered";
    716 ERROR_MISALIGNED_ADDRESS "misaligned address";
    717 ERROR_INVALID_ADDRESS_SPACE "operation not supported on global/shared address space";
    719 ERROR_LAUNCH_FAILED "unspecified launch failure";
    720 ERROR_COOPERATIVE_LAUNCH_TOO_LARGE "too many blocks in cooperative launch";
    800 ERROR_NOT_PERMITTED "operation not permitted";
    801 ERROR_NOT_SUPPORTED "operation not supported";
    900 ERROR_STREAM_CAPTURE_UNSUPPORTED "operation not permitted when stream is capturing";
    901 ERROR_STREAM_CAPTURE_INVALIDATED "operation failed due to a previous error during capture";
    902 ERROR_STREAM_CAPTURE_MERGE "operation would result in a merge of separate capture sequences";
    903 ERROR_STREAM_CAPTURE_UNMATCHED "capture was not ended in the same stream as it began";
    904 ERROR_STREAM_CAPTURE_UNJOINED "capturing stream has unjoined work";
    905 ERROR_STREAM_CAPTURE_ISOLATION "dependency created on uncaptured work in another stream";
    906 ERROR_STREAM_CAPTURE_IMPLICIT "operation would make the legacy stream depend on a capturing blocking stream";
    907 ERROR_CAPTURED_EVENT "operation not permitted on an event last recorded in a capturing stream";
    908 ERROR_STREAM_CAPTURE_WRONG_THREAD "attempt to terminate a thread-local capture sequence from another thread";
    999 ERROR_UNKNOWN "unknown error";
}

impl std::fmt::Debug for CuResult {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.words() {
            Some((name, _)) => formatter.write_str(name.trim_end_matches('\0')),
            None => write!(formatter, "CUresult {}", self.0),
        }
    }
}

impl From<Outcome> for CuResult {
    fn from(outcome: Outcome) -> CuResult {
        match outcome {
            Ok(()) => CuResult::SUCCESS,
            Err(error) => error,
        }
    }
}

/// # Safety
/// `name` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(error: CuResult, name: *mut *const c_char) -> CuResult {
    // SAFETY: as the caller promises.
    unsafe { write_text(name, error.words().map(|(name, _)| name)) }
}

/// # Safety
/// `text` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(error: CuResult, text: *mut *const c_char) -> CuResult {
    // SAFETY: as the caller promises.
    unsafe { write_text(text, error.words().map(|(_, text)| text)) }
}

/// # Safety
/// `out` is null or may be written.
unsafe fn write_text(out: *mut *const c_char, text: Option<&'static str>) -> CuResult {
    let text = text.and_then(|text| CStr::from_bytes_with_nul(text.as_bytes()).ok());
    let pointer = text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: as the caller promises.
    match unsafe { write(out, pointer) } {
        Ok(()) if pointer.is_null() => CuResult::ERROR_INVALID_VALUE,
        outcome => outcome.into(),
    }
}
