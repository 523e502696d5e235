//! Blocks of a few bytes have the text of the whole file, from its start and from the end of any block.

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use crate::data::prepare::input::{RequestedFile, open};
use crate::data::prepare::packed::hex;

/// The blocks of a file of `bytes`.
fn blocks(name: &str, bytes: &[u8], block_bytes: usize) -> (Vec<Block>, Position) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let sources = open(&[RequestedFile::from(path)], "text").unwrap();
    let progress = ProgressBar::hidden();
    let mut blocks = Blocks::new(&sources, block_bytes, &progress);
    let found: Vec<Block> = blocks.by_ref().map(Result::unwrap).collect();
    // A second reader from each place gives what is left.
    for (n, block) in found.iter().enumerate() {
        let rest = Blocks::new(&sources, block_bytes, &progress).from(block.start);
        let rest: Vec<Block> = rest.map(Result::unwrap).collect();
        assert_eq!(text(&rest), text(&found[n..]), "from {:?}", block.start);
        assert_eq!(rest.last().unwrap().end, blocks.next);
    }
    let end = blocks.next;
    (found, end)
}

fn text(blocks: &[Block]) -> String {
    let texts = blocks.iter().map(|block| match &block.body {
        Body::Part(text) | Body::Lines(text) => &text[..],
        Body::Rows { .. } => panic!("a table"),
    });
    texts.collect()
}

/// The blocks' text, facts of the file, and the number of documents.
fn read(name: &str, bytes: &[u8], block_bytes: usize) -> (String, FileRead, u64) {
    let (blocks, end) = blocks(name, bytes, block_bytes);
    let mut before = String::new();
    for block in &blocks {
        if let Body::Lines(text) = &block.body {
            assert_eq!(
                block.start.lines as usize,
                before.lines().count(),
                "{before:?}"
            );
            assert!(block.ends || text.ends_with('\n'));
            before += text;
        }
    }
    let file = blocks.last().unwrap().file.clone().unwrap();
    (text(&blocks), file, end.documents)
}

/// Python's universal newlines.
fn expected(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

proptest! {
    #[test]
    fn cr_and_crlf_become_lf_at_every_border(
        text in "(\r|\n|\r\n|a| |é|日){0,40}",
        block_bytes in 1usize..9,
        mark: bool,
    ) {
        let written = format!("{}{text}", if mark { "\u{FEFF}" } else { "" });
        let (found, file, documents) = read("a.txt", written.as_bytes(), block_bytes);
        prop_assert_eq!(&found, &expected(&text));
        prop_assert_eq!(file.line_ends, text.contains('\r'));
        prop_assert_eq!(file.sha256, Some(hex(&Sha256::digest(written.as_bytes()))));
        prop_assert_eq!(documents, u64::from(!text.is_empty()));
    }

    #[test]
    fn lines_are_whole_at_every_border(
        lines in prop::collection::vec("[a日 ]{0,6}", 0..9),
        ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r", "\r\n"]), 9),
        block_bytes in 1usize..9,
    ) {
        let text: String = lines.iter().zip(ends).map(|(line, end)| format!("{line}{end}")).collect();
        let (found, _, documents) = read("a.jsonl", text.as_bytes(), block_bytes);
        prop_assert_eq!(&found, &expected(&text));
        let filled = lines.iter().filter(|line| !line.trim().is_empty());
        prop_assert_eq!(documents, filled.count() as u64);
    }
}

/// Text without boundaries between others, of lengths at which the rest of a block is longer than the next one.
#[test]
fn long_words_between_others_are_read() {
    for length in 1..60 {
        let text = format!(
            "{} {} {}",
            "x".repeat(length),
            "y".repeat(length / 2 + 1),
            "z".repeat(9)
        );
        let (found, ..) = read("a.txt", text.as_bytes(), 4);
        assert_eq!(found, text);
    }
}
