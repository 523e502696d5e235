//! Blocks of a few bytes have the text of the whole file.

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::data::prepare::{check_unchanged, input};

/// The blocks' text, and whether a CR was met, of a file of `bytes`.
fn read(name: &str, bytes: &[u8], block_bytes: usize) -> (String, FileRead, u64) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let sources = input::open(&[path]).unwrap();
    let progress = ProgressBar::hidden();
    let mut blocks = Blocks::new(&sources, whole_files(&sources), block_bytes, &progress);
    let mut text = String::new();
    for block in &mut blocks {
        let block = block.unwrap();
        if sources[0].format == Format::JsonLines {
            assert_eq!(block.line as usize, text.lines().count() + 1, "{text:?}");
            assert!(block.ends || block.text.ends_with('\n'));
        }
        text += &block.text;
    }
    (text, blocks.files[0].clone(), blocks.documents)
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
        prop_assert_eq!(file.sha256, hex(&Sha256::digest(written.as_bytes())));
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

#[test]
fn a_file_that_changes_between_the_passes_is_an_error() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.txt");
    std::fs::write(&path, "before").unwrap();
    let sources = input::open(std::slice::from_ref(&path)).unwrap();
    let pass = || {
        let progress = ProgressBar::hidden();
        let mut blocks = Blocks::new(&sources, whole_files(&sources), 4, &progress);
        assert!(blocks.by_ref().all(|block| block.is_ok()));
        blocks.files
    };
    let first = pass();
    check_unchanged(&sources, &first, &pass()).unwrap();
    for changed in ["beyond", "before and after"] {
        std::fs::write(&path, changed).unwrap();
        let error = check_unchanged(&sources, &first, &pass()).unwrap_err();
        assert!(matches!(error, PrepareError::Changed { .. }), "{error}");
    }
}
