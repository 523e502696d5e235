//! Bad input, interrupted or simultaneous runs, and contradicting arguments.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use indicatif::ProgressBar;
use taper::config::DataConfig;
use taper::data::Dataset;
use taper::data::prepare::{PrepareError, prepare};
use taper::error::Error;
use taper::tokenizer::TokenizerKind;
use tempfile::TempDir;

use crate::{file_names, make, request, sha256, taper_prepare, write};

/// Names and bytes of bad files, with words of the error and of its hint.
const BAD_FILES: [(&str, &[u8], &str, &str); 9] = [
    (
        "latin1.txt",
        b"caf\xe9 ole",
        "no character begins at byte 3",
        "iconv",
    ),
    (
        "cut.txt",
        b"caf\xc3",
        "no character begins at byte 3",
        "iconv",
    ),
    (
        "bad.jsonl",
        b"{\"text\": \"fine\"}\n\n{\"text\": 3",
        "bad.jsonl:3: not JSON",
        "one JSON object",
    ),
    (
        "none.jsonl",
        b"{\"text\": \"fine\"}\n{\"texts\": \"x\"}",
        "none.jsonl:2: no text in the field `text`",
        "--field",
    ),
    (
        "array.jsonl",
        b"{\"text\": \"fine\"}\n[1]",
        "array.jsonl:2: no text in the field",
        "--field",
    ),
    (
        "one.jsonl",
        b"{\"text\": \"fine\"}\n",
        "one document cannot be divided",
        "more documents",
    ),
    ("blank.jsonl", b"\n\n \n", "the input is empty", "with text"),
    ("empty.txt", b"", "the input is empty", "with text"),
    (
        "short.txt",
        b"a",
        "nothing is left for the train split",
        "more text",
    ),
];

/// A bad input after a good dataset: the error, its hint, and nothing changed.
#[test]
fn a_failure_is_named_and_leaves_the_earlier_dataset_whole() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let checksums = || -> Vec<String> {
        file_names(&out)
            .iter()
            .map(|name| sha256(&out.join(name)))
            .collect()
    };
    let fails = |input: PathBuf| make(&request(&[input], TokenizerKind::Char, &out)).unwrap_err();
    let good = write(&folder, "good.txt", "some text that is good enough");
    make(&request(&[good], TokenizerKind::Char, &out)).unwrap();
    let before = checksums();
    for (name, bytes, expected, advice) in BAD_FILES {
        let error = fails(write(&folder, name, bytes));
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.hint().unwrap().contains(advice), "{:?}", error.hint());
        assert_eq!(before, checksums(), "{name}");
    }
    let missing = fails(folder.path().join("no.txt"));
    assert!(missing.to_string().contains("no.txt"), "{missing}");
    let directory = fails(folder.path().into());
    assert!(
        directory.to_string().contains("is not a file"),
        "{directory}"
    );
}

#[test]
fn an_interrupted_prepare_undoes_its_work() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let input = write(&folder, "text.txt", "some text");
    let request = request(&[input], TokenizerKind::Char, &out);
    let error = prepare(&request, &ProgressBar::hidden(), &AtomicBool::new(true)).unwrap_err();
    assert!(matches!(error, PrepareError::Interrupted { .. }), "{error}");
    assert!(!out.exists());
}

#[test]
fn what_a_killed_prepare_left_is_cleared_by_the_next() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    fs::create_dir_all(out.join(".prepare")).unwrap();
    fs::write(out.join(".prepare/train.bin"), "half").unwrap();
    let input = write(&folder, "text.txt", "some text that is good enough");
    make(&request(&[input], TokenizerKind::Char, &out)).unwrap();
    assert!(!out.join(".prepare").exists());
}

#[test]
fn a_second_prepare_in_the_same_folder_is_refused() {
    let folder = TempDir::new().unwrap();
    let lock = fs::File::open(folder.path()).unwrap();
    lock.lock().unwrap();
    let input = write(&folder, "text.txt", "some text that is good enough");
    let error = make(&request(&[input], TokenizerKind::Char, folder.path())).unwrap_err();
    assert!(matches!(error, PrepareError::Busy { .. }), "{error}");
}

#[test]
fn a_folder_that_mixes_two_datasets_is_refused() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let input = write(&folder, "text.txt", "some text that is good enough");
    make(&request(&[input], TokenizerKind::Char, &out)).unwrap();
    fs::write(out.join("val.bin"), [0; 10]).unwrap();
    let config = DataConfig {
        dataset: "out".into(),
        data_dir: folder.path().into(),
        train_bin: None,
        val_bin: None,
    };
    let error = Dataset::open(&config).unwrap_err();
    assert!(
        error.to_string().contains("26 train and 3 val tokens"),
        "{error}"
    );
}

#[test]
fn contradicting_arguments_are_answered_with_what_to_type() {
    let cases: [(&[&str], &str); 6] = [
        (&["a.txt"], "--out data/mytext"),
        (
            &["a.txt", "--out", "x", "--from", "b.txt"],
            "leave out `--from`",
        ),
        (&["shakespeare", "a.txt"], "./shakespeare"),
        (
            &["shakespeare", "--tokenizer", "char"],
            "leave out `--tokenizer`",
        ),
        (
            &["a.txt", "--out", "x", "--val-fraction", "1"],
            "--val-fraction 0.1",
        ),
        (
            &["a.txt", "--out", "x", "--val-fraction", "nan"],
            "--val-fraction 0.1",
        ),
    ];
    for (args, advice) in cases {
        let error = taper_prepare(args).unwrap_err();
        assert!(matches!(error, Error::Usage { .. }), "{error}");
        assert!(error.hint().unwrap().contains(advice), "{:?}", error.hint());
    }
}
