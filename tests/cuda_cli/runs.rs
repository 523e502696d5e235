//! Runs on a card that is chosen, in a folder of their own, and what they leave behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::process::{Outcome, checkpoint, command, tiny};

/// Wider than [`crate::process::TINY`], with the same products whatever a clock says. Evaluations and
/// checkpoints come with the last step, and every checkpoint stays.
const BASE: &str = "model.n_embd=32 train.sequences_per_step=4 train.max_iters=4 gemm.autotune=off \
    eval.eval_iters=1 eval.eval_interval=100 eval.eval_on_start=false checkpoint.checkpoint_interval=100 checkpoint.keep=20";

/// A folder that runs are made in, and their card.
pub struct Place {
    folder: TempDir,
    card: String,
    fail: String,
    order: Option<String>,
}

impl Place {
    /// With a large card that nobody else uses; nothing where there is no virtual GPU to choose.
    pub fn new() -> Option<Self> {
        if std::env::var_os("VGPU_CARD").is_none() {
            eprintln!("skipped, for there is no virtual GPU: use scripts/vgpu");
            return None;
        }
        Some(Self {
            folder: tempdir().unwrap(),
            card: "rtx3060".into(),
            fail: String::new(),
            order: None,
        })
    }

    /// The same with a card that is like an rtx3060 but for the lines of `text`.
    pub fn with_card(mut self, text: &str) -> Self {
        let path = self.path().join("card.toml");
        fs::write(&path, format!("like = \"rtx3060\"\n{text}\n")).unwrap();
        self.card = path.to_str().unwrap().to_owned();
        self
    }

    /// What is to fail; see tests/vgpu/README.md.
    pub fn failing(mut self, plan: &str) -> Self {
        self.fail = plan.to_owned();
        self
    }

    /// When the card does what it was given, whatever the environment says; see tests/vgpu/README.md.
    pub fn in_order(mut self, order: &str) -> Self {
        self.order = Some(order.to_owned());
        self
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `taper` here, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(self.path(), arguments);
        command.env("VGPU_CARD", &self.card);
        command.env("VGPU_FAIL", &self.fail);
        command.envs(self.order.iter().map(|order| ("VGPU_ORDER", order)));
        command
    }

    pub fn taper(&self, arguments: &[&str]) -> Outcome {
        outcome(&mut self.command(arguments))
    }

    /// `train` with [`BASE`], further settings, and flags that are separated by spaces.
    pub fn train(&self, settings: &str, flags: &str) -> Outcome {
        let settings = format!("{BASE} {settings}");
        let flags: Vec<&str> = flags.split_whitespace().collect();
        self.taper(&tiny(&settings, &flags))
    }

    /// As [`Place::train`], not started yet.
    pub fn train_command(&self, settings: &str) -> Command {
        self.command(&tiny(&format!("{BASE} {settings}"), &["--quiet"]))
    }

    /// The numbers of the JSON that `plan` prints for the settings of [`Place::train`].
    pub fn plan(&self, settings: &str) -> Value {
        let settings = format!("{BASE} {settings}");
        let mut arguments = tiny(&settings, &["--json"]);
        arguments[0] = "plan";
        let planned = self.taper(&arguments).succeeded();
        serde_json::from_str(&planned.stdout).unwrap()
    }

    /// Steps, evaluations and recoveries in metrics.jsonl, without what was measured.
    pub fn metrics(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path().join("out/metrics.jsonl")).unwrap();
        let mut lines = json_lines(&text);
        lines.retain(|line| ["step", "eval", "recovery"].contains(&line["kind"].as_str().unwrap()));
        for line in &mut lines {
            for measured in ["ms", "data_ms", "host_bytes", "device_bytes", "time"] {
                line.as_object_mut().unwrap().remove(measured);
            }
        }
        lines
    }

    /// Losses of steps and evaluations, in order.
    pub fn losses(&self) -> Vec<f64> {
        let keys = ["loss", "train_loss", "val_loss"];
        let lines = self.metrics();
        let of = |line: &Value| keys.map(|key| line[key].as_f64());
        lines.iter().flat_map(of).flatten().collect()
    }

    /// Step, site, and the micro-batches before and after, of every recovery in metrics.jsonl.
    pub fn recoveries(&self) -> Vec<(u64, String, u64, u64)> {
        let lines = self.metrics();
        let recoveries = lines.iter().filter(|line| line["kind"] == "recovery");
        let of = |line: &Value| {
            let number = |value: &Value| value.as_u64().unwrap();
            let micro_batch = |rung: &str| number(&line[rung]["micro_batch"]);
            let site = line["site"].as_str().unwrap().to_owned();
            (
                number(&line["step"]),
                site,
                micro_batch("from"),
                micro_batch("to"),
            )
        };
        recoveries.map(of).collect()
    }

    pub fn file(&self, step: u64, name: &str) -> Vec<u8> {
        let path = checkpoint(self.path(), step).join(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub fn state(&self, step: u64) -> Value {
        serde_json::from_slice(&self.file(step, "state.json")).unwrap()
    }

    /// Every file below, byte for byte, but the card's.
    pub fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        collect(self.path(), &mut files);
        files.retain(|(path, _)| !path.ends_with("card.toml"));
        files.sort();
        files
    }

    /// Another place with the files of this one, and the card of `at`.
    pub fn copied_to(&self, at: Place) -> Place {
        for (path, bytes) in self.contents() {
            let path = at.path().join(path.strip_prefix(self.path()).unwrap());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        at
    }
}

fn collect(folder: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files)
        } else {
            files.push((path.clone(), fs::read(&path).unwrap()))
        }
    }
}

pub fn outcome(command: &mut Command) -> Outcome {
    let output = command.output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub fn json_lines(text: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    text.lines().map(parse).collect()
}

/// Weights, moments, loss scale and every logged number are those of the same run.
#[track_caller]
pub fn assert_same_numbers(a: &Place, b: &Place, step: u64) {
    for file in ["model.safetensors", "optimizer.safetensors"] {
        assert!(
            a.file(step, file) == b.file(step, file),
            "{file} of step {step}"
        );
    }
    for key in ["step", "tokens_seen", "loss_scale", "best_val_loss"] {
        assert_eq!(a.state(step)[key], b.state(step)[key], "{key}");
    }
    assert_eq!(a.losses(), b.losses());
}

#[track_caller]
pub fn assert_close(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a / b - 1.0).abs() <= tolerance, "{a} {b}");
    }
}
