//! nanoGPT's `ckpt.pt` and transformers' `pytorch_model.bin`, written and read by PyTorch itself.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::process::taper;
use crate::python::python;

/// Tokens of context; the data is one window of them.
const BLOCK_SIZE: usize = 16;
const VOCAB_SIZE: usize = 64;

/// A run that warms up, decays, clips and decays weights between steps 5 and 15.
fn settings(bias: bool) -> Value {
    json!({
        "n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": BLOCK_SIZE, "bias": bias,
        "vocab_size": VOCAB_SIZE, "dropout": 0.0,
        "batch_size": 2, "gradient_accumulation_steps": 3,
        "learning_rate": 5e-3, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95, "grad_clip": 0.05,
        "decay_lr": true, "warmup_iters": 8, "lr_decay_iters": 14, "min_lr": 5e-4,
    })
}

/// The sizes of that run in a config of taper's.
fn sizes(bias: bool) -> String {
    format!(
        "n_layer = 2\nn_head = 2\nn_embd = 16\nblock_size = {BLOCK_SIZE}\nbias = {bias}\ngelu = \"erf\""
    )
}

/// One window of tokens in both splits, with a vocabulary of numbers, and the config of the same run.
fn prepare(folder: &Path, model: &str) {
    let data = folder.join("data/window");
    fs::create_dir_all(&data).unwrap();
    let tokens = (0..=BLOCK_SIZE as u16).map(|i| i * i * 7 % VOCAB_SIZE as u16);
    let tokens: Vec<u8> = tokens.flat_map(u16::to_le_bytes).collect();
    for split in ["train.bin", "val.bin"] {
        fs::write(data.join(split), &tokens).unwrap();
    }
    // {'vocab_size': 64}
    let meta = b"\x80\x02}X\x0a\x00\x00\x00vocab_sizeK\x40s.";
    fs::write(data.join("meta.pkl"), meta).unwrap();
    let config = format!(
        "[data]\ndataset = \"window\"\n[model]\n{model}\n\
         [train]\nbatch_size = 2\ngradient_accumulation_steps = 3\nlog_interval = 1\nmax_iters = 15\n\
         [optimizer]\nlearning_rate = 5e-3\ngrad_clip = 0.05\nwarmup_iters = 8\nlr_decay_iters = 14\nmin_lr = 5e-4\n\
         [eval]\neval_interval = 100\neval_iters = 1\neval_batch_size = 1\n\
         [checkpoint]\ncheckpoint_interval = 100\nkeep = 10\n\
         [system]\ndevice = \"cpu\"\n"
    );
    fs::write(folder.join("run.toml"), config).unwrap();
}

/// The losses of steps 6 to 15 in `metrics.jsonl`.
fn losses(folder: &Path) -> Vec<f64> {
    let text = fs::read_to_string(folder.join("out/metrics.jsonl")).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let steps = lines.filter(|line| line["kind"] == "step" && line["step"].as_u64() > Some(5));
    steps.map(|line| line["loss"].as_f64().unwrap()).collect()
}

#[track_caller]
fn assert_same(found: &[f64], expected: &Value) {
    let expected: Vec<f64> = serde_json::from_value(expected.clone()).unwrap();
    assert_eq!(
        (found.len(), expected.len()),
        (10, 10),
        "{found:?} {expected:?}"
    );
    let pairs = found.iter().zip(&expected);
    let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= 1e-5, "{worst:e}: {found:?} {expected:?}");
    // The window is learned, so that a loss that stands still cannot pass.
    assert!(expected[9] < expected[0] - 0.1, "{expected:?}");
    eprintln!("largest difference of ten losses: {worst:e}");
}

#[test]
#[ignore = "needs PyTorch"]
fn a_run_of_pytorch_goes_on_in_taper_with_the_same_losses() {
    // A file that is named, with a config that repeats its sizes; and nanoGPT's own way to go on, in its folder.
    let cases = [
        (false, "", "ckpt.pt", "--resume=ckpt.pt"),
        (
            true,
            "_orig_mod.",
            "out/ckpt.pt",
            "--set=train.init_from=resume",
        ),
    ];
    for (bias, prefix, checkpoint, resume) in cases {
        let folder = tempdir().unwrap();
        let path = folder.path();
        let repeats = checkpoint == "ckpt.pt";
        prepare(path, &if repeats { sizes(bias) } else { String::new() });
        let mut settings = settings(bias);
        settings["prefix"] = prefix.into();
        fs::create_dir_all(path.join("out")).unwrap();
        let settings = settings.to_string();
        let program = ["write", checkpoint, "data/window/train.bin", &settings];
        let expected = python(path, "nanogpt.py", &program);
        let before = fs::read(path.join(checkpoint)).unwrap();
        let train = ["train", "--config", "run.toml"];
        let stderr = taper(path, &[&train[..], &[resume]].concat())
            .succeeded()
            .stderr;
        assert!(stderr.contains("goes on at step 5"), "{stderr}");
        assert_same(&losses(path), &expected);
        assert_eq!(fs::read(path.join(checkpoint)).unwrap(), before);
        assert!(path.join("out/ckpt-00000015").exists());
        // From here on, the run is taper's own.
        let longer = ["--set", "max_iters=16", "--quiet"];
        let resume = if repeats { "--resume" } else { resume };
        taper(path, &[&train[..], &[resume], &longer].concat()).succeeded();
        assert!(path.join("out/ckpt-00000016").exists());
    }
}

#[test]
#[ignore = "needs PyTorch"]
fn a_run_of_taper_goes_on_in_pytorch_with_the_same_losses() {
    for bias in [false, true] {
        let folder = tempdir().unwrap();
        let path = folder.path();
        prepare(path, &sizes(bias));
        let train = ["train", "--config", "run.toml", "--quiet"];
        taper(path, &[&train[..], &["--set", "max_iters=5"]].concat()).succeeded();
        let convert = ["convert", "out", "--to", "nanogpt", "ckpt.pt"];
        taper(path, &convert).succeeded();
        let state = fs::read_to_string(path.join("out/ckpt-00000005/state.json")).unwrap();
        let state: Value = serde_json::from_str(&state).unwrap();
        taper(path, &[&train[..], &["--resume"]].concat()).succeeded();
        let continued = python(
            path,
            "nanogpt.py",
            &["resume", "ckpt.pt", "data/window/train.bin"],
        );
        assert_same(&losses(path), &continued["losses"]);
        assert_eq!(continued["best_val_loss"], state["best_val_loss"]);
    }
}

#[test]
#[ignore = "needs PyTorch and transformers"]
fn a_pytorch_file_of_transformers_has_the_loss_that_transformers_computes() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    prepare(path, "");
    for (model, shards) in [("one", "1"), ("sharded", "3")] {
        let arguments = ["data/window/train.bin", model, shards];
        let expected = python(path, "pytorch_model.py", &arguments);
        let init_from = format!("train.init_from={model}");
        let arguments = [
            "train",
            "--config",
            "run.toml",
            "--eval-only",
            "--json",
            "--set",
            &init_from,
        ];
        let stdout = taper(path, &arguments).succeeded().stdout;
        let found = stdout
            .lines()
            .find_map(|line| serde_json::from_str::<Value>(line).unwrap()["val_loss"].as_f64());
        let (found, expected) = (found.unwrap(), expected["loss"].as_f64().unwrap());
        assert!((found - expected).abs() <= 1e-5, "{found} {expected}");
        eprintln!("{model}: {found} in taper, {expected} in transformers");
    }
}
