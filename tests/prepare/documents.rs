//! Documents, from files or lines of JSON, and their division into splits.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use taper::data::prepare::PrepareRequest;
use taper::tokenizer::{Tokenizer, TokenizerKind};
use tempfile::TempDir;

use crate::{make, request, sha256, splits, taper_prepare, text, write};

const END_OF_TEXT: u32 = 50_256;

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
        let request = PrepareRequest {
            val_fraction,
            ..request(&files, TokenizerKind::Char, &out)
        };
        make(&request).unwrap();
        let (train, val) = splits(&out);
        assert_eq!(train.len() + val.len(), "first\nsecond\n".len());
        assert!(!train.is_empty() && !val.is_empty());
    }
}

/// Without it `hello` and `document` would be one word.
#[test]
fn a_line_feed_ends_each_document_in_a_character_vocabulary() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let lines = write(
        &folder,
        "documents.jsonl",
        "{\"text\": \"hello\"}\n{\"text\": \"document\\n\"}\n{\"text\": \"\"}\n",
    );
    let files = [
        write(&folder, "a.txt", "hello"),
        write(&folder, "b.txt", "document\r\n"),
        lines.clone(),
    ];
    for (files, expected) in [
        (&[lines][..], ["", "document", "hello"].as_slice()),
        (&files, &["", "document", "document", "hello", "hello"]),
    ] {
        make(&request(files, TokenizerKind::Char, &out)).unwrap();
        let tokenizer = Tokenizer::load(&out).unwrap();
        let (train, val) = splits(&out);
        let text = tokenizer.decode(&[train, val].concat());
        assert!(text.ends_with('\n'), "{text:?}");
        let mut documents: Vec<&str> = text.lines().collect();
        documents.sort();
        assert_eq!(documents, expected);
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
