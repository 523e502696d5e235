//! The build with CUDA where CUDA is missing or broken: a folder on LD_LIBRARY_PATH decides what the
//! dynamic loader finds, so these tests say the same on every machine.
#![cfg(feature = "cuda")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use candle_core::{Device, Tensor};

/// `taper plan` for a GPU of this machine, with the driver library in `folder`.
fn plan_for(device: &str, folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_taper"))
        .args(["plan", "--config", "quickstart.toml", "--device", device])
        .env("LD_LIBRARY_PATH", folder)
        .output()
        .unwrap()
}

/// A `libcuda.so.1` of these C functions in a folder of its own.
fn driver(functions: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    compile(functions, &folder.path().join("libcuda.so.1"));
    folder
}

/// Makes a shared library of C functions.
fn compile(functions: &str, library: &Path) {
    let source = library.with_extension("c");
    fs::write(&source, functions).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([library, &source])
        .status()
        .unwrap();
    assert!(built.success());
}

/// Puts libraries of CUDA 13 beside a driver, which can do nothing but tell their versions.
fn add_libraries(folder: &Path) {
    let libraries = [
        (
            "libcublasLt.so.13",
            "unsigned long cublasLtGetVersion(void) { return 130000; }",
        ),
        (
            "libcublas.so.13",
            "int cublasGetProperty(int part, int *value) { *value = part == 0 ? 13 : 0; return 0; }",
        ),
        (
            "libcurand.so.10",
            "int curandGetVersion(int *version) { *version = 10400; return 0; }",
        ),
    ];
    for (file, functions) in libraries {
        compile(functions, &folder.join(file));
    }
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
    // glibc's loader lists what it would load, as for `ldd`.
    let output = Command::new(env!("CARGO_BIN_EXE_taper"))
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .output()
        .unwrap();
    let needed = String::from_utf8_lossy(&output.stdout);
    assert!(needed.contains("libc.so"), "{needed}");
    for library in ["libcu", "libnv"] {
        assert!(!needed.contains(library), "{needed}");
    }
}

#[test]
fn a_missing_driver_is_named_and_can_be_helped() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["libcuda.so.1", "libcuda.so"] {
        fs::write(folder.path().join(name), "not a library").unwrap();
    }
    let words = [
        "`libcuda.so.1` cannot be loaded",
        "hint: install",
        "system.device=cpu",
    ];
    assert_refused(&plan_for("cuda", folder.path()), &words);
}

#[test]
fn a_function_that_the_driver_lacks_is_named() {
    let folder = driver("int cuInit(unsigned flags) { return 0; }");
    let words = [
        "/libcuda.so.1` has no `cuDeviceGet`",
        "older than CUDA 12.1",
    ];
    assert_refused(&plan_for("cuda", folder.path()), &words);
}

#[test]
fn a_driver_without_a_gpu_says_so() {
    let folder = driver("int cuInit(unsigned flags) { return 100; }");
    assert_refused(
        &plan_for("cuda", folder.path()),
        &["finds no GPU", "nvidia-smi"],
    );
}

#[test]
fn an_error_of_the_driver_comes_with_its_number_and_its_text() {
    let folder = driver(
        "int cuInit(unsigned flags) { return 802; }
         int cuGetErrorString(int error, const char **text) { *text = \"not yet\"; return 0; }",
    );
    assert_refused(
        &plan_for("cuda", folder.path()),
        &["not yet (CUDA error 802)"],
    );
}

/// A driver of one card, as far as taper asks before it plans: attributes by the numbers of cuda.h.
const ONE_CARD: &str = r#"
    #include <stddef.h>
    #include <string.h>
    static void *current;
    int cuInit(unsigned flags) { return 0; }
    int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
    int cuDeviceGetCount(int *count) { *count = 1; return 0; }
    int cuDeviceGet(int *device, int ordinal) { *device = 7; return ordinal == 0 ? 0 : 101; }
    int cuDeviceGetName(char *name, int bytes, int device) {
        strncpy(name, "NVIDIA GeForce RTX 3060", bytes);
        return device == 7 ? 0 : 101;
    }
    int cuDeviceGetAttribute(int *value, int attribute, int device) {
        switch (attribute) {
            case 16: *value = 28; break;
            case 36: *value = 7501000; break;
            case 37: *value = 192; break;
            case 38: *value = 2359296; break;
            case 75: *value = 8; break;
            case 76: *value = 6; break;
            case 97: *value = 101376; break;
            default: *value = 0;
        }
        return device == 7 ? 0 : 101;
    }
    int cuDevicePrimaryCtxRetain(void **context, int device) { *context = &current; return 0; }
    int cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
    int cuCtxGetCurrent(void **context) { *context = current; return 0; }
    int cuCtxSetCurrent(void *context) { current = context; return 0; }
    int cuMemGetInfo_v2(size_t *free, size_t *total) {
        *free = 2744UL << 20;
        *total = 11971UL << 20;
        return current != NULL ? 0 : 201;
    }
"#;

#[test]
fn a_card_that_is_here_is_planned_for_as_it_is_now() {
    let folder = driver(ONE_CARD);
    add_libraries(folder.path());
    let output = plan_for("cuda", folder.path());
    let stdout = String::from_utf8_lossy(&output.stdout);
    for word in ["RTX 3060", "28 SMs", "8.6", "2.68 GiB"] {
        assert!(stdout.contains(word), "no `{word}` in {stdout}");
    }
}

#[test]
fn a_card_that_is_not_there_is_told_from_those_that_are() {
    let folder = driver(ONE_CARD);
    let words = ["no GPU 5", "counts 1", "nvidia-smi -L"];
    assert_refused(&plan_for("cuda:5", folder.path()), &words);
}

/// On a machine with a GPU, or a stand-in for one: the operations that everything else is made of.
/// Without one: an error, which is what a run would show.
#[test]
fn candle_computes_on_the_gpu_or_says_why_it_cannot() {
    let gpu = match Device::new_cuda(0) {
        Ok(gpu) => gpu,
        Err(error) => {
            assert!(error.to_string().contains("CUDA_ERROR"), "{error}");
            return;
        }
    };
    let on = |device: &Device| -> candle_core::Result<_> {
        let x = Tensor::arange(0f32, 12., device)?.reshape((3, 4))?;
        let product = x.matmul(&x.t()?)?;
        product
            .affine(0.5, 1.)?
            .sqr()?
            .sum_keepdim(1)?
            .to_device(&Device::Cpu)?
            .to_vec2::<f32>()
    };
    // Small integers and halves, so that every order of the sums gives the same.
    assert_eq!(on(&gpu).unwrap(), on(&Device::Cpu).unwrap());
}
