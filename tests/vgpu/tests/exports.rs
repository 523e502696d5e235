//! What the shared library exports depends on the age of the driver that it stands for.

use std::ffi::CString;
use std::path::PathBuf;
use std::process::Command;
use std::{env, ptr};

use vgpu::card::{CARD_VARIABLE, DRIVER_VARIABLE};

/// The shared library, built beside the tests.
fn library() -> PathBuf {
    env::current_exe().unwrap().with_file_name("libvgpu.so")
}

/// Prints which of some functions the library exports, in a process of its own.
#[test]
#[ignore = "run by another test"]
fn print_exports() {
    let path = CString::new(library().into_os_string().into_encoded_bytes()).unwrap();
    // SAFETY: the library's constructor only reads the environment.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    assert_ne!(handle, ptr::null_mut(), "{}", library().display());
    for name in [
        c"cuEventElapsedTime",
        c"cuEventElapsedTime_v2",
        c"cuMemAdvise_v2",
        c"cuInit",
        c"cublasLtMatmulAlgoConfigGetAttribute",
    ] {
        // SAFETY: the handle is the library's.
        let found = !unsafe { libc::dlsym(handle, name.as_ptr()) }.is_null();
        println!("{} {found}", name.to_string_lossy());
    }
}

fn exports(driver: &str) -> Vec<String> {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "print_exports", "--nocapture"])
        .envs([(CARD_VARIABLE, "rtx3060"), (DRIVER_VARIABLE, driver)])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let found = text.lines().filter_map(|line| line.strip_suffix(" true"));
    found
        .map(|line| line.split(' ').next_back().unwrap_or(line).to_owned())
        .collect()
}

#[test]
fn functions_that_are_newer_than_the_driver_are_not_exported() {
    let (old, new, advise) = (
        "cuEventElapsedTime",
        "cuEventElapsedTime_v2",
        "cuMemAdvise_v2",
    );
    let [driver, library] = ["cuInit", "cublasLtMatmulAlgoConfigGetAttribute"];
    assert_eq!(exports("12.1"), [old, driver, library]);
    assert_eq!(exports("12.2"), [old, advise, driver, library]);
    assert_eq!(exports("13.0"), [old, new, advise, driver, library]);
}
