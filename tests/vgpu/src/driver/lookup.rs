//! Functions by their names, and what a person asks after something went wrong.

use std::ffi::{CString, c_char, c_int};
use std::sync::Mutex;

use super::guard::{read_text, write};
use super::refused::{REFUSED, refuse};
use super::result::CuResult;
use super::state::{current, lock};
use super::{
    age, allocation, capture, context, copy, device, event, function, graph, host, launch,
};
use super::{module, occupancy, pool, result, stream, tensor_map};

/// Every implemented function by its name.
macro_rules! implemented {
    ($($module:ident: $($name:ident)*;)*) => {
        const IMPLEMENTED: &[(&str, *const ())] = &[
            $($((stringify!($name), $module::$name as *const ()),)*)*
            ("cuGetProcAddress", cuGetProcAddress as *const ()),
            ("cuGetProcAddress_v2", cuGetProcAddress_v2 as *const ()),
        ];
    };
}

implemented! {
    allocation:
        cuMemAllocAsync cuMemAllocFromPoolAsync cuMemAlloc_v2 cuMemFreeAsync cuMemFree_v2
        cuMemGetAddressRange_v2 cuMemGetInfo_v2 cuPointerGetAttribute;
    capture:
        cuStreamBeginCapture_v2 cuStreamIsCapturing;
    context:
        cuCtxGetCurrent cuCtxGetDevice cuCtxGetFlags cuCtxGetStreamPriorityRange
        cuCtxPopCurrent_v2 cuCtxPushCurrent_v2 cuCtxSetCurrent cuCtxSetFlags cuCtxSynchronize
        cuDevicePrimaryCtxGetState cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxReset_v2
        cuDevicePrimaryCtxRetain cuDevicePrimaryCtxSetFlags_v2;
    copy:
        cuMemcpyDtoDAsync_v2 cuMemcpyDtoD_v2 cuMemcpyDtoHAsync_v2 cuMemcpyDtoH_v2
        cuMemcpyHtoDAsync_v2 cuMemcpyHtoD_v2 cuMemcpyPeer cuMemcpyPeerAsync cuMemsetD16Async
        cuMemsetD16_v2 cuMemsetD32Async cuMemsetD32_v2 cuMemsetD8Async cuMemsetD8_v2;
    device:
        cuDeviceComputeCapability cuDeviceGet cuDeviceGetAttribute cuDeviceGetCount
        cuDeviceGetName cuDeviceGetUuid cuDeviceGetUuid_v2 cuDeviceTotalMem_v2 cuDriverGetVersion
        cuInit;
    event:
        cuEventCreate cuEventDestroy_v2 cuEventElapsedTime cuEventElapsedTime_v2 cuEventQuery
        cuEventRecord cuEventSynchronize;
    function:
        cuFuncGetAttribute cuFuncGetModule cuFuncSetAttribute cuFuncSetCacheConfig
        cuModuleGetFunction;
    graph:
        cuGraphDestroy cuGraphExecDestroy cuGraphGetNodes cuGraphInstantiateWithFlags
        cuGraphInstantiate_v2 cuGraphLaunch cuGraphUpload cuLaunchHostFunc cuStreamEndCapture;
    host:
        cuMemAllocHost_v2 cuMemFreeHost cuMemHostAlloc cuMemHostRegister_v2 cuMemHostUnregister;
    launch:
        cuLaunchKernel cuLaunchKernelEx;
    module:
        cuModuleGetGlobal_v2 cuModuleLoad cuModuleLoadData cuModuleLoadDataEx cuModuleUnload;
    occupancy:
        cuOccupancyMaxActiveBlocksPerMultiprocessor
        cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags cuOccupancyMaxPotentialBlockSize
        cuOccupancyMaxPotentialBlockSizeWithFlags;
    pool:
        cuDeviceGetDefaultMemPool cuDeviceGetMemPool cuDeviceSetMemPool cuMemPoolCreate
        cuMemPoolDestroy cuMemPoolGetAttribute cuMemPoolSetAttribute cuMemPoolTrimTo;
    result:
        cuGetErrorName cuGetErrorString;
    stream:
        cuStreamCreate cuStreamCreateWithPriority cuStreamDestroy_v2 cuStreamGetFlags
        cuStreamGetPriority cuStreamQuery cuStreamSynchronize cuStreamWaitEvent;
    tensor_map:
        cuTensorMapEncodeTiled;
}

/// A function by its full name, implemented or refused, whatever the driver's age.
pub(super) fn function(name: &str) -> Option<*const ()> {
    let mut all = IMPLEMENTED.iter().chain(REFUSED);
    let entry = all.find(|(known, _)| *known == name);
    entry.map(|(_, function)| *function)
}

/// Finds a function the way a driver does: the newest version that it has under a name.
fn find(name: &str) -> Option<*const ()> {
    let exists = |name: &str| current().is_none_or(|driver| age::has(driver.card.driver, name));
    let versions = ["_v4", "_v3", "_v2", ""].map(|version| format!("{name}{version}"));
    let among = |table: &[(&str, *const ())]| {
        let mut found = versions
            .iter()
            .filter(|name| exists(name))
            .filter_map(|name| {
                let entry = table.iter().find(|(known, _)| known == name);
                entry.map(|(_, function)| *function)
            });
        found.next()
    };
    among(IMPLEMENTED).or_else(|| among(REFUSED))
}

/// `CU_GET_PROC_ADDRESS_SUCCESS` and `..._SYMBOL_NOT_FOUND`.
const FOUND: c_int = 0;
const NOT_FOUND: c_int = 1;

/// # Safety
/// `symbol` is null or a C string, `function` null or to be written, `status` null or to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetProcAddress_v2(
    symbol: *const c_char,
    function: *mut *const (),
    version: c_int,
    flags: u64,
    status: *mut c_int,
) -> CuResult {
    // SAFETY: as the caller promises.
    let outcome = unsafe { cuGetProcAddress(symbol, function, version, flags) };
    if !status.is_null() {
        let found = match outcome {
            CuResult::SUCCESS => FOUND,
            _ => NOT_FOUND,
        };
        // SAFETY: not null, and as the caller promises.
        unsafe { status.write(found) };
    }
    outcome
}

/// # Safety
/// `symbol` is null or a C string, `function` null or to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetProcAddress(
    symbol: *const c_char,
    function: *mut *const (),
    _version: c_int,
    _flags: u64,
) -> CuResult {
    // SAFETY: as the caller promises.
    let outcome = unsafe { read_text(symbol) }.and_then(|name| {
        let found = find(name);
        if found.is_none() {
            refuse(name, "this function");
        }
        // SAFETY: as the caller promises.
        unsafe { write(function, found.unwrap_or(std::ptr::null())) }?;
        found.map(|_| ()).ok_or(CuResult::ERROR_NOT_FOUND)
    });
    outcome.into()
}

/// Texts that C may still read.
static KEPT: Mutex<Option<CString>> = Mutex::new(None);

/// What went wrong last, in full, or null: kernel, PTX line, block, thread, address. The text lives
/// until the next call.
///
/// # Safety
/// One thread at a time calls this and reads the text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vgpu_last_fault() -> *const c_char {
    let mut kept = lock(&KEPT);
    *kept = current().and_then(|driver| driver.last_fault());
    kept.as_ref().map_or(std::ptr::null(), |text| text.as_ptr())
}
