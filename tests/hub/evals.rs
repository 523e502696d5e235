//! The published examples of benchmarks: downloaded once, verified, and written whole or not at all.

use std::fs;
use std::path::Path;

use serde_json::Value;
use taper::evals::{EvalsError, PublicFile, fetch};
use tempfile::tempdir;

use crate::Watched;
use crate::gpt2_folder;
use crate::server::{Answer, Contents, End, Server, noise, sha256, small};
use crate::verbs::taper;

const LAMBADA: &str = "{\"text\": \"a b\"}\n";

#[test]
fn lambada_comes_from_the_hub_once() {
    let files = [small("data/lambada_test_en.jsonl", LAMBADA)];
    let contents = Contents::default().with("datasets/EleutherAI/lambada_openai", &files);
    let server = Server::start(contents);
    let folder = tempdir().unwrap();
    let model = folder.path().join("model");
    gpt2_folder::write(&model, &gpt2_folder::config(), &gpt2_folder::tensors(4));
    let mut tokenizer = gpt2_folder::tokenizer();
    tokenizer["model"]["vocab"]["\u{120}"] = 8.into();
    fs::write(model.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let eval = || {
        let arguments = ["eval", "model", "--tasks", "lambada", "--json"];
        taper(folder.path(), &server, &arguments).succeeded()
    };
    let first = eval();
    let told = "downloading LAMBADA, 16 B of the dataset `EleutherAI/lambada_openai`";
    assert!(first.stderr.contains(told), "{}", first.stderr);
    let score: Value = serde_json::from_str(&first.stdout).unwrap();
    assert_eq!(
        (&score["task"], &score["examples"]),
        (&"lambada".into(), &1.into())
    );
    let files = || {
        server
            .seen()
            .iter()
            .filter(|request| request.path.contains("/resolve/"))
            .count()
    };
    let before = files();
    assert!(!eval().stderr.contains("downloading"));
    assert_eq!(files(), before);
}

fn served(rule: impl Fn(Answer) -> Answer + Send + Sync + 'static) -> (Server, String, Vec<u8>) {
    let bytes = noise(200_000);
    let files = [small("h.jsonl", &*bytes)];
    let contents = Contents::default().with("datasets/o/n", &files);
    let server = Server::with_rule(contents, move |_, answer| rule(answer));
    let url = format!("{}/datasets/o/n/resolve/main/h.jsonl", server.endpoint);
    (server, url, bytes)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn a_public_file_is_downloaded_once_and_verified() {
    let (server, url, bytes) = served(|answer| answer);
    let folder = tempdir().unwrap();
    let cache = folder.path().join("a/b");
    let sum = sha256(&bytes);
    let file = PublicFile {
        name: "h.jsonl",
        url: &url,
        bytes: bytes.len() as u64,
        sha256: &sum,
    };
    let watch = Watched::default();
    let path = fetch(&file, &cache, &watch).unwrap();
    assert_eq!(path, cache.join("h.jsonl"));
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(*watch.progress.lock().unwrap(), (0, 200_000, 200_000));
    let notes = watch.notes.lock().unwrap().clone();
    assert!(
        notes[0].starts_with("downloading h.jsonl, 195.3 KiB from http://"),
        "{notes:?}"
    );
    assert_eq!(names(&cache), ["h.jsonl"]);
    fetch(&file, &cache, &Watched::default()).unwrap();
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn nothing_is_left_of_a_download_that_went_wrong() {
    let of = |rule: fn(Answer) -> Answer, bytes: u64, wrong_sum: bool, watch: Watched| {
        let (_server, url, body) = served(rule);
        let folder = tempdir().unwrap();
        let sum = if wrong_sum {
            "0".repeat(64)
        } else {
            sha256(&body)
        };
        let file = PublicFile {
            name: "h.jsonl",
            url: &url,
            bytes,
            sha256: &sum,
        };
        let error = fetch(&file, folder.path(), &watch).unwrap_err();
        assert_eq!(names(folder.path()), [""; 0]);
        error
    };
    let whole = |answer: Answer| answer;
    let watched = Watched::default;
    let error = of(whole, 200_000, true, watched());
    assert!(matches!(error, EvalsError::OtherFile { .. }), "{error}");
    for bytes in [100_000, 300_000] {
        let error = of(whole, bytes, false, watched());
        assert!(matches!(error, EvalsError::OtherFile { .. }), "{error}");
    }
    let close = |answer| Answer {
        end: End::CloseAfter(1000),
        ..answer
    };
    let error = of(close, 200_000, false, watched());
    assert!(matches!(error, EvalsError::Unreachable { .. }), "{error}");
    let gone = |_| Answer::status(404);
    let error = of(gone, 200_000, false, watched());
    assert!(matches!(error, EvalsError::Unreachable { .. }), "{error}");
    let stopped = Watched {
        stop_at: Some(1),
        ..watched()
    };
    let error = of(whole, 200_000, false, stopped);
    assert!(matches!(error, EvalsError::Interrupted), "{error}");
}
