//! `taper doctor`: what it makes of made-up machines, and the real binary on this one.

mod command;
mod gpus;
mod host;

#[path = "../process/mod.rs"]
#[allow(dead_code, reason = "the doctor does not train")]
mod process;

use taper::device::{Cpu, DeviceProfile, Gpus, Hardware};
use taper::doctor::{
    CheckpointFolder, DataContents, DataFolder, Finding, Holder, Machine, Nvcc, Status, Swap,
    examine,
};

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
                vector_extensions: vec![taper::terms::VectorExtension::Avx2],
                process_bytes: None,
                mappable_bytes: None,
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
        data: DataFolder {
            folder: "data".into(),
            free_bytes: Some(100 * GIB),
            contents: DataContents::Ready {
                dataset: "openwebtext".into(),
                train_tokens: 9_035_582_198,
                val_tokens: 4_434_897,
            },
        },
        checkpoints: CheckpointFolder {
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
