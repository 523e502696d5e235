//! llm.c's model files, written and read by Python from the format alone, with transformers computing the losses.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::tempdir;

use super::process::{checkpoint, taper, tiny};
use super::python::python;

/// The loss of the weights in `model` on the one window that the file `tokens` holds.
fn evaluated(folder: &Path, model: &str, tokens: &str) -> f64 {
    let toml = format!(
        "[data]\ntrain_bin = \"{tokens}\"\nval_bin = \"{tokens}\"\n[system]\ndtype = \"float32\"\n\
         [eval]\neval_iters = 1\neval_batch_size = 1\n"
    );
    fs::write(folder.join("eval.toml"), toml).unwrap();
    let init_from = format!("train.init_from={model}");
    let arguments = [
        "train",
        "--config",
        "eval.toml",
        "--eval-only",
        "--json",
        "--set",
    ];
    let outcome = taper(folder, &[&arguments[..], &[&init_from]].concat()).succeeded();
    let lines = outcome.stdout.lines();
    let last: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    last["val_loss"].as_f64().unwrap()
}

#[track_caller]
fn assert_close(taper: f64, other: &Value) {
    let other = other.as_f64().unwrap();
    println!("taper {taper:.7}, transformers {other:.7}");
    assert!((taper - other).abs() <= 1e-5, "{taper} and {other}");
}

#[test]
#[ignore = "needs Python with PyTorch and transformers, see tests/exchange/main.rs"]
fn files_that_python_wrote_evaluate_to_transformers_loss() {
    let folder = tempdir().unwrap();
    let losses = python(folder.path(), "llmc.py", &["write"]);
    for dtype in ["fp32", "bf16"] {
        let loss = evaluated(folder.path(), &format!("gpt2_{dtype}.bin"), "tokens.bin");
        assert_close(loss, &losses[dtype]);
    }
    // Version 1 has other rows of the embedding.
    let mut bytes = fs::read(folder.path().join("gpt2_fp32.bin")).unwrap();
    bytes[4] = 1;
    fs::write(folder.path().join("old.bin"), bytes).unwrap();
    let arguments = ["convert", "old.bin", "--to", "hf", "old"];
    taper(folder.path(), &arguments).refused(&["version 1, expected 3 (f32) or 5 (bf16)"]);
    assert_ne!(losses["fp32"], losses["bf16"]);
}

#[test]
#[ignore = "needs Python with PyTorch and transformers, see tests/exchange/main.rs"]
fn files_that_taper_wrote_are_read_by_python_bit_for_bit() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let text = "the quick brown fox jumps over the lazy dog\n".repeat(40);
    fs::write(path.join("text.txt"), text).unwrap();
    let arguments = [
        "prepare",
        "text.txt",
        "--tokenizer",
        "char",
        "--out",
        "data",
    ];
    taper(path, &arguments).succeeded();
    let settings = "train.max_iters=8 model.gelu=tanh model.dropout=0 model.bias=true data.data_dir=. \
                    data.dataset=data";
    taper(path, &tiny(settings, &["--quiet"])).succeeded();
    for dtype in ["float32", "bfloat16"] {
        let out = format!("run_{dtype}.bin");
        let arguments = ["convert", "out", "--to", "llmc", &out, "--dtype", dtype];
        taper(path, &arguments).succeeded();
    }
    // One window of 16 tokens and their successors.
    let tokens: Vec<u8> = (0..17u16)
        .flat_map(|i| (i * 5 % 28).to_le_bytes())
        .collect();
    fs::create_dir(path.join("window")).unwrap();
    fs::copy(
        path.join("data/tokenizer.json"),
        path.join("window/tokenizer.json"),
    )
    .unwrap();
    fs::write(path.join("window/tokens.bin"), &tokens).unwrap();
    fs::write(path.join("tokens.bin"), &tokens).unwrap();
    let arguments = ["read", "run_float32.bin", "run_bfloat16.bin"];
    let read = python(path, "llmc.py", &arguments);
    assert_eq!(read["torchs_rounding"], true);
    let evaluated = |model| evaluated(path, model, "window/tokens.bin");
    let own = checkpoint(path, 8);
    assert_close(evaluated(own.to_str().unwrap()), &read["fp32"]);
    assert_close(evaluated("run_float32.bin"), &read["fp32"]);
    assert_close(evaluated("run_bfloat16.bin"), &read["bf16"]);
}
