//! The build with CUDA where CUDA is missing or broken: a folder on LD_LIBRARY_PATH decides what the
//! dynamic loader finds, so these tests say the same on every machine.
#![cfg(feature = "cuda")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// `taper plan` for this machine's first GPU, with the driver library in `folder`.
fn plan_for_the_gpu(folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_taper"))
        .args(["plan", "--config", "quickstart.toml", "--device", "cuda"])
        .env("LD_LIBRARY_PATH", folder)
        .output()
        .unwrap()
}

/// A `libcuda.so.1` of these C functions in a folder of its own.
fn driver(functions: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("driver.c");
    fs::write(&source, functions).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&folder.path().join("libcuda.so.1"), &source])
        .status()
        .unwrap();
    assert!(built.success());
    folder
}

/// Exit code 1, and each of these words on stderr.
fn assert_refused(output: &Output, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    for word in words {
        assert!(stderr.contains(word), "no `{word}` in {stderr}");
    }
    assert_eq!(output.status.code(), Some(1), "{stderr}");
}

#[test]
fn no_library_of_cuda_is_needed_to_start() {
    let mapped = fs::read_to_string("/proc/self/maps").unwrap();
    for library in ["libcuda", "libcublas", "libcurand", "libnvrtc"] {
        assert!(!mapped.contains(library), "{mapped}");
    }
}

#[test]
fn a_missing_driver_is_named_and_can_be_helped() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["libcuda.so.1", "libcuda.so"] {
        fs::write(folder.path().join(name), "not a library").unwrap();
    }
    let words = ["`libcuda.so.1` cannot be loaded", "hint: install", "system.device=cpu"];
    assert_refused(&plan_for_the_gpu(folder.path()), &words);
}

#[test]
fn a_function_that_the_driver_lacks_is_named() {
    let folder = driver("int cuInit(unsigned flags) { return 0; }");
    let words = ["`libcuda.so.1` has no `cuDeviceGet`", "older than this build"];
    assert_refused(&plan_for_the_gpu(folder.path()), &words);
}

#[test]
fn a_driver_without_a_gpu_says_so() {
    let folder = driver("int cuInit(unsigned flags) { return 100; }");
    assert_refused(&plan_for_the_gpu(folder.path()), &["finds no GPU", "nvidia-smi"]);
}

#[test]
fn an_error_of_the_driver_comes_with_its_number_and_its_text() {
    let folder = driver(
        "int cuInit(unsigned flags) { return 802; }
         int cuGetErrorString(int error, const char **text) { *text = \"not yet\"; return 0; }",
    );
    assert_refused(&plan_for_the_gpu(folder.path()), &["not yet (CUDA error 802)"]);
}
