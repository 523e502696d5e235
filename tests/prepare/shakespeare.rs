//! Both Shakespeare datasets equal nanoGPT's.

use std::fs;
use std::path::Path;

use taper::config::DataConfig;
use taper::data::Dataset;
use taper::tokenizer::Tokenizer;
use tempfile::TempDir;

use crate::{file_names, read_ids, sha256, splits, taper_prepare, text, write};

const SHAKESPEARE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/tinyshakespeare.txt"
);

fn open(out: &Path) -> Dataset {
    let config = DataConfig {
        dataset: out.file_name().unwrap().to_str().unwrap().into(),
        data_dir: out.parent().unwrap().to_owned(),
        train_bin: None,
        val_bin: None,
    };
    Dataset::open(&config).unwrap()
}

#[test]
fn shakespeare_char_equals_nanogpts() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("shakespeare_char");
    taper_prepare(&[
        "shakespeare_char",
        "--from",
        SHAKESPEARE,
        "--out",
        text(&out),
        "--quiet",
    ])
    .unwrap();
    let data = open(&out);
    assert_eq!((data.train.len(), data.val.len()), (1_003_854, 111_540));
    assert_eq!(data.info.vocab_size.value, 65);
    assert!(data.info.vocab_size.because.contains("meta.json"));
    let (train, val) = splits(&out);
    // nanoGPT's ids of "First Citizen".
    assert_eq!(
        train[..13],
        [18, 47, 56, 57, 58, 1, 15, 47, 58, 47, 64, 43, 52]
    );
    let decoded = data.tokenizer.unwrap().decode(&[train, val].concat());
    assert_eq!(decoded, fs::read_to_string(SHAKESPEARE).unwrap());
}

#[test]
fn shakespeare_in_gpt2_tokens_equals_nanogpts() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("new/shakespeare");
    taper_prepare(&[
        "shakespeare",
        "--from",
        SHAKESPEARE,
        "--out",
        text(&out),
        "-q",
    ])
    .unwrap();
    let expected: serde_json::Value =
        serde_json::from_str(include_str!("../fixtures/shakespeare_bpe.json")).unwrap();
    for split in ["train", "val"] {
        let path = out.join(format!("{split}.bin"));
        assert_eq!(read_ids(&path).len(), expected[format!("{split}_tokens")]);
        assert_eq!(sha256(&path), expected[format!("{split}_u16_sha256")]);
    }
    let meta: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(out.join("meta.json")).unwrap()).unwrap();
    assert_eq!(meta["sources"][0]["sha256"], expected["source_sha256"]);
    assert_eq!(meta["vocab_size"], 50_257);
    assert_eq!(
        file_names(&out),
        [
            "meta.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "train.bin",
            "val.bin"
        ]
    );
    assert_eq!(Tokenizer::load(&out).unwrap().vocab_size(), 50_257);
}

#[test]
fn another_text_is_refused_as_shakespeare_and_both_checksums_are_named() {
    let folder = TempDir::new().unwrap();
    let other = write(&folder, "other.txt", "To be, or not to be");
    let out = folder.path().join("out");
    let error =
        taper_prepare(&["shakespeare", "--from", text(&other), "--out", text(&out)]).unwrap_err();
    let shown = error.to_string();
    assert!(shown.contains(&sha256(&other)), "{shown}");
    assert!(shown.contains("86c4e6aa9db7c042"), "{shown}");
    assert!(!out.exists());
}
