//! The real binary on this machine.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::tempdir;

use crate::process::{command, taper};

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
