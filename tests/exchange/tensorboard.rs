//! TensorBoard's event files, read by TensorBoard itself.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::tempdir;

use crate::process::taper;
use crate::python::python;

const CONFIG: &str = "\
[data]
dataset = \"quickstart\"
[model]
n_layer = 1
n_head = 1
n_embd = 8
block_size = 8
[train]
batch_size = 2
max_iters = 6
log_interval = 1
[eval]
eval_interval = 3
eval_iters = 1
[system]
device = \"cpu\"
";

fn read(folder: &Path) -> Value {
    python(folder, "events.py", &["out"])
}

fn steps(of: &Value) -> Vec<u64> {
    let points = of.as_array().unwrap().iter();
    points.map(|point| point[0].as_u64().unwrap()).collect()
}

/// Values of a key in metrics.jsonl, by step.
fn recorded(folder: &Path, kind: &str, key: &str) -> Vec<(u64, f64)> {
    let text = fs::read_to_string(folder.join("out/metrics.jsonl")).unwrap();
    let lines = text
        .lines()
        .map(|line| -> Value { serde_json::from_str(line).unwrap() });
    let of_kind = lines.filter(|line| line["kind"] == kind);
    of_kind
        .map(|line| (line["step"].as_u64().unwrap(), line[key].as_f64().unwrap()))
        .collect()
}

#[test]
#[ignore = "needs Python with TensorBoard: TAPER_PYTHON"]
fn tensorboard_shows_the_curves_of_a_run_that_was_resumed_from_an_earlier_step() {
    let folder = tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("run.toml"), CONFIG).unwrap();
    taper(folder, &["train", "--config", "run.toml"]).succeeded();
    // Steps 4 to 6 are done again.
    let resume = [
        "train",
        "--config",
        "run.toml",
        "--resume",
        "out/ckpt-00000003",
    ];
    taper(folder, &resume).succeeded();

    let found = read(folder);
    let scalars = &found["scalars"];
    for (tag, kind, key) in [
        ("loss/step", "step", "loss"),
        ("lr", "step", "lr"),
        ("grad_norm", "step", "grad_norm"),
        ("memory/host_bytes", "step", "host_bytes"),
        ("loss/train", "eval", "train_loss"),
        ("loss/val", "eval", "val_loss"),
    ] {
        let shown = scalars[tag].as_array().unwrap();
        let recorded = recorded(folder, kind, key);
        assert_eq!(shown.len(), recorded.len(), "{tag}: {shown:?}");
        for (shown, (step, value)) in shown.iter().zip(&recorded) {
            assert_eq!(shown[0], *step, "{tag}");
            assert_eq!(shown[1].as_f64().unwrap() as f32, *value as f32, "{tag}");
        }
    }
    assert_eq!(steps(&scalars["tokens_per_second"]), [1, 2, 3, 4, 5, 6]);
    let times = scalars["loss/step"].as_array().unwrap().iter();
    let times: Vec<f64> = times.map(|point| point[2].as_f64().unwrap()).collect();
    assert!(times.is_sorted() && times[0] > 1.7e9, "{times:?}");
    let config = found["texts"]["config/text_summary"].as_str().unwrap();
    assert!(config.contains("| train.max_iters | 6 |"), "{config}");
}
