//! Text as Python's `open(path, "r")` reads it, and with it nanoGPT.

use std::collections::BTreeSet;
use std::fs;

use proptest::prelude::*;
use taper::data::prepare::{Note, PrepareError};
use taper::tokenizer::{Tokenizer, TokenizerKind};
use tempfile::TempDir;

use crate::{make, request, sha256, splits, write};

const FILES: [&str; 3] = ["train.bin", "val.bin", "tokenizer.json"];

#[test]
fn every_line_end_and_a_byte_order_mark_give_the_dataset_of_the_plain_text() {
    let folder = TempDir::new().unwrap();
    let plain: String = (0..50)
        .map(|n| format!("Line {n}, sans façon.\n\n"))
        .collect();
    for kind in [TokenizerKind::Char, TokenizerKind::Gpt2] {
        let dataset = |name: &str, text: &str| {
            let out = folder.path().join("out");
            let path = write(&folder, name, text);
            let made = make(&request(std::slice::from_ref(&path), kind, &out)).unwrap();
            let replaced = |note: &Note| matches!(note, Note::Replaced { .. });
            let notes: Vec<Note> = made.notes.into_iter().filter(|n| !replaced(n)).collect();
            (FILES.map(|name| sha256(&out.join(name))), notes, path)
        };
        let (expected, notes, _) = dataset("plain.txt", &plain);
        assert_eq!(notes, []);
        for ending in ["\r\n", "\r"] {
            let (found, notes, path) = dataset("ends.txt", &plain.replace('\n', ending));
            assert_eq!(found, expected, "{ending:?}");
            assert_eq!(notes, [Note::LineEnds(vec![path])]);
        }
        let (found, notes, path) = dataset("mark.txt", &format!("\u{FEFF}{plain}"));
        assert_eq!(found, expected);
        assert_eq!(notes, [Note::Marks(vec![path])]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// nanoGPT's `prepare.py` of shakespeare_char: `sorted(set(data))` and `data[:int(n * 0.9)]`.
    #[test]
    fn a_single_text_has_nanogpts_characters_and_split(
        text in "[a-cé日](\r|\n|\r\n|a|é){12,80}",
        mark: bool,
    ) {
        let folder = TempDir::new().unwrap();
        let out = folder.path().join("out");
        let mark = if mark { "\u{FEFF}" } else { "" };
        let path = write(&folder, "text.txt", format!("{mark}{text}"));
        make(&request(&[path], TokenizerKind::Char, &out)).unwrap();
        let read = text.replace("\r\n", "\n").replace('\r', "\n");
        let characters = Vec::from_iter(read.chars().collect::<BTreeSet<_>>());
        let ids = Tokenizer::char(&characters).unwrap().encode(&read).unwrap();
        let (train, val) = ids.split_at((ids.len() as f64 * 0.9) as usize);
        prop_assert_eq!(splits(&out), (train.to_vec(), val.to_vec()));
        prop_assert_eq!(Tokenizer::load(&out).unwrap().vocab_size(), characters.len());
    }
}

/// A mark inside of a text is a character, as in Python; one before a line of JSON is none.
#[test]
fn only_a_mark_at_the_start_is_left_out() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let path = write(&folder, "a.txt", "some text\u{FEFF} of twenty characters");
    make(&request(&[path], TokenizerKind::Char, &out)).unwrap();
    let (train, _) = splits(&out);
    assert!(
        Tokenizer::load(&out)
            .unwrap()
            .decode(&train)
            .contains('\u{FEFF}')
    );
    let alone = write(&folder, "mark.txt", "\u{FEFF}");
    let error = make(&request(&[alone], TokenizerKind::Char, &out)).unwrap_err();
    assert!(matches!(error, PrepareError::NoText { .. }), "{error}");
}

#[test]
fn zero_bytes_are_kept_and_said() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let path = write(
        &folder,
        "names.txt",
        "one file\0another, longer\0and a third one\0",
    );
    let made = make(&request(&[path], TokenizerKind::Char, &out)).unwrap();
    assert_eq!(made.notes, [Note::ZeroCharacter]);
    let (train, val) = splits(&out);
    assert_eq!(train.len() + val.len(), 41);
}

#[test]
fn a_file_named_twice_is_refused_by_whatever_name() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let path = write(&folder, "a.txt", "some text of twenty characters");
    let mut others = vec![path.clone(), folder.path().join("./a.txt")];
    #[cfg(unix)]
    {
        let (link, hard) = (
            folder.path().join("link.txt"),
            folder.path().join("hard.txt"),
        );
        std::os::unix::fs::symlink(&path, &link).unwrap();
        fs::hard_link(&path, &hard).unwrap();
        others.extend([link, hard]);
    }
    for other in others {
        let files = [path.clone(), other];
        let error = make(&request(&files, TokenizerKind::Char, &out)).unwrap_err();
        assert!(error.to_string().contains("is the same file as"), "{error}");
        assert!(error.hint().unwrap().contains("in train and in val"));
    }
    assert!(!out.exists());
    // A copy is another file, of which it is only said.
    let copy = folder.path().join("copy.txt");
    fs::copy(&path, &copy).unwrap();
    let files = [path.clone(), copy.clone()];
    let made = make(&request(&files, TokenizerKind::Char, &out)).unwrap();
    let expected = Note::SameText {
        files: 1,
        path: copy,
        first: path,
    };
    assert_eq!(made.notes, [expected]);
}
