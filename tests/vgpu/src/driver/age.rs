//! The age of a driver: functions, PTX and cards that are newer than it, and code that it loads early.
//!
//! A function that the card's driver is too old for is not exported: the dynamic symbol loses its value when this
//! library is loaded, so that `dlsym` does not find it.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::{env, io, process, ptr};

use super::lookup;
use super::state::say;
use crate::card::Card;

/// A version of CUDA, (major, minor).
type Cuda = (u32, u32);

/// Functions that CUDA 12.1 lacks, by the version that brought them: those of this driver whose declarations in `cuda.h`
/// begin there, as cudarc's bindings of each version have them.
const NEWER: [(Cuda, &[&str]); 7] = [
    (
        (12, 2),
        &[
            "cuGraphAddNode",
            "cuGraphExecNodeSetParams",
            "cuGraphNodeSetParams",
            "cuMemAdvise_v2",
            "cuMemPrefetchAsync_v2",
        ],
    ),
    (
        (12, 3),
        &[
            "cuFuncGetName",
            "cuGraphAddDependencies_v2",
            "cuGraphAddNode_v2",
            "cuGraphConditionalHandleCreate",
            "cuGraphGetEdges_v2",
            "cuGraphNodeGetDependencies_v2",
            "cuGraphNodeGetDependentNodes_v2",
            "cuGraphRemoveDependencies_v2",
            "cuKernelGetName",
            "cuStreamBeginCaptureToGraph",
            "cuStreamGetCaptureInfo_v3",
            "cuStreamUpdateCaptureDependencies_v2",
        ],
    ),
    (
        (12, 4),
        &[
            "cuCtxFromGreenCtx",
            "cuCtxGetDevResource",
            "cuDevResourceGenerateDesc",
            "cuDevSmResourceSplitByCount",
            "cuDeviceGetDevResource",
            "cuDeviceRegisterAsyncNotification",
            "cuDeviceUnregisterAsyncNotification",
            "cuFuncGetParamInfo",
            "cuFuncIsLoaded",
            "cuFuncLoad",
            "cuGreenCtxCreate",
            "cuGreenCtxDestroy",
            "cuGreenCtxGetDevResource",
            "cuGreenCtxRecordEvent",
            "cuGreenCtxWaitEvent",
            "cuKernelGetParamInfo",
            "cuLibraryEnumerateKernels",
            "cuLibraryGetKernelCount",
            "cuModuleEnumerateFunctions",
            "cuModuleGetFunctionCount",
            "cuStreamGetGreenCtx",
        ],
    ),
    (
        (12, 5),
        &[
            "cuCtxCreate_v4",
            "cuCtxRecordEvent",
            "cuCtxWaitEvent",
            "cuGreenCtxStreamCreate",
            "cuKernelGetLibrary",
            "cuStreamGetCtx_v2",
        ],
    ),
    (
        (12, 8),
        &[
            "cuCheckpointProcessCheckpoint",
            "cuCheckpointProcessGetRestoreThreadId",
            "cuCheckpointProcessGetState",
            "cuCheckpointProcessLock",
            "cuCheckpointProcessRestore",
            "cuCheckpointProcessUnlock",
            "cuEventElapsedTime_v2",
            "cuMemBatchDecompressAsync",
            "cuMemcpy3DBatchAsync",
            "cuMemcpyBatchAsync",
            "cuStreamGetDevice",
            "cuTensorMapEncodeIm2colWide",
        ],
    ),
    (
        (12, 9),
        &[
            "cuLogsCurrent",
            "cuLogsDumpToFile",
            "cuLogsDumpToMemory",
            "cuLogsRegisterCallback",
            "cuLogsUnregisterCallback",
        ],
    ),
    (
        (13, 0),
        &[
            "cuCtxGetDevice_v2",
            "cuCtxSynchronize_v2",
            "cuDeviceGetHostAtomicCapabilities",
            "cuDeviceGetP2PAtomicCapabilities",
            "cuGreenCtxGetId",
            "cuMemDiscardAndPrefetchBatchAsync",
            "cuMemDiscardBatchAsync",
            "cuMemGetDefaultMemPool",
            "cuMemGetMemPool",
            "cuMemPrefetchBatchAsync",
            "cuMemSetMemPool",
            "cuMemcpy3DBatchAsync_v2",
            "cuMemcpyBatchAsync_v2",
        ],
    ),
];

/// Whether a driver has a function that this one has.
pub fn has(driver: Cuda, function: &str) -> bool {
    !newer_than(driver).any(|name| name == function)
}

fn newer_than(driver: Cuda) -> impl Iterator<Item = &'static str> {
    let newer = NEWER.iter().filter(move |(since, _)| *since > driver);
    newer.flat_map(|(_, names)| names.iter().copied())
}

/// The newest PTX that a driver takes: "PTX Release History" in the PTX ISA's "Release Notes".
pub fn ptx_isa(driver: Cuda) -> (u32, u32) {
    match driver {
        (13, minor) => (9, minor),
        (12, 9) => (8, 8),
        (12, 8) => (8, 7),
        (12, 7) => (8, 6),
        (12, minor) => (8, minor.min(5)),
        (11, minor) => (7, minor.min(8)),
        (major, _) if major > 13 => (9, 9),
        _ => (6, 5),
    }
}

/// The first CUDA that knew cards of a compute capability: `sm_XX` in the same table.
pub fn oldest_driver(compute_capability: (u32, u32)) -> Cuda {
    match compute_capability {
        (12, 1) => (12, 9),
        (10 | 12, _) => (12, 8),
        (9, _) | (8, 9) => (11, 8),
        (8, 7) => (11, 4),
        (8, 6) => (11, 1),
        (8, _) => (11, 0),
        _ => (10, 0),
    }
}

/// Whether a driver loads all code of a library at once: before CUDA 12.2 unless CUDA_MODULE_LOADING is LAZY, from then on only
/// if it is EAGER ("Lazy Loading" in the CUDA C++ Programming Guide).
pub fn loads_eagerly(driver: Cuda) -> bool {
    match env::var("CUDA_MODULE_LOADING") {
        Ok(mode) if mode == "LAZY" => false,
        Ok(mode) if mode == "EAGER" => true,
        _ => driver < (12, 2),
    }
}

/// Takes what is newer than the environment's driver out of the symbols of this library.
extern "C" fn hide_what_is_newer() {
    // What is wrong with the card is said when the driver is started.
    if let Ok(card) = Card::from_environment() {
        for name in newer_than(card.driver) {
            if let Some(function) = lookup::function(name) {
                // SAFETY: nothing looks a symbol up while the library that has it is being loaded.
                unsafe { hide(name, function) };
            }
        }
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOADING: extern "C" fn() = hide_what_is_newer;

/// `Elf64_Sym` of elf.h.
#[repr(C)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: u64,
    size: u64,
}

/// `RTLD_DL_SYMENT`: the entry of the symbol table is asked for.
const ENTRY: c_int = 1;

unsafe extern "C" {
    fn dladdr1(
        address: *const c_void,
        info: *mut libc::Dl_info,
        extra: *mut *mut c_void,
        flags: c_int,
    ) -> c_int;
}

/// Makes the dynamic symbol of a function one without a value, which is none to a lookup. Does nothing where the
/// function is not exported.
///
/// # Safety
/// Nothing uses the symbol table of this library meanwhile.
unsafe fn hide(name: &str, function: *const ()) {
    let mut info = libc::Dl_info {
        dli_fname: ptr::null(),
        dli_fbase: ptr::null_mut(),
        dli_sname: ptr::null(),
        dli_saddr: ptr::null_mut(),
    };
    let mut entry: *mut c_void = ptr::null_mut();
    // SAFETY: both are variables to write to.
    let found = unsafe { dladdr1(function.cast(), &mut info, &mut entry, ENTRY) };
    if found == 0 || entry.is_null() || info.dli_sname.is_null() {
        return;
    }
    // SAFETY: a name of the library's symbol table.
    if unsafe { CStr::from_ptr(info.dli_sname.cast::<c_char>()) }.to_bytes() != name.as_bytes() {
        return;
    }
    // SAFETY: always answered.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    let first = entry as usize / page * page;
    let bytes = (entry as usize + size_of::<Symbol>()).next_multiple_of(page) - first;
    // SAFETY: these pages hold the symbol, and are a private copy of the file's, which stays writable.
    unsafe {
        if libc::mprotect(
            first as *mut c_void,
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
        ) != 0
        {
            let error = io::Error::last_os_error();
            say(&format!("`{name}` cannot be hidden: {error}"));
            process::abort();
        }
        (*entry.cast::<Symbol>()).value = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_that_can_be_missing_is_one_of_this_driver() {
        for name in newer_than((0, 0)) {
            assert!(lookup::function(name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_driver_has_what_its_version_brought() {
        assert!(!has((12, 1), "cuEventElapsedTime_v2") && has((12, 8), "cuEventElapsedTime_v2"));
        assert!(has((12, 1), "cuEventElapsedTime") && has((12, 1), "cuTensorMapEncodeTiled"));
        assert!(newer_than((13, 0)).next().is_none());
    }
}
