//! `taper doctor`: what it makes of made-up machines, and the real binary on this one.

use std::fs;
use std::path::Path;

use serde_json::Value;
use taper::device::{
    Cpu, DeviceProfile, FoundLibrary, Gpu, GpuProcess, Gpus, Hardware, Libraries, MissingLibrary,
};
use taper::doctor::{
    Contents, Data, Finding, Holder, Machine, Nvcc, Place, Report, Status, Swap, examine,
};
use taper::terms::VectorExtension;
use tempfile::tempdir;

#[allow(dead_code, reason = "the doctor does not train")]
mod process;

use process::{command, taper};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Nothing to complain about, and no GPU.
fn healthy() -> Machine {
    Machine {
        cpu: DeviceProfile {
            name: "Imaginary CPU".into(),
            total_bytes: Some(64 * GIB),
            available_bytes: Some(50 * GIB),
            hardware: Hardware::Cpu(Cpu {
                cores: Some(16),
                vector_extensions: vec![VectorExtension::Avx2],
                process_bytes: None,
            }),
        },
        architecture: "x86_64",
        cores: Some(16),
        physical_bytes: Some(64 * GIB),
        swap: Some(Swap {
            total_bytes: 2 * GIB,
            free_bytes: GIB,
        }),
        holders: vec![holder(77, "firefox", 3 * GIB), holder(5, "sshd", MIB)],
        gpus: Gpus::NoLibrary,
        driver_cuda: None,
        build_cuda: None,
        libraries: None,
        nvcc: Nvcc::Missing,
        data: Data {
            folder: "data".into(),
            free_bytes: Some(100 * GIB),
            contents: Contents::Ready {
                dataset: "openwebtext".into(),
                train_tokens: 9_035_582_198,
                val_tokens: 4_434_897,
            },
        },
        checkpoints: Place {
            folder: "out".into(),
            free_bytes: Some(100 * GIB),
            obstacle: None,
            held_bytes: 0,
            checkpoint_bytes: Some(3 * GIB / 2),
            at_most: 4,
        },
    }
}

fn holder(pid: u32, name: &str, bytes: u64) -> Holder {
    Holder {
        pid,
        name: name.into(),
        bytes,
    }
}

fn gpu(name: &str, free_mib: u64, processes: Vec<GpuProcess>) -> Gpu {
    let profile = DeviceProfile::named(name).unwrap();
    Gpu {
        profile: DeviceProfile {
            available_bytes: Some(free_mib * MIB),
            ..profile
        },
        processes,
        estimated_from: None,
    }
}

fn found(gpus: Vec<Gpu>) -> Gpus {
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

/// The finding about `subject` that is not in order, or else the first.
#[track_caller]
fn about(machine: &Machine, subject: &str) -> Finding {
    let mut findings = examine(machine);
    findings.retain(|finding| finding.subject == subject);
    findings.sort_by_key(|finding| finding.status == Status::Ok);
    findings.into_iter().next().expect(subject)
}

#[track_caller]
fn assert_finding(machine: &Machine, subject: &str, status: Status, words: &[&str]) {
    let finding = about(machine, subject);
    let said = format!("{} / {:?}", finding.text, finding.suggestion);
    assert_eq!(finding.status, status, "{said}");
    assert_eq!(finding.suggestion.is_some(), status != Status::Ok, "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in {said}");
    }
}

#[test]
fn a_healthy_machine_without_a_gpu_has_nothing_to_hear() {
    let report = Report::new(healthy());
    assert_eq!((report.problems, report.notes), (0, 0));
    assert!(report.findings.iter().all(|f| f.suggestion.is_none()));
    let version = format!("taper {}", env!("CARGO_PKG_VERSION"));
    insta::assert_snapshot!(
        report.text().replacen(&version, "taper X", 1).replacen(report.candle_core, "Y", 1), @"
    taper X
      cpu          Imaginary CPU, AVX2
      cores        16
      memory       50.00 GiB of 64.00 GiB available, 1.00 GiB of 2.00 GiB swap used
      gpu          none: there is no NVIDIA driver
      toolkit      this build has no CUDA and needs none; `nvcc` is not on the PATH
      libraries    candle-core Y, built in
      data         `openwebtext` in `data` (100.00 GiB free): 9,035,582,198 train tokens, 4,434,897 val tokens
      checkpoints  `out`, 100.00 GiB free; a checkpoint takes 1.50 GiB, up to 4 of them 6.00 GiB
    no problems, no notes
    ");
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

#[test]
fn memory_that_is_short_is_traced_to_its_holders() {
    let mut machine = healthy();
    machine.cpu.available_bytes = Some(2 * GIB);
    let words = [
        "2.00 GiB of 64.00 GiB",
        "`firefox` (pid 77) 3.00 GiB",
        "stop `firefox`",
    ];
    assert_finding(&machine, "memory", Status::Note, &words);
    machine.cpu.available_bytes = Some(100 * MIB);
    assert_finding(&machine, "memory", Status::Problem, &["stop `firefox`"]);
    machine.holders.clear();
    assert_finding(&machine, "memory", Status::Problem, &["more memory"]);
    machine.cpu.available_bytes = None;
    assert_finding(&machine, "memory", Status::Ok, &["does not tell"]);
}

#[test]
fn limits_on_this_process_are_noted() {
    let mut machine = healthy();
    machine.cores = Some(96);
    assert_finding(&machine, "cores", Status::Note, &["16 of 96", "--cpus 96"]);
    machine.cpu.total_bytes = Some(8 * GIB);
    machine.cpu.available_bytes = Some(7 * GIB);
    let words = ["8.00 GiB of the machine's 64.00 GiB", "--memory"];
    assert_finding(&machine, "limit", Status::Note, &words);
}

#[test]
fn a_cpu_without_avx2_is_noted_where_there_could_be_avx2() {
    let mut machine = healthy();
    if let Hardware::Cpu(cpu) = &mut machine.cpu.hardware {
        cpu.vector_extensions.clear();
    }
    assert_finding(&machine, "cpu", Status::Note, &["AVX2"]);
    machine.architecture = "aarch64";
    assert_finding(&machine, "cpu", Status::Ok, &["Imaginary CPU"]);
}

#[test]
fn a_disk_too_small_for_the_checkpoints_is_a_problem() {
    let mut machine = healthy();
    machine.checkpoints.free_bytes = Some(5 * GIB);
    let words = ["5.00 GiB free", "6.00 GiB", "checkpoint.out_dir"];
    assert_finding(&machine, "checkpoints", Status::Problem, &words);
    // Those that are there already will make room.
    machine.checkpoints.held_bytes = GIB;
    assert_finding(&machine, "checkpoints", Status::Ok, &["5.00 GiB free"]);
    machine.checkpoints.free_bytes = Some(0);
    machine.checkpoints.checkpoint_bytes = None;
    assert_finding(&machine, "checkpoints", Status::Note, &["0 B free"]);
    machine.checkpoints.obstacle = Some("Read-only file system".into());
    let words = ["Read-only", "checkpoint.out_dir"];
    assert_finding(&machine, "checkpoints", Status::Problem, &words);
}

#[test]
fn a_dataset_that_is_missing_is_a_problem_with_the_dataset_s_own_hint() {
    let mut machine = healthy();
    machine.data.contents = Contents::Unusable {
        dataset: "mytext".into(),
        reason: "`data/mytext/train.bin` does not exist".into(),
        suggestion: "run `taper prepare`".into(),
    };
    let words = ["does not exist", "taper prepare"];
    assert_finding(&machine, "data", Status::Problem, &words);
}

#[test]
fn a_machine_that_tells_nothing_is_no_problem() {
    let mut machine = healthy();
    machine.cpu = DeviceProfile {
        name: "CPU".into(),
        total_bytes: None,
        available_bytes: None,
        hardware: Hardware::Cpu(Cpu::default()),
    };
    machine.architecture = "riscv64";
    machine.cores = None;
    machine.physical_bytes = None;
    machine.swap = None;
    machine.holders.clear();
    machine.checkpoints.free_bytes = None;
    machine.data.free_bytes = None;
    let report = Report::new(machine);
    assert_eq!((report.problems, report.notes), (0, 0), "{}", report.text());
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn finding<'a>(report: &'a Value, subject: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().find(|f| f["subject"] == subject).unwrap()
}

#[test]
fn the_doctor_runs_anywhere_and_leaves_no_trace() {
    let folder = tempdir().unwrap();
    let outcome = taper(folder.path(), &["doctor", "--config", "quickstart.toml"]).succeeded();
    for label in [
        "taper ",
        "  cpu  ",
        "  memory  ",
        "  data  ",
        "  checkpoints  ",
    ] {
        assert!(outcome.stdout.contains(label), "{}", outcome.stdout);
    }
    assert_eq!(outcome.stderr, "");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn json_is_one_object_that_says_the_same() {
    let folder = tempdir().unwrap();
    let dataset = folder.path().join("data/mine");
    fs::create_dir_all(&dataset).unwrap();
    for split in ["train.bin", "val.bin"] {
        fs::write(dataset.join(split), [0; 64]).unwrap();
    }
    let outcome = taper(folder.path(), &["doctor", "--json"]).succeeded();
    assert_eq!(outcome.stdout.lines().count(), 1);
    let report = json(&outcome.stdout);
    assert_eq!(report["taper"], env!("CARGO_PKG_VERSION"));
    assert!(report["candle_core"].as_str().unwrap().starts_with("0."));
    assert_eq!(report["problems"], 0);
    assert_eq!(finding(&report, "data")["status"], "ok");
    let contents = &report["machine"]["data"]["contents"];
    assert_eq!(contents["datasets"], serde_json::json!(["mine"]));
    assert!(report["machine"]["gpus"]["state"].is_string());
}

#[test]
fn a_problem_is_exit_code_1_with_the_report_complete() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let arguments = [
        "doctor",
        "--json",
        "--config",
        "openwebtext.toml",
        "--set",
        "checkpoint.out_dir=file/out",
    ];
    let outcome = taper(folder.path(), &arguments);
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome.stderr.starts_with("error: 2 problems"),
        "{}",
        outcome.stderr
    );
    let report = json(&outcome.stdout);
    assert_eq!(report["problems"], 2);
    let data = finding(&report, "data");
    assert_eq!(data["status"], "problem");
    assert!(
        data["text"]
            .as_str()
            .unwrap()
            .contains("data/openwebtext/train.bin")
    );
    assert!(
        data["suggestion"]
            .as_str()
            .unwrap()
            .contains("taper prepare")
    );
    let checkpoints = finding(&report, "checkpoints");
    assert!(
        checkpoints["text"]
            .as_str()
            .unwrap()
            .contains("`file` is a file")
    );
    // GPT-2 124M: 3 x 4 bytes x 124,373,760 parameters.
    let place = &report["machine"]["checkpoints"];
    assert_eq!(place["checkpoint_bytes"], 12 * 124_373_760_u64);
}

#[test]
fn checkpoints_that_are_there_count_as_room() {
    let folder = tempdir().unwrap();
    let checkpoint = folder.path().join("out/ckpt-00000010");
    fs::create_dir_all(&checkpoint).unwrap();
    fs::write(checkpoint.join("model.safetensors"), [0; 1000]).unwrap();
    let other = folder.path().join("out/tensorboard");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("events"), [0; 50]).unwrap();
    let outcome = taper(folder.path(), &["doctor", "--json"]).succeeded();
    let report = json(&outcome.stdout);
    assert_eq!(report["machine"]["checkpoints"]["held_bytes"], 1000);
}

#[test]
fn mistakes_on_the_command_line_are_answered() {
    let folder = tempdir().unwrap();
    let nowhere = taper(folder.path(), &["doctor", "--config", "nosuch.toml"]);
    nowhere.refused(&["nosuch.toml"]);
    let alone = taper(folder.path(), &["doctor", "--set", "model.n_layer=2"]);
    assert_eq!(alone.code, Some(1));
    assert!(alone.stderr.contains("--config"), "{}", alone.stderr);
    let unknown = taper(folder.path(), &["doctor", "--jsn"]);
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.stderr.contains("--json"), "{}", unknown.stderr);
}

/// A PATH with only this `nvcc` on it.
#[cfg(unix)]
fn with_nvcc(folder: &Path, script: &str) -> Value {
    use std::os::unix::fs::PermissionsExt;

    let nvcc = folder.join("nvcc");
    fs::write(&nvcc, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&nvcc, fs::Permissions::from_mode(0o755)).unwrap();
    let output = command(folder, &["doctor", "--json"])
        .env("PATH", folder)
        .output()
        .unwrap();
    let report = json(&String::from_utf8(output.stdout).unwrap());
    report["machine"]["nvcc"].clone()
}

#[cfg(unix)]
#[test]
fn the_toolkit_on_the_path_is_asked_for_its_version() {
    let folder = tempdir().unwrap();
    let greeting = "echo 'Cuda compilation tools, release 13.0, V13.0.48'";
    let found = with_nvcc(folder.path(), greeting);
    assert_eq!(
        found,
        serde_json::json!({"state": "found", "version": [13, 0]})
    );
    let failed = with_nvcc(folder.path(), "exit 3");
    assert_eq!(failed["state"], "failed");
    assert!(failed["reason"].as_str().unwrap().contains('3'));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = tempdir().unwrap();
    let mut child = command(folder.path(), &["doctor"]).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
