//! The hub's cache, written by taper and read by huggingface_hub, and the other way round.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use tempfile::tempdir;

use crate::gpt2_folder;
use crate::hub_server::{Contents, Server, Stored, large, sha256, small};
use crate::process::command;
use crate::python::python;

fn model() -> [Stored; 3] {
    let folder = tempdir().unwrap();
    gpt2_folder::write(
        folder.path(),
        &gpt2_folder::config(),
        &gpt2_folder::tensors(4),
    );
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    [
        small("config.json", read("config.json")),
        large("model.safetensors", read("model.safetensors")),
        small("tokenizer.json", gpt2_folder::tokenizer().to_string()),
    ]
}

fn sample(folder: &Path, cache: &Path) -> Command {
    let arguments = [
        "sample",
        "--checkpoint",
        "o/tiny",
        "--prompt",
        "a",
        "--max-new-tokens",
        "1",
    ];
    let mut command = command(folder, &arguments);
    command.env("HF_HUB_CACHE", cache);
    command
}

#[test]
#[ignore = "needs a Python with huggingface_hub"]
fn huggingface_hub_finds_what_taper_downloaded() {
    let server = Server::start(Contents::default().with("o/tiny", &model()));
    let folder = tempdir().unwrap();
    let cache = folder.path().join("cache");
    let mut sampled = sample(folder.path(), &cache);
    sampled
        .env("HF_ENDPOINT", &server.endpoint)
        .env("HF_HUB_OFFLINE", "0");
    let sampled = sampled.output().unwrap();
    assert_eq!(
        sampled.stdout,
        b"ab\n",
        "{}",
        String::from_utf8_lossy(&sampled.stderr)
    );
    let found = python(
        folder.path(),
        "hub.py",
        &["read", cache.to_str().unwrap(), "o/tiny"],
    );
    let sums: Vec<String> = model()[..2]
        .iter()
        .map(|stored| sha256(&stored.bytes))
        .collect();
    assert_eq!(found["sha256"], json!(sums));
    assert_eq!(found["repositories"], json!(["o/tiny"]));
    assert_eq!(found["refs"], json!([["main"]]));
    assert_eq!(found["warnings"], json!([]));
}

#[test]
#[ignore = "needs a Python with huggingface_hub"]
fn taper_finds_what_huggingface_hub_downloaded() {
    let server = Server::start(Contents::default().with("o/tiny", &model()[..2]));
    let folder = tempdir().unwrap();
    let cache = folder.path().join("cache");
    let arguments = ["write", cache.to_str().unwrap(), "o/tiny", &server.endpoint];
    python(folder.path(), "hub.py", &arguments);
    let requests = server.seen().len();
    assert!(requests > 0);
    let train = [
        "train",
        "--config",
        "quickstart.toml",
        "--eval-only",
        "--set",
        "train.init_from=o/tiny",
        "--set",
        "eval.eval_iters=1",
        "--set",
        "eval.eval_batch_size=1",
    ];
    let config = "[data]\ndataset = \"quickstart\"\n[eval]\neval_iters = 1\neval_batch_size = 1\n";
    std::fs::write(folder.path().join("quickstart.toml"), config).unwrap();
    let mut train = command(folder.path(), &train);
    let output = train.env("HF_HUB_CACHE", &cache).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(server.seen().len(), requests);
}
