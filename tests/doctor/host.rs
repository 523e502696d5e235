//! Processor, memory, disks and data.

use taper::device::{Cpu, DeviceProfile, Hardware};
use taper::doctor::{DataContents, Report, Status};

use crate::{GIB, MIB, assert_finding, healthy};

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
    machine.data.contents = DataContents::Unusable {
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
