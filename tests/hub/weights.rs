//! `train.init_from` and `sample --checkpoint` with models of the hub.

use std::fs;

use serde_json::json;
use tempfile::{TempDir, tempdir};

use crate::gpt2_folder;
use crate::server::{COMMIT, Contents, Server, Stored, large, noise, small};
use crate::verbs::taper;

/// The files of a tiny GPT-2, which says one token only.
fn model() -> Vec<Stored> {
    let folder = tempdir().unwrap();
    gpt2_folder::write(
        folder.path(),
        &gpt2_folder::config(),
        &gpt2_folder::tensors(4),
    );
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    vec![
        small("config.json", read("config.json")),
        large("model.safetensors", read("model.safetensors")),
        small("tokenizer.json", gpt2_folder::tokenizer().to_string()),
        large("pytorch_model.bin", noise(1000)),
        small("README.md", "a model"),
    ]
}

/// A folder with a config that trains for two steps.
fn training() -> TempDir {
    let folder = tempdir().unwrap();
    fs::write(
        folder.path().join("tune.toml"),
        "[data]\ndataset = \"quickstart\"\n[train]\nsequences_per_step = 2\nmax_iters = 2\n\
         [optimizer]\nwarmup_iters = 0\n[eval]\neval_iters = 1\neval_batch_size = 1\n",
    )
    .unwrap();
    folder
}

fn train(init_from: &str) -> Vec<&str> {
    vec!["train", "--config", "tune.toml", "--set", init_from]
}

#[test]
fn weights_of_the_hub_are_downloaded_once_and_trained() {
    // Without its tokenizer it can be trained on any text.
    let files: Vec<Stored> = model()
        .into_iter()
        .filter(|file| file.path != "tokenizer.json")
        .collect();
    let server = Server::start(Contents::default().with("o/tiny", &files));
    let folder = training();
    let said = taper(folder.path(), &server, &train("train.init_from=o/tiny"))
        .succeeded()
        .stderr;
    assert!(said.contains("downloading the model `o/tiny`: "), "{said}");
    assert!(
        folder
            .path()
            .join("out/ckpt-00000002/model.safetensors")
            .exists(),
        "{said}"
    );
    let snapshot = folder
        .path()
        .join("cache/models--o--tiny/snapshots")
        .join(COMMIT);
    let mut names: Vec<_> = fs::read_dir(snapshot)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors"]);
    let requests = server.seen().len();
    let again = [
        train("train.init_from=o/tiny"),
        vec!["--set", "checkpoint.out_dir=again"],
    ]
    .concat();
    taper(folder.path(), &server, &again).succeeded();
    assert_eq!(server.seen().len(), requests);
}

#[test]
fn a_model_of_the_hub_is_sampled_with_its_tokenizer_and_openais_names_have_an_owner() {
    let server = Server::start(Contents::default().with("openai-community/gpt2", &model()));
    let folder = tempdir().unwrap();
    let sample = [
        "sample",
        "--checkpoint",
        "gpt2",
        "--prompt",
        "a",
        "--max-new-tokens",
        "3",
        "--temperature",
        "0",
    ];
    let sampled = taper(folder.path(), &server, &sample).succeeded();
    assert_eq!(sampled.stdout, "abbb\n", "{}", sampled.stderr);
    assert!(
        folder
            .path()
            .join("cache/models--openai-community--gpt2/refs/main")
            .exists()
    );
}

#[test]
fn names_of_paths_are_not_looked_up_on_the_hub() {
    let server = Server::start(Contents::default().with("out/ckpt", &model()));
    let folder = training();
    fs::create_dir(folder.path().join("out")).unwrap();
    for name in [
        "out/ckpt",
        "./o/n",
        "/o/n",
        "o/n/x",
        "o/model.safetensors",
        "o/ckpt.pt",
        "gpt3",
        "o/my.json",
    ] {
        let sample = ["sample", "--checkpoint", name];
        taper(folder.path(), &server, &sample).refused(&[name]);
    }
    let sample = ["sample", "--checkpoint", "out/ckpt"];
    taper(folder.path(), &server, &sample).refused(&["check the path", "a folder here"]);
    assert!(server.seen().is_empty());
    let plan = [
        "plan",
        "--config",
        "tune.toml",
        "--set",
        "train.init_from=gpt2",
    ];
    taper(folder.path(), &server, &plan).succeeded();
    assert!(server.seen().is_empty());
}

#[test]
fn models_that_cannot_be_had_or_used_are_refused_before_their_weights_come() {
    let mut llama = model();
    llama[0] = small("config.json", "{\"model_type\": \"llama\"}");
    let contents = Contents::default()
        .with("o/llama", &llama)
        .with("o/empty", &[small("README.md", "nothing")]);
    let server = Server::start(contents);
    let folder = training();
    let cases: [(&str, &[&str]); 3] = [
        ("o/llama", &["`model_type` is", "llama"]),
        (
            "o/empty",
            &["the model `o/empty` of the hub has no `config.json`"],
        ),
        (
            "o/absent",
            &[
                "cannot download the weights of `o/absent`",
                "no model `o/absent`",
                "check its path",
            ],
        ),
    ];
    for (name, words) in cases {
        taper(folder.path(), &server, &["sample", "--checkpoint", name]).refused(words);
        taper(
            folder.path(),
            &server,
            &train(&format!("train.init_from={name}")),
        )
        .refused(words);
    }
    assert_eq!(server.sent(), 0);
    assert!(!folder.path().join("out").exists());
}

#[test]
fn a_model_in_parts_is_complete_only_with_all_of_them() {
    let whole = model().remove(1).bytes;
    let index = json!({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}});
    let files = [
        model().remove(0),
        small("model.safetensors.index.json", index.to_string()),
        large("model-00001-of-00002.safetensors", &*whole),
        large("model-00002-of-00002.safetensors", noise(100)),
    ];
    let server = Server::start(Contents::default().with("o/parts", &files));
    let folder = tempdir().unwrap();
    let snapshot = folder
        .path()
        .join("cache/models--o--parts/snapshots")
        .join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    // As a download that was stopped leaves it.
    for stored in &files[..3] {
        fs::write(snapshot.join(&stored.path), &stored.bytes).unwrap();
    }
    let sample = ["sample", "--checkpoint", "o/parts"];
    // The second part is no safetensors file, which shows that it came.
    taper(folder.path(), &server, &sample).refused(&["model-00002-of-00002.safetensors"]);
    assert_eq!(server.sent(), 100);
}
