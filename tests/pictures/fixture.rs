//! Runs as they lie on a disk, with a metrics.jsonl of made-up values.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// A run of 60 recorded steps in which everything happens: refused memory, a choice, a warning, a skipped update, a loss
/// that is no number, a spike, and a restart after a day.
pub fn eventful(folder: &Path, name: &str, learning_rate: f64) -> PathBuf {
    let description = description(name, learning_rate);
    let mut lines = vec![at(description.clone(), 0.0, 0)];
    for step in 1..=60u64 {
        let rest = if step > 40 { 86_400.0 } else { 0.0 };
        let (time, seen) = (step as f64 * 0.5 + rest, step * 2_048);
        let before = |line: Value| at(line, time - 0.5, seen - 2_048);
        match step {
            20 => lines.push(before(recovery(19))),
            30 => lines.push(before(json!({
                "kind": "choice", "name": "gemm 64x64x64", "value": "ptx", "because": "cuBLASLt <refused> it",
            }))),
            35 => lines.push(before(json!({"kind": "warning", "message": "a disk is nearly full"}))),
            41 => {
                let mut again = description.clone();
                again["step"] = json!(40);
                again["resumed_from"] = json!("ckpt-00000040");
                lines.push(at(again, time - 0.5, seen - 2_048));
            }
            50 => lines.push(before(json!({
                "kind": "skip", "step": 50, "watched": "loss", "zscore": 9.5, "allowed": 5.0,
            }))),
            _ => {}
        }
        lines.push(at(of_step(step, learning_rate), time, seen));
        if step % 20 == 0 {
            let loss = 4.7 - step as f64 / 40.0;
            lines.push(at(eval(step, loss), time, seen));
        }
    }
    write(folder, name, &lines)
}

fn recovery(step: u64) -> Value {
    let rung = |micro_batch: u64| json!({"micro_batch": micro_batch, "recompute": "none", "logits_rows": 64});
    json!({
        "kind": "recovery", "step": step, "site": "forward", "refusal": "12 MiB for `activations` were refused",
        "from": rung(16), "to": rung(8),
    })
}

fn of_step(step: u64, learning_rate: f64) -> Value {
    let noise = (step * 7_919 % 100) as f64 / 500.0;
    let loss = (step != 45).then_some(4.6 - step as f64 / 40.0 + noise);
    json!({
        "kind": "step", "step": step, "loss": loss, "lr": learning_rate, "grad_norm": if step == 33 { 80.0 } else { 1.0 + noise },
        "tokens": 2_048, "ms": 500.0, "host_bytes": 120_000_000u64 + step * 10_000, "device_bytes": 90_000_000u64,
    })
}

pub fn eval(step: u64, loss: f64) -> Value {
    json!({
        "kind": "eval", "step": step, "train_loss": loss, "val_loss": loss, "train_perplexity": loss.exp(),
        "val_perplexity": loss.exp(), "ms": 100.0,
    })
}

fn description(name: &str, learning_rate: f64) -> Value {
    json!({
        "kind": "run", "name": name, "version": "0.1.0", "step": 0, "source": "quickstart.toml", "preset": "quickstart",
        "differs": {"optimizer.learning_rate": {"preset": 1e-3, "run": learning_rate}},
        "config": {
            "data": {"dataset": "</script><script>alert(1)</script>"},
            "optimizer": {"learning_rate": learning_rate, "beta2": 0.99},
            "train": {"max_iters": 60},
        },
        "device": "a <CPU> & its cores",
        "model": {
            "n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": 128, "vocab_size": 96, "bias": false, "dropout": 0.0,
            "gelu": "tanh",
        },
        "parameters": 804_352, "flops_per_token": 5e6, "tokens_per_step": 2_048, "max_iters": 60,
        "data": {"name": "quickstart", "train_tokens": 3_000_000, "val_tokens": 300_000, "vocab_size": 96},
        "rung": {"micro_batch": 16, "recompute": "none", "logits_rows": 64},
        "gradient_accumulation_steps": 1, "planned_bytes": 100_000_000, "budget_bytes": 200_000_000,
        "memory": [
            {"group": "activations", "name": "4 blocks", "bytes": 60_000_000},
            {"group": "weights", "name": "weights", "bytes": 40_000_000},
        ],
        "choices": [{"name": "dtype", "value": "float32", "because": "the CPU trains in float32"}],
    })
}

fn at(mut line: Value, time: f64, tokens_seen: u64) -> Value {
    line["time"] = json!(1.7e9 + time);
    line["tokens_seen"] = json!(tokens_seen);
    line
}

/// A run as versions before 0.2 left it: steps and evaluations alone.
pub fn plain(folder: &Path, name: &str, steps: u64) -> PathBuf {
    let lines = (1..=steps).map(|step| {
        json!({
            "kind": "step", "step": step, "loss": 4.6, "lr": 1e-3, "grad_norm": 1.0, "tokens": 64, "ms": 5.0,
        })
    });
    write(folder, name, &lines.collect::<Vec<_>>())
}

pub fn write(folder: &Path, name: &str, lines: &[Value]) -> PathBuf {
    let run = folder.join(name);
    fs::create_dir_all(&run).unwrap();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(run.join("metrics.jsonl"), text).unwrap();
    run
}
