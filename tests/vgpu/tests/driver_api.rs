//! The rest of the API: what the card says of itself, contexts, events, errors, names.

mod on_card;

use std::ffi::{CStr, CString};
use std::fs;
use std::path::Path;
use std::ptr::null_mut;

use on_card::{PER_THREAD, check, on, tiny};
use vgpu::driver::context::*;
use vgpu::driver::device::*;
use vgpu::driver::event::*;
use vgpu::driver::lookup::*;
use vgpu::driver::module::cuModuleLoadData;
use vgpu::driver::result::{CuResult, cuGetErrorName, cuGetErrorString};
use vgpu::driver::stream::*;
use vgpu::libraries::blas_lt::cublasLtGetVersion;
use vgpu::libraries::nvml;

fn attribute(attribute: u32) -> i32 {
    let mut value = 0;
    check(unsafe { cuDeviceGetAttribute(&mut value, attribute, 0) });
    value
}

#[test]
fn the_card_says_what_it_is() {
    let _card = on("like = \"t4\"");
    let (mut count, mut device, mut version, mut bytes) = (0, 9, 0, 0);
    check(unsafe { cuDeviceGetCount(&mut count) });
    check(unsafe { cuDeviceGet(&mut device, 0) });
    check(unsafe { cuDriverGetVersion(&mut version) });
    check(unsafe { cuDeviceTotalMem_v2(&mut bytes, 0) });
    assert_eq!(
        (count, device, version, bytes),
        (1, 0, 13_000, 15_094 << 20)
    );
    let mut name = [1; 32];
    check(unsafe { cuDeviceGetName(name.as_mut_ptr(), 32, 0) });
    assert_eq!(unsafe { CStr::from_ptr(name.as_ptr()) }, c"Tesla T4");
    check(unsafe { cuDeviceGetName(name.as_mut_ptr(), 6, 0) });
    assert_eq!(unsafe { CStr::from_ptr(name.as_ptr()) }, c"Tesla");
    // SMs, capability, shared memory per block, the same opted in, threads per SM, pools.
    let found = [16, 75, 76, 8, 97, 39, 115].map(attribute);
    assert_eq!(found, [40, 7, 5, 48 << 10, 64 << 10, 1024, 1]);
    let mut value = 0;
    let unknown = unsafe { cuDeviceGetAttribute(&mut value, 9999, 0) };
    assert_eq!(unknown, CuResult::ERROR_NOT_SUPPORTED);
    assert_eq!(
        unsafe { cuDeviceGet(&mut device, 1) },
        CuResult::ERROR_INVALID_DEVICE
    );
    assert_eq!(
        unsafe { cuDeviceGetCount(null_mut()) },
        CuResult::ERROR_INVALID_VALUE
    );
}

#[test]
fn a_thread_needs_the_living_context() {
    let card = tiny();
    let mut current = 0;
    check(unsafe { cuCtxGetCurrent(&mut current) });
    assert_eq!(current, card.context);
    let other = std::thread::spawn(|| unsafe { cuCtxSynchronize() });
    assert_eq!(other.join().unwrap(), CuResult::ERROR_INVALID_CONTEXT);
    assert_eq!(
        unsafe { cuCtxSetCurrent(1234) },
        CuResult::ERROR_INVALID_CONTEXT
    );
    check(unsafe { cuCtxPushCurrent_v2(card.context) });
    check(unsafe { cuCtxPopCurrent_v2(&mut current) });
    check(unsafe { cuCtxPopCurrent_v2(null_mut()) });
    assert_eq!(
        unsafe { cuCtxSynchronize() },
        CuResult::ERROR_INVALID_CONTEXT
    );
    assert_eq!(
        unsafe { cuCtxPopCurrent_v2(null_mut()) },
        CuResult::ERROR_INVALID_CONTEXT
    );
    check(unsafe { cuCtxSetCurrent(card.context) });
    check(unsafe { cuCtxSynchronize() });
}

#[test]
fn an_error_stays_on_its_context_until_that_is_reset() {
    let card = tiny();
    let mut address = 0;
    // A product outside of memory would do, too; a kernel needs no module here.
    let memory = |memory: &vgpu::memory::ForOperation| memory.copy_out(0x10, &mut [0; 4]);
    let work = vgpu::driver::operation::Operation::Library {
        name: "a product",
        work: std::sync::Arc::new(memory),
    };
    // The launch itself succeeds, as on a card that works on its own.
    assert!(card.driver.submit(PER_THREAD, work).is_ok());
    let failed = CuResult::ERROR_ILLEGAL_ADDRESS;
    assert_eq!(unsafe { cuStreamSynchronize(PER_THREAD) }, failed);
    assert_eq!(unsafe { cuCtxSynchronize() }, failed);
    assert_eq!(card.alloc(16), Err(failed));
    assert_eq!(unsafe { cuStreamCreate(&mut address, 0) }, failed);
    assert!(card.last_fault().contains("0x10"), "{}", card.last_fault());
    check(unsafe { cuDevicePrimaryCtxReset_v2(0) });
    let mut context = 0;
    check(unsafe { cuDevicePrimaryCtxRetain(&mut context, 0) });
    assert_ne!(context, card.context);
    assert_eq!(card.alloc(16), Err(CuResult::ERROR_CONTEXT_IS_DESTROYED));
    check(unsafe { cuCtxSetCurrent(context) });
    card.alloc(16).unwrap();
}

#[test]
fn events_keep_the_time_unless_they_were_told_not_to() {
    let _card = tiny();
    let make = |flags| {
        let mut event = 0;
        check(unsafe { cuEventCreate(&mut event, flags) });
        event
    };
    let (start, end, untimed) = (make(0), make(0), make(2));
    let mut elapsed = -1.0;
    let elapsed_between =
        |elapsed: &mut f32, start, end| unsafe { cuEventElapsedTime_v2(elapsed, start, end) };
    let never = elapsed_between(&mut elapsed, start, end);
    assert_eq!(never, CuResult::ERROR_INVALID_HANDLE);
    for event in [start, untimed, end] {
        check(unsafe { cuEventRecord(event, PER_THREAD) });
        check(unsafe { cuEventQuery(event) });
    }
    check(elapsed_between(&mut elapsed, start, end));
    assert!(elapsed >= 0.0);
    check(elapsed_between(&mut elapsed, end, start));
    assert!(elapsed <= 0.0);
    let untimed = elapsed_between(&mut elapsed, start, untimed);
    assert_eq!(untimed, CuResult::ERROR_INVALID_HANDLE);
    check(unsafe { cuEventDestroy_v2(start) });
    assert_eq!(
        unsafe { cuEventDestroy_v2(start) },
        CuResult::ERROR_INVALID_HANDLE
    );
    assert_eq!(
        unsafe { cuEventRecord(end, 77) },
        CuResult::ERROR_INVALID_HANDLE
    );
}

#[test]
fn errors_have_the_drivers_names_and_words() {
    let name_and_text = |error| {
        let (mut name, mut text) = (std::ptr::null(), std::ptr::null());
        check(unsafe { cuGetErrorName(error, &mut name) });
        check(unsafe { cuGetErrorString(error, &mut text) });
        unsafe { (CStr::from_ptr(name), CStr::from_ptr(text)) }
    };
    let (name, text) = name_and_text(CuResult(2));
    assert_eq!(
        (name, text),
        (c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory")
    );
    let (name, _) = name_and_text(CuResult(700));
    assert_eq!(name, c"CUDA_ERROR_ILLEGAL_ADDRESS");
    let mut name = c"".as_ptr();
    let unknown = unsafe { cuGetErrorName(CuResult(12_345), &mut name) };
    assert_eq!(unknown, CuResult::ERROR_INVALID_VALUE);
    assert!(name.is_null());
}

fn look_up(name: &str) -> Result<*const (), CuResult> {
    let symbol = CString::new(name).unwrap();
    let (mut function, mut status) = (std::ptr::null(), -1);
    let result =
        unsafe { cuGetProcAddress_v2(symbol.as_ptr(), &mut function, 13_000, 0, &mut status) };
    assert_eq!(status == 0, result == CuResult::SUCCESS);
    (result == CuResult::SUCCESS)
        .then_some(function)
        .ok_or(result)
}

#[test]
fn functions_are_found_by_name_in_their_newest_version() {
    assert_eq!(look_up("cuInit"), Ok(cuInit as *const ()));
    let alloc = vgpu::driver::allocation::cuMemAlloc_v2 as *const ();
    assert_eq!(look_up("cuMemAlloc"), Ok(alloc));
    assert_eq!(look_up("cuMemAlloc_v2"), Ok(alloc));
    assert_eq!(look_up("cuNoSuchThing"), Err(CuResult::ERROR_NOT_FOUND));
}

#[test]
fn an_older_driver_has_no_newer_functions_and_takes_no_newer_ptx() {
    let card = on("like = \"rtx3060\"\ndriver = [12, 1]");
    let (old, new) = (
        cuEventElapsedTime as *const (),
        cuEventElapsedTime_v2 as *const (),
    );
    assert_eq!(look_up("cuEventElapsedTime"), Ok(old));
    assert_eq!(
        look_up("cuEventElapsedTime_v2"),
        Err(CuResult::ERROR_NOT_FOUND)
    );
    assert_eq!(look_up("cuLogsCurrent"), Err(CuResult::ERROR_NOT_FOUND));
    let load = |version: &str| {
        let text = format!(".version {version}\n.target sm_80\n.address_size 64\n");
        let (text, mut module) = (CString::new(text).unwrap(), 0);
        unsafe { cuModuleLoadData(&mut module, text.as_ptr()) }
    };
    assert_eq!(load("8.1"), CuResult::SUCCESS);
    assert_eq!(load("8.2"), CuResult::ERROR_UNSUPPORTED_PTX_VERSION);
    let mut version = 0;
    assert_eq!(
        unsafe { cuDriverGetVersion(&mut version) },
        CuResult::SUCCESS
    );
    assert_eq!((version, cublasLtGetVersion()), (12_010, 120_100));
    drop(card);

    let _card = on("like = \"rtx3060\"");
    assert_eq!(look_up("cuEventElapsedTime"), Ok(new));
    assert_eq!(load("9.0"), CuResult::SUCCESS);
    assert_eq!(load("9.1"), CuResult::ERROR_UNSUPPORTED_PTX_VERSION);
    assert_eq!(cublasLtGetVersion(), 130_000);
}

#[test]
fn what_is_not_implemented_is_found_and_refuses() {
    let function = look_up("cuArrayCreate").unwrap();
    // SAFETY: refused functions read no arguments.
    let function: unsafe extern "C" fn() -> CuResult = unsafe { std::mem::transmute(function) };
    assert_eq!(unsafe { function() }, CuResult::ERROR_NOT_SUPPORTED);
}

/// Every `cu*` function that the sources define can be looked up.
#[test]
fn no_implemented_function_is_forgotten_by_the_lookup() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/driver");
    let mut found = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in text.lines() {
            let defined = line.strip_prefix("pub unsafe extern \"C\" fn cu");
            let in_pairs = line
                .strip_prefix("    cuMem")
                .filter(|rest| rest.contains("Async"));
            let names = match (defined, in_pairs) {
                (Some(rest), _) => vec![format!("cu{}", rest.split('(').next().unwrap())],
                (_, Some(_)) => line.split_whitespace().take(2).map(str::to_owned).collect(),
                _ => continue,
            };
            for name in names.iter().filter(|name| name.starts_with("cu")) {
                assert!(look_up(name).is_ok(), "{name}");
                found += 1;
            }
        }
    }
    assert!(found > 90, "{found}");
}

#[test]
fn nvml_tells_of_the_card_and_of_who_uses_it() {
    let card = on("like = \"t4\"\nused_bytes = \"3GiB\"");
    card.alloc(1 << 30).unwrap();
    let (mut device, mut cores, mut clock) = (0, 0, 0);
    let ok = nvml::Status::SUCCESS;
    assert_eq!(unsafe { nvml::nvmlInit_v2() }, ok);
    assert_eq!(
        unsafe { nvml::nvmlDeviceGetHandleByIndex_v2(0, &mut device) },
        ok
    );
    assert_eq!(
        unsafe { nvml::nvmlDeviceGetNumGpuCores(device, &mut cores) },
        ok
    );
    assert_eq!(
        unsafe { nvml::nvmlDeviceGetMaxClockInfo(device, 2, &mut clock) },
        ok
    );
    assert_eq!((cores, clock), (2560, 5001));
    let mut memory = [0u64; 5];
    let info = memory.as_mut_ptr().cast();
    assert_eq!(
        unsafe { nvml::nvmlDeviceGetMemoryInfo_v2(device, info) },
        ok
    );
    let [_, total, reserved, free, used] = memory;
    // The context holds 150 MiB.
    assert_eq!((total, reserved), (15_094 << 20, 0));
    assert_eq!((free, used), (total - used, (4096 + 150) << 20));
    let mut count = 0;
    let processes = nvml::nvmlDeviceGetComputeRunningProcesses_v3;
    let asked = unsafe { processes(device, &mut count, null_mut()) };
    assert_eq!((asked, count), (nvml::Status::INSUFFICIENT_SIZE, 2));
    let mut infos = [[0u64; 3]; 2];
    assert_eq!(
        unsafe { processes(device, &mut count, infos.as_mut_ptr().cast()) },
        ok
    );
    assert_eq!(infos.map(|info| info[1] >> 20), [1024 + 150, 3072]);
    assert_eq!(infos[0][0] as u32, std::process::id());
    let mut name = [0; 16];
    let others = infos[1][0] as u32;
    assert_eq!(
        unsafe { nvml::nvmlSystemGetProcessName(others, name.as_mut_ptr(), 16) },
        ok
    );
    assert_eq!(unsafe { CStr::from_ptr(name.as_ptr()) }, c"others");
}
