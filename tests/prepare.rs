//! `taper prepare`: nanoGPT's files from text, documents and splits, and what goes wrong.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use clap::Parser;
use indicatif::ProgressBar;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use taper::commands::prepare::{PrepareArgs, run};
use taper::config::DataConfig;
use taper::data::Dataset;
use taper::data::prepare::{PrepareError, Prepared, Request, prepare};
use taper::error::Error;
use taper::tokenizer::{Tokenizer, TokenizerKind};
use tempfile::TempDir;

const SHAKESPEARE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/tinyshakespeare.txt"
);
const END_OF_TEXT: u32 = 50_256;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    prepare: PrepareArgs,
}

/// Runs the command as typed.
fn taper_prepare<S: AsRef<str>>(args: &[S]) -> Result<(), Error> {
    let args = args.iter().map(|arg| arg.as_ref().to_owned());
    let typed = ["prepare".to_owned()].into_iter().chain(args);
    run(Cli::parse_from(typed).prepare)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn read_ids(path: &Path) -> Vec<u32> {
    let bytes = fs::read(path).unwrap();
    let pairs = bytes.chunks_exact(2);
    pairs
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]).into())
        .collect()
}

fn splits(out: &Path) -> (Vec<u32>, Vec<u32>) {
    (
        read_ids(&out.join("train.bin")),
        read_ids(&out.join("val.bin")),
    )
}

fn sha256(path: &Path) -> String {
    let digest = Sha256::digest(fs::read(path).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn open(out: &Path) -> Dataset {
    let config = DataConfig {
        dataset: out.file_name().unwrap().to_str().unwrap().into(),
        data_dir: out.parent().unwrap().to_owned(),
        train_bin: None,
        val_bin: None,
    };
    Dataset::open(&config).unwrap()
}

fn file_names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn request(files: &[PathBuf], tokenizer: TokenizerKind, out: &Path) -> Request {
    Request {
        files: files.to_vec(),
        field: "text".into(),
        tokenizer,
        out: out.to_owned(),
        val_fraction: 0.1,
        expected: None,
    }
}

fn make(request: &Request) -> Result<Prepared, PrepareError> {
    prepare(request, &ProgressBar::hidden(), &AtomicBool::new(false))
}

fn write(folder: &TempDir, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, contents).unwrap();
    path
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
        serde_json::from_str(include_str!("fixtures/shakespeare_bpe.json")).unwrap();
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

#[test]
fn each_of_several_files_is_a_document_with_a_separator() {
    let folder = TempDir::new().unwrap();
    let files: Vec<PathBuf> = (0..40)
        .map(|n| {
            write(
                &folder,
                &format!("{n:02}.txt"),
                format!("file {n}\nends here {n}"),
            )
        })
        .collect();
    let out = folder.path().join("out");
    let made = make(&request(&files, TokenizerKind::Gpt2, &out)).unwrap();
    assert_eq!(made.documents, 40);
    let (train, val) = splits(&out);
    let tokenizer = Tokenizer::gpt2().unwrap();
    let mut seen = BTreeSet::new();
    for ids in [train, val] {
        assert_eq!(ids.last(), Some(&END_OF_TEXT));
        let documents = tokenizer.decode(&ids);
        let before = seen.len();
        seen.extend(
            documents
                .split_terminator("<|endoftext|>")
                .map(str::to_owned),
        );
        assert!(seen.len() > before);
    }
    let expected: BTreeSet<String> = files
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn each_line_of_json_is_a_document() {
    let folder = TempDir::new().unwrap();
    let lines: String = (0..1000)
        .map(|n| {
            format!("{{\"id\": {n}, \"body\": \"document {n}\\nwith <|endoftext|> in it\"}}\n\n")
        })
        .collect();
    let path = write(&folder, "documents.jsonl", lines);
    let out = folder.path().join("out");
    taper_prepare(&[
        text(&path),
        "--field",
        "body",
        "--out",
        text(&out),
        "--quiet",
    ])
    .unwrap();
    let (train, val) = splits(&out);
    let count = |ids: &[u32]| ids.iter().filter(|&&id| id == END_OF_TEXT).count();
    assert_eq!(count(&train) + count(&val), 1000);
    // A tenth of 1000 draws: 68 and 132 are more than three standard deviations away.
    assert!((68..132).contains(&count(&val)), "{}", count(&val));
    let first: Vec<u32> = train
        .iter()
        .copied()
        .take_while(|&id| id != END_OF_TEXT)
        .collect();
    let first = Tokenizer::gpt2().unwrap().decode(&first);
    assert!(
        first.starts_with("document ") && first.ends_with("with <|endoftext|> in it"),
        "{first}"
    );
}

#[test]
fn two_documents_give_one_to_each_split() {
    let folder = TempDir::new().unwrap();
    let files = [
        write(&folder, "a.md", "first"),
        write(&folder, "b.md", "second"),
    ];
    let out = folder.path().join("out");
    for val_fraction in [1e-9, 0.5, 1.0 - 1e-9] {
        let request = Request {
            val_fraction,
            ..request(&files, TokenizerKind::Char, &out)
        };
        make(&request).unwrap();
        let (train, val) = splits(&out);
        assert_eq!(train.len() + val.len(), "firstsecond".len());
        assert!(!train.is_empty() && !val.is_empty());
    }
}

#[test]
fn a_file_of_many_blocks_has_the_tokens_of_the_whole_text() {
    let folder = TempDir::new().unwrap();
    // Some blocks end in whitespace of several kinds, in characters of several bytes.
    let text: String = (0..180_000)
        .map(|n| {
            format!(
                "日本{n}\u{3000} it's{}",
                ["\n\n", "  ", "\t", " \u{a0}é"][n % 4]
            )
        })
        .collect();
    assert!(text.len() > 3 << 20);
    let path = write(&folder, "long.txt", &text);
    for (kind, tokenizer) in [
        (TokenizerKind::Gpt2, Tokenizer::gpt2().unwrap()),
        (
            TokenizerKind::Char,
            Tokenizer::char(&Vec::from_iter(text.chars().collect::<BTreeSet<_>>())).unwrap(),
        ),
    ] {
        let out = folder.path().join("out");
        make(&request(std::slice::from_ref(&path), kind, &out)).unwrap();
        let characters = text.chars().count();
        let cut: usize = text
            .chars()
            .take((characters as f64 * 0.9) as usize)
            .map(char::len_utf8)
            .sum();
        let (train, val) = splits(&out);
        assert!(
            train == tokenizer.encode(&text[..cut]).unwrap(),
            "train, {kind:?}"
        );
        assert!(
            val == tokenizer.encode(&text[cut..]).unwrap(),
            "val, {kind:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// nanoGPT: `data[:int(n * 0.9)]`, in characters.
    #[test]
    fn a_single_text_is_divided_by_characters(text in "[a-c日é👩 \n]{10,200}") {
        let folder = TempDir::new().unwrap();
        let path = write(&folder, "text.txt", &text);
        let out = folder.path().join("out");
        make(&request(&[path], TokenizerKind::Char, &out)).unwrap();
        let n = text.chars().count();
        let (train, val) = splits(&out);
        prop_assert_eq!(train.len(), (n as f64 * 0.9) as usize);
        let decoded = Tokenizer::load(&out).unwrap().decode(&[train, val].concat());
        prop_assert_eq!(decoded, text);
    }
}

#[test]
fn the_same_input_gives_the_same_files() {
    let folder = TempDir::new().unwrap();
    let lines: String = (0..5000)
        .map(|n| format!("{{\"text\": \"number {n}\"}}\n"))
        .collect();
    let path = write(&folder, "documents.jsonl", lines);
    let hashes = |out: &str| {
        let out = folder.path().join(out);
        make(&request(
            std::slice::from_ref(&path),
            TokenizerKind::Gpt2,
            &out,
        ))
        .unwrap();
        ["train.bin", "val.bin", "meta.json"].map(|name| sha256(&out.join(name)))
    };
    assert_eq!(hashes("a"), hashes("b"));
}

/// A bad input after a good dataset: the error, its hint, and nothing changed.
#[test]
fn a_failure_is_named_and_leaves_the_earlier_dataset_whole() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let good = write(&folder, "good.txt", "some text that is good enough");
    make(&request(&[good], TokenizerKind::Char, &out)).unwrap();
    let before: Vec<String> = file_names(&out)
        .iter()
        .map(|name| sha256(&out.join(name)))
        .collect();

    let json = "{\"text\": \"fine\"}\n";
    let cases = [
        (
            "latin1.txt",
            b"caf\xe9 ole".to_vec(),
            "no character begins at byte 3",
            "iconv",
        ),
        (
            "cut.txt",
            b"caf\xc3".to_vec(),
            "no character begins at byte 3",
            "iconv",
        ),
        (
            "bad.jsonl",
            format!("{json}\n{{\"text\": 3").into(),
            "bad.jsonl:3: not JSON",
            "one JSON object",
        ),
        (
            "none.jsonl",
            format!("{json}{{\"texts\": \"x\"}}").into(),
            "none.jsonl:2: no text in the field `text`",
            "--field",
        ),
        (
            "array.jsonl",
            format!("{json}[1]").into(),
            "array.jsonl:2: no text in the field",
            "--field",
        ),
        (
            "one.jsonl",
            json.into(),
            "one document cannot be divided",
            "more documents",
        ),
        (
            "blank.jsonl",
            b"\n\n \n".to_vec(),
            "the input is empty",
            "with text",
        ),
        ("empty.txt", vec![], "the input is empty", "with text"),
        (
            "short.txt",
            b"a".to_vec(),
            "nothing is left for the train split",
            "more text",
        ),
    ];
    for (name, bytes, expected, advice) in cases {
        let path = write(&folder, name, bytes);
        let error = make(&request(&[path], TokenizerKind::Char, &out)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.hint().unwrap().contains(advice), "{:?}", error.hint());
        let after: Vec<String> = file_names(&out)
            .iter()
            .map(|name| sha256(&out.join(name)))
            .collect();
        assert_eq!(before, after, "{name}");
    }
    let missing = make(&request(
        &[folder.path().join("no.txt")],
        TokenizerKind::Char,
        &out,
    ))
    .unwrap_err();
    assert!(missing.to_string().contains("no.txt"), "{missing}");
    let directory = make(&request(&[folder.path().into()], TokenizerKind::Char, &out)).unwrap_err();
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
