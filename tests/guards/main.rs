//! Schedules, guards and limits of a run, as a user sees them.

use std::fs;

use serde_json::Value;
use tempfile::{TempDir, tempdir};

mod divergence;
mod first_evaluation;
mod limits;
mod outliers;
#[path = "../process/mod.rs"]
mod process;
mod schedules;

use process::{Outcome, checkpoint, taper, tiny};

fn train(folder: &TempDir, settings: &str, flags: &[&str]) -> Outcome {
    taper(folder.path(), &tiny(settings, flags))
}

fn trained(settings: &str) -> TempDir {
    let folder = tempdir().unwrap();
    train(&folder, settings, &["--quiet"]).succeeded();
    folder
}

/// The lines of metrics.jsonl of one kind.
fn metrics(folder: &TempDir, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.path().join("out/metrics.jsonl")).unwrap();
    let lines = text
        .lines()
        .map(|line| -> Value { serde_json::from_str(line).unwrap() });
    let mut lines: Vec<Value> = lines.filter(|line| line["kind"] == kind).collect();
    for line in &mut lines {
        for measured in ["ms", "data_ms", "host_bytes", "time"] {
            line.as_object_mut().unwrap().remove(measured);
        }
    }
    lines
}

fn numbers(lines: &[Value], key: &str) -> Vec<f64> {
    let number = |line: &Value| line[key].as_f64().unwrap();
    lines.iter().map(number).collect()
}

/// A checkpoint's file, byte for byte.
fn file(folder: &TempDir, step: u64, name: &str) -> Vec<u8> {
    fs::read(checkpoint(folder.path(), step).join(name)).unwrap()
}

fn state(folder: &TempDir, step: u64) -> Value {
    serde_json::from_slice(&file(folder, step, "state.json")).unwrap()
}

/// Steps of the checkpoints, in order.
fn saved(folder: &TempDir) -> Vec<u64> {
    let names = fs::read_dir(folder.path().join("out")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let steps = names.filter_map(|name| name.strip_prefix("ckpt-")?.parse().ok());
    let mut steps: Vec<u64> = steps.collect();
    steps.sort_unstable();
    steps
}

/// An evaluation at the end alone.
const FEW_EVALS: &str = "eval.eval_interval=100000 eval.eval_on_start=false";

/// What is in a text between two others.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text
        .split_once(before)
        .unwrap_or_else(|| panic!("`{before}`: {text}"));
    rest.split_once(after).unwrap().0
}
