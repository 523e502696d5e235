//! GPUs, their driver, the CUDA toolkit and its libraries.

use taper::device::{
    DeviceProfile, FoundLibrary, GpuProcess, Gpus, InstalledGpu, Libraries, MissingLibrary,
};
use taper::doctor::{Nvcc, Report, Status};

use crate::{MIB, assert_finding, healthy};

fn gpu(name: &str, free_mib: u64, processes: Vec<GpuProcess>) -> InstalledGpu {
    let profile = DeviceProfile::named(name).unwrap();
    InstalledGpu {
        profile: DeviceProfile {
            available_bytes: Some(free_mib * MIB),
            ..profile
        },
        processes,
        estimated_from: None,
    }
}

fn found(gpus: Vec<InstalledGpu>) -> Gpus {
    Gpus::Found {
        driver_version: Some("535.183.01".into()),
        cuda_version: Some((12, 2)),
        gpus,
        unreadable: Vec::new(),
    }
}

fn gpu_process(pid: u32, name: Option<&str>, mib: u64) -> GpuProcess {
    GpuProcess {
        pid,
        name: name.map(str::to_owned),
        bytes: Some(mib * MIB),
    }
}

#[test]
fn who_holds_a_gpu_s_memory_is_named() {
    let processes = vec![
        gpu_process(4242, Some("python3"), 8914),
        gpu_process(999, None, 312),
    ];
    let mut machine = healthy();
    machine.gpus = found(vec![
        gpu("rtx3060", 2744, processes),
        gpu("t4", 15_000, vec![]),
    ]);
    machine.nvcc = Nvcc::Found {
        version: Some((12, 2)),
    };
    let text = Report::new(machine).text();
    let lines: Vec<&str> = text.lines().skip(4).take(5).collect();
    insta::assert_snapshot!(lines.join("\n"), @"
      driver       535.183.01, for CUDA up to 12.2
      gpu          note: NVIDIA GeForce RTX 3060, 28 SMs, compute capability 8.6, 2.68 GiB of 11.69 GiB free; held by `python3` (pid 4242) 8,914 MiB, a process (pid 999) 312 MiB
                   hint: for more, stop `python3` (pid 4242), if it can be spared
                   Tesla T4, 40 SMs, compute capability 7.5, 14.65 GiB of 14.74 GiB free
      toolkit      this build has no CUDA and needs none; `nvcc` is of CUDA 12.2
    ");
}

#[test]
fn a_gpu_held_by_nobody_that_can_be_seen_or_named() {
    let mut machine = healthy();
    machine.gpus = found(vec![gpu("rtx3060", 500, vec![])]);
    assert_finding(&machine, "gpu", Status::Note, &["fuser"]);
    machine.gpus = found(vec![gpu("rtx3060", 500, vec![gpu_process(31, None, 9)])]);
    assert_finding(&machine, "gpu", Status::Note, &["stop the process 31"]);
    let mut unknown = gpu("gb10", 0, vec![]);
    unknown.profile.available_bytes = None;
    machine.gpus = found(vec![unknown]);
    assert_finding(&machine, "gpu", Status::Ok, &["GB10", "unknown"]);
}

#[test]
fn a_build_with_cuda_says_which_driver_is_needed_for_what() {
    let mut machine = healthy();
    machine.build_cuda = Some((13, 0));
    let words = ["this build has CUDA 13.0"];
    assert_finding(&machine, "toolkit", Status::Ok, &words);
    let needs = [
        "12.1 (530) for compute capability 7.5",
        "13.0 (580) for cuBLAS 13",
    ];
    assert_finding(&machine, "needs", Status::Ok, &needs);
    // That it is older than the toolkit is no obstacle.
    machine.driver_cuda = Some((12, 2));
    assert_finding(&machine, "needs", Status::Ok, &needs);
    machine.driver_cuda = Some((11, 8));
    let words = [
        "this one is for CUDA 11.8",
        "update the NVIDIA driver to 530",
    ];
    assert_finding(&machine, "needs", Status::Problem, &words);
}

#[test]
fn the_files_of_cuda_s_libraries_are_named_or_where_they_were_looked_for() {
    let mut machine = healthy();
    machine.build_cuda = Some((13, 0));
    machine.driver_cuda = Some((12, 2));
    let mut libraries = Libraries {
        found: vec![FoundLibrary {
            name: "cuBLAS",
            version: "12.1.3".into(),
            file: "/site-packages/nvidia/cublas/lib/libcublas.so.12".into(),
        }],
        looked_in: vec!["ld.so's path".into(), "`/usr/local/cuda`".into()],
        ..Libraries::default()
    };
    machine.libraries = Some(libraries.clone());
    let words = ["12.1.3", "nvidia/cublas/lib/libcublas.so.12"];
    assert_finding(&machine, "cuBLAS", Status::Ok, &words);

    libraries.missing = vec![MissingLibrary {
        name: "cuRAND",
        files: vec!["libcurand.so.10".into()],
    }];
    libraries.passed_over = vec!["`/x/libcurand.so.10` is cuRAND 10.4.0".into()];
    machine.libraries = Some(libraries);
    let words = [
        "cuRAND not found; looked for `libcurand.so.10` in ld.so's path, in `/usr/local/cuda`",
        "; `/x/libcurand.so.10` is cuRAND 10.4.0",
        "pip install nvidia-cublas-cu12 nvidia-curand-cu12",
    ];
    assert_finding(&machine, "cuda", Status::Problem, &words);
}

#[test]
fn a_gpu_too_old_or_newer_than_the_kernels_is_told_from_others() {
    let mut machine = healthy();
    machine.build_cuda = Some((13, 0));
    let v100 = || gpu("v100", 16_000, vec![]);
    machine.gpus = found(vec![v100()]);
    let words = ["7.0: kernels are there for 7.5", "--set system.device=cpu"];
    assert_finding(&machine, "gpu", Status::Problem, &words);
    machine.gpus = found(vec![v100(), gpu("rtx3060", 11_900, vec![])]);
    let words = ["CUDA_DEVICE_ORDER=PCI_BUS_ID", "--set system.device=cuda:1"];
    assert_finding(&machine, "gpu", Status::Note, &words);
    machine.gpus = found(vec![gpu("rtx5090", 32_000, vec![])]);
    let words = ["12.0, newer than the kernels, of which it runs those for 8.0"];
    assert_finding(&machine, "gpu", Status::Ok, &words);
    // Not listed, and there all the same.
    machine.gpus = Gpus::NoLibrary;
    machine.driver_cuda = Some((12, 2));
    assert_finding(&machine, "gpu", Status::Note, &["libnvidia-ml.so.1"]);
    machine.driver_cuda = None;
    // A build without CUDA has no kernels to compare with.
    machine.build_cuda = None;
    machine.gpus = found(vec![v100()]);
    assert_finding(&machine, "gpu", Status::Ok, &["compute capability 7.0, "]);
}

#[test]
fn the_toolkit_on_the_path_is_named() {
    let mut machine = healthy();
    machine.nvcc = Nvcc::Found {
        version: Some((13, 0)),
    };
    assert_finding(&machine, "toolkit", Status::Ok, &["13.0"]);
    machine.nvcc = Nvcc::Found { version: None };
    assert_finding(&machine, "toolkit", Status::Ok, &["does not tell"]);
    machine.nvcc = Nvcc::Failed {
        reason: "exit status: 3".into(),
    };
    assert_finding(&machine, "toolkit", Status::Note, &["exit status: 3"]);
}

#[test]
fn a_driver_or_a_gpu_that_does_not_answer_is_noted_with_the_reason() {
    let mut machine = healthy();
    machine.gpus = Gpus::Failed {
        reason: "NVIDIA driver is not loaded".into(),
    };
    assert_finding(&machine, "gpu", Status::Note, &["not loaded", "nvidia-smi"]);
    machine.gpus = Gpus::Found {
        driver_version: None,
        cuda_version: None,
        gpus: vec![],
        unreadable: vec!["GPU 1: fell off the bus".into()],
    };
    assert_finding(&machine, "gpu", Status::Note, &["GPU 1: fell off the bus"]);
    assert_finding(&machine, "driver", Status::Ok, &["unknown version"]);
}
