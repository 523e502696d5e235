//! Runs of the real binary on a ladder that is known, and what they leave behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::process::{Outcome, checkpoint, taper, tiny};

/// Two micro-steps per step on the first of three rungs: 4, 2 and 1 sequences at a time. Evaluations,
/// of one micro-batch per split, come before step 1 and after steps 4, 8 and 10, and every checkpoint stays.
pub const LADDER: &str = "train.sequences_per_step=8 train.batch_size=4 system.recompute=none \
    eval.eval_iters=2 checkpoint.checkpoint_interval=5 checkpoint.keep=20";

/// `train` with [`LADDER`], further settings, and flags that are separated by spaces.
pub fn train(folder: &Path, settings: &str, flags: &str) -> Outcome {
    let settings = format!("{LADDER} {settings}");
    let flags: Vec<&str> = flags.split_whitespace().collect();
    taper(folder, &tiny(&settings, &flags))
}

pub fn trained(settings: &str, flags: &str) -> TempDir {
    let folder = tempdir().unwrap();
    train(folder.path(), settings, flags).succeeded();
    folder
}

/// Every file below `folder`, byte for byte.
pub fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path))
        } else {
            drop(files.insert(path.clone(), fs::read(&path).unwrap()))
        }
    }
    files
}

/// Every file of every checkpoint.
pub fn checkpoints(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = contents(folder);
    let is_log = |name: &str| name == "metrics.jsonl" || name.starts_with("events.out.tfevents.");
    files.retain(|path, _| !is_log(path.file_name().unwrap().to_str().unwrap()));
    files
}

/// Steps, evaluations and recoveries in metrics.jsonl, without what was measured.
pub fn metrics(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("out/metrics.jsonl")).unwrap();
    let mut lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    lines.retain(|line| ["step", "eval", "recovery"].contains(&line["kind"].as_str().unwrap()));
    for line in &mut lines {
        for measured in ["ms", "data_ms", "host_bytes", "device_bytes", "time"] {
            line.as_object_mut().unwrap().remove(measured);
        }
    }
    lines
}

/// Those of one kind, or all but those.
pub fn of_kind(lines: &[Value], kind: &str, wanted: bool) -> Vec<Value> {
    let of_kind = lines.iter().filter(|line| (line["kind"] == kind) == wanted);
    of_kind.cloned().collect()
}

/// Step, site, and the micro-batches before and after, of every recovery in metrics.jsonl.
pub fn recoveries(folder: &Path) -> Vec<(u64, String, u64, u64)> {
    let lines = of_kind(&metrics(folder), "recovery", true);
    let recovery = |line: &Value| {
        let micro_batch = |rung: &str| line[rung]["micro_batch"].as_u64().unwrap();
        (
            line["step"].as_u64().unwrap(),
            line["site"].as_str().unwrap().to_owned(),
            micro_batch("from"),
            micro_batch("to"),
        )
    };
    lines.iter().map(recovery).collect()
}

pub fn state(folder: &Path, step: u64) -> Value {
    let text = fs::read_to_string(checkpoint(folder, step).join("state.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Weights, moments, training state and every logged number are those of the same run; what memory
/// was refused for on the way may differ.
#[track_caller]
pub fn assert_same_numbers(a: &Path, b: &Path, step: u64) {
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let read = |folder| fs::read(checkpoint(folder, step).join(file)).unwrap();
        assert!(read(a) == read(b), "{file} differs at step {step}");
    }
    let numbers = |folder| {
        let mut state = state(folder, step);
        for launch in ["metrics_bytes", "choices", "recoveries", "rung", "gemm"] {
            state.as_object_mut().unwrap().remove(launch).unwrap();
        }
        state
    };
    assert_eq!(numbers(a), numbers(b));
    let logged = |folder| of_kind(&metrics(folder), "recovery", false);
    assert_eq!(logged(a), logged(b));
}

/// Continues the checkpoint of `step` of the run in `folder` in a copy of it.
pub fn resumed_elsewhere(folder: &Path, step: u64, settings: &str) -> TempDir {
    let copy = tempdir().unwrap();
    for (path, bytes) in contents(folder) {
        let path = copy.path().join(path.strip_prefix(folder).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let flags = format!("--resume out/ckpt-{step:08}");
    train(copy.path(), settings, &flags).succeeded();
    copy
}
