//! Drivers of other ages, and CUDA's libraries in the places where people have them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::{TempDir, tempdir};

use crate::process::{Outcome, tiny};
use crate::runs::{Place, assert_same_numbers, outcome};

/// The shared library of the virtual GPU, which a driver and libraries are links to.
fn virtual_gpu() -> PathBuf {
    let path = std::env::var_os("LD_LIBRARY_PATH").expect("scripts/vgpu sets it");
    let driver = std::env::split_paths(&path).map(|folder| folder.join("libcuda.so.1"));
    let driver = driver.filter_map(|file| file.canonicalize().ok()).next();
    driver.expect("scripts/vgpu links it")
}

/// A machine whose driver lies alone on ld.so's path.
struct Machine {
    place: Place,
    driver: &'static str,
    root: TempDir,
}

const BLAS: [&str; 2] = ["libcublas.so.12", "libcublasLt.so.12"];
const RAND: [&str; 1] = ["libcurand.so.10"];

impl Machine {
    /// Nothing where CUDA's libraries lie in places that every program looks into.
    fn new(driver: &'static str) -> Option<Self> {
        let place = Place::new()?;
        let known = Command::new("sh")
            .args(["-c", "ldconfig -p || /sbin/ldconfig -p"])
            .output();
        let known = String::from_utf8_lossy(&known.unwrap().stdout).into_owned();
        let in_the_way = known.contains("libcublas") || known.contains("libcurand");
        if in_the_way || Path::new("/usr/local/cuda").exists() {
            eprintln!("skipped, for this machine has CUDA's libraries");
            return None;
        }
        let machine = Self {
            place,
            driver,
            root: tempdir().unwrap(),
        };
        machine.has("driver", &["libcuda.so.1", "libnvidia-ml.so.1"]);
        machine.has_python();
        Some(machine)
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    /// Puts libraries into a folder.
    fn has(&self, folder: &str, files: &[&str]) {
        fs::create_dir_all(self.path(folder)).unwrap();
        for file in files {
            symlink(virtual_gpu(), self.path(folder).join(file)).unwrap();
        }
    }

    /// Puts libraries of CUDA 13 into a folder. cuBLAS's tell by their names, and are not to be opened; cuRAND's can
    /// only tell its version.
    fn has_cuda_13(&self, folder: &str) {
        let folder = self.path(folder);
        fs::create_dir_all(&folder).unwrap();
        for file in ["libcublas.so.13", "libcublasLt.so.13"] {
            fs::write(folder.join(file), "no library at all").unwrap();
        }
        let source = self.path("rand.c");
        let version = "int curandGetVersion(int *version) { *version = 10400; return 0; }\n";
        fs::write(&source, version).unwrap();
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-o"])
            .arg(folder.join(RAND[0]))
            .arg(source);
        assert!(compiler.status().unwrap().success());
    }

    /// Makes Python one of Conda's, which says that its packages are in `site-packages`.
    fn has_python(&self) {
        let (root, packages) = (self.path("conda"), self.path("site-packages"));
        fs::create_dir_all(root.join("bin")).unwrap();
        let python = root.join("bin/python3");
        let (root, packages) = (root.display(), packages.display());
        fs::write(
            &python,
            format!("#!/bin/sh\necho '{root}'\necho '{packages}'\n"),
        )
        .unwrap();
        fs::set_permissions(python, Permissions::from_mode(0o755)).unwrap();
    }

    fn taper(&self, arguments: &[&str]) -> Outcome {
        outcome(&mut self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.command(arguments);
        command
            .env("VGPU_DRIVER", self.driver)
            .env("LD_LIBRARY_PATH", self.path("driver"))
            .env("CUDA_HOME", self.path("toolkit"))
            .env("CONDA_PREFIX", self.path("conda"))
            .env_remove("VIRTUAL_ENV")
            .env_remove("CUDA_PATH");
        command
    }

    fn train(&self, settings: &str, flags: &[&str]) -> Outcome {
        self.taper(&tiny(settings, flags))
    }
}

/// `doctor`'s line about a library ends with this file.
#[track_caller]
fn assert_serves(doctor: &Outcome, library: &str, version: &str, file: &Path) {
    let expected = format!("{version}, `{}`", file.display());
    let mut lines = doctor.stdout.lines().map(str::trim_start);
    let line = lines.find(|line| line.starts_with(&format!("{library} ")));
    assert!(
        line.is_some_and(|line| line.ends_with(&expected)),
        "{expected}: {}",
        doctor.stdout
    );
}

#[test]
fn pytorchs_libraries_of_cuda_12_serve_a_driver_for_12_1() {
    let Some(machine) = Machine::new("12.1") else {
        return;
    };
    machine.has("site-packages/nvidia/cublas/lib", &BLAS);
    machine.has("site-packages/nvidia/curand/lib", &RAND);
    // PyTorch for CUDA 13, whose libraries this driver cannot serve, comes first.
    machine.has_cuda_13("site-packages/nvidia/cu13/lib");

    let doctor = machine.taper(&["doctor"]).succeeded();
    let nvidia = machine.path("site-packages/nvidia");
    let blas = nvidia.join("cublas/lib");
    assert_serves(
        &doctor,
        "cuBLASLt",
        "12.1.0",
        &blas.join("libcublasLt.so.12"),
    );
    assert_serves(&doctor, "cuBLAS", "12.1.0", &blas.join("libcublas.so.12"));
    assert_serves(
        &doctor,
        "cuRAND",
        "10.3.0",
        &nvidia.join("curand/lib/libcurand.so.10"),
    );

    machine.train("gemm.autotune=off", &[]).succeeded();
    // Nothing else changed than the age of the driver and the place of the libraries.
    let Some(newest) = Place::new() else { return };
    newest.taper(&tiny("gemm.autotune=off", &[])).succeeded();
    assert_same_numbers(&machine.place, &newest, 10);
}

#[test]
fn a_run_on_a_driver_for_12_1_resumes_exactly_with_either_backend() {
    for backend in ["gemm.backend=cublaslt", "gemm.backend=ptx"] {
        let runs = [Machine::new("12.1"), Machine::new("12.1")];
        let [Some(whole), Some(parts)] = runs else {
            return;
        };
        for machine in [&whole, &parts] {
            machine.has("toolkit/lib64", &BLAS);
            machine.has("toolkit/lib64", &RAND);
        }
        let settings = format!("gemm.autotune=off {backend}");
        whole.train(&settings, &[]).succeeded();
        parts
            .train(&format!("{settings} train.max_iters=5"), &[])
            .succeeded();
        parts.train(&settings, &["--resume"]).succeeded();
        for file in ["model.safetensors", "optimizer.safetensors"] {
            let [parts, whole] = [&parts, &whole].map(|machine| machine.place.file(10, file));
            assert!(parts == whole, "{backend}: {file}");
        }
    }
}

#[test]
fn a_toolkit_comes_before_python_and_the_loaders_path_before_both() {
    let Some(machine) = Machine::new("12.1") else {
        return;
    };
    for folder in ["site-packages/nvidia/cublas/lib", "toolkit/lib"] {
        machine.has(folder, &BLAS);
    }
    machine.has("driver", &RAND);
    let doctor = machine.taper(&["doctor"]).succeeded();
    let toolkit = machine.path("toolkit/lib");
    assert_serves(
        &doctor,
        "cuBLAS",
        "12.1.0",
        &toolkit.join("libcublas.so.12"),
    );
    machine.has("driver", &BLAS);
    let doctor = machine.taper(&["doctor"]).succeeded();
    assert!(!doctor.stdout.contains("toolkit/lib"), "{}", doctor.stdout);
}

#[test]
fn condas_libraries_lie_below_pythons_root() {
    let Some(machine) = Machine::new("12.1") else {
        return;
    };
    machine.has("conda/lib", &BLAS);
    machine.has("conda/lib", &RAND);
    let doctor = machine.taper(&["doctor"]).succeeded();
    let expected = machine.path("conda/lib/libcublas.so.12");
    assert_serves(&doctor, "cuBLAS", "12.1.0", &expected);
}

#[test]
fn one_library_of_two_is_not_taken_from_another_folder() {
    let Some(machine) = Machine::new("12.1") else {
        return;
    };
    machine.has("toolkit/lib64", &BLAS[1..]);
    machine.has("toolkit/lib", &BLAS[..1]);
    machine.has("toolkit/lib", &RAND);
    let words = [
        "cuBLASLt and cuBLAS not found",
        "lib64/libcublasLt.so.12` is there without `libcublas.so.12`",
    ];
    machine.train("", &[]).refused(&words);
}

#[test]
fn code_is_loaded_when_it_is_used_by_drivers_that_have_to_be_told_so() {
    let Some(mut machine) = Machine::new("12.1") else {
        return;
    };
    machine.has("toolkit/lib64", &BLAS);
    machine.has("toolkit/lib64", &RAND);
    // All of it at once would leave nothing.
    machine.place = machine.place.with_card("eager_bytes = \"11.6GiB\"");
    let run = |mode: Option<&str>| {
        let mut command = machine.command(&tiny("gemm.autotune=off", &[]));
        command.env_remove("CUDA_MODULE_LOADING");
        command.envs(mode.map(|mode| ("CUDA_MODULE_LOADING", mode)));
        outcome(&mut command)
    };
    // What somebody has set stays.
    run(Some("EAGER")).refused(&["has no memory left", "taper doctor"]);
    run(None).succeeded();
}

#[test]
fn libraries_that_are_not_there_are_an_error_that_says_where_they_were_looked_for() {
    let Some(machine) = Machine::new("12.1") else {
        return;
    };
    machine.has_cuda_13("site-packages/nvidia/cu13/lib");
    let site_packages = machine.path("site-packages/nvidia");
    let words = [
        "a library of CUDA is missing: cuBLASLt and cuBLAS and cuRAND not found",
        "`libcublasLt.so.13`, `libcublasLt.so.12`",
        "CUDA_HOME (`",
        site_packages.to_str().unwrap(),
        "cu13/lib/libcublasLt.so.13` needs a driver for CUDA 13.0",
        "cu13/lib/libcurand.so.10`, cuRAND 10.4.0, needs a driver for CUDA 13.0",
        "pip install nvidia-cublas-cu12 nvidia-curand-cu12",
        "--set system.device=cpu",
    ];
    machine.train("", &[]).refused(&words);
    let doctor = machine.taper(&["doctor"]);
    assert_eq!(doctor.code, Some(1));
    assert!(
        doctor.stdout.contains("problem: cuBLASLt and cuBLAS"),
        "{}",
        doctor.stdout
    );
    assert_eq!(machine.place.contents(), []);
}

#[test]
fn a_driver_that_is_too_old_is_refused_with_the_one_that_is_needed() {
    let Some(machine) = Machine::new("11.8") else {
        return;
    };
    let words = [
        "the NVIDIA driver is for CUDA 11.8; a run on a GPU needs one for 12.1 or newer",
        "update the NVIDIA driver to 530 or newer",
    ];
    machine.train("", &[]).refused(&words);
    let doctor = machine.taper(&["doctor"]);
    assert_eq!(doctor.code, Some(1));
    assert!(
        doctor
            .stdout
            .contains("problem: a driver for CUDA 12.1 (530)"),
        "{}",
        doctor.stdout
    );
    // No library would help.
    assert!(!doctor.stdout.contains("pip install"), "{}", doctor.stdout);
}
