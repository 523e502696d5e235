//! Files compressed with gzip and zstd, of one part or several, whole and cut short.

use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use taper::tokenizer::TokenizerKind;
use tempfile::TempDir;

use crate::{make, request, splits, write};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = GzEncoder::new(Vec::new(), Compression::default());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// Compresses in three members or frames.
fn in_parts(bytes: &[u8], pack: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    bytes.chunks(bytes.len() / 3 + 1).flat_map(pack).collect()
}

#[test]
fn a_packed_file_has_the_tokens_of_its_contents() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let lines: String = (0..2000)
        .map(|n| format!("{{\"text\": \"line {n} 日本\"}}\r\n"))
        .collect();
    let text = format!("\u{FEFF}{}", "some text\r\nof lines\r".repeat(90_000));
    let made = |path: PathBuf| {
        make(&request(&[path], TokenizerKind::Char, &out)).unwrap();
        splits(&out)
    };
    for (name, contents) in [("a.jsonl", &lines), ("a.ndjson", &lines), ("a.txt", &text)] {
        let expected = made(write(&folder, name, contents));
        for (ending, pack) in [("gz", gzip as fn(&[u8]) -> Vec<u8>), ("zst", zstd)] {
            let packed = in_parts(contents.as_bytes(), pack);
            let found = made(write(&folder, &format!("{name}.{ending}"), packed));
            assert!(found == expected, "{name}.{ending}");
        }
    }
    // The contents tell, not the name.
    let expected = made(write(&folder, "b.txt", &text));
    assert!(made(write(&folder, "b", gzip(text.as_bytes()))) == expected);
    assert!(made(write(&folder, "b.txt.zst", &text)) == expected);
}

#[test]
fn a_packed_file_that_is_cut_short_or_damaged_is_named() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let refused = |name: &str, bytes: &[u8], expected: &str, advice: &str| {
        let path = write(&folder, name, bytes);
        let error = make(&request(&[path], TokenizerKind::Gpt2, &out)).unwrap_err();
        let shown = error.to_string();
        assert!(shown.contains(name) && shown.contains(expected), "{shown}");
        assert!(error.hint().unwrap().contains(advice), "{:?}", error.hint());
        assert!(!out.exists());
    };
    // Words that do not repeat: the cut is beyond the first 64 KiB.
    let words = (0..90_000_u64).map(|n| format!("{:x} ", n.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let text: String = words.collect();
    for (name, pack) in [
        ("a.txt.gz", gzip as fn(&[u8]) -> Vec<u8>),
        ("a.txt.zst", zstd),
    ] {
        let packed = pack(text.as_bytes());
        for length in [5, packed.len() / 2, packed.len() - 1] {
            refused(name, &packed[..length], "data is cut short", "not complete");
        }
        let second = [&packed[..], &packed[..packed.len() / 2]].concat();
        refused(name, &second, "data is cut short", "not complete");
        let mut damaged = packed.clone();
        let middle = damaged.len() / 2;
        damaged[middle..middle + 9].fill(0x55);
        refused(name, &damaged, "cannot be unpacked", "the file again");
    }
    let table = gzip(b"PAR1\x15\x04\x15\0");
    refused(
        "a.parquet.gz",
        &table,
        "compressed with gzip and holds no UTF-8 text: it is a Parquet table",
        "gzip -dc",
    );
    let twice = gzip(&gzip(b"text"));
    refused("a.txt.gz", &twice, "it is compressed with gzip", "gzip -dc");
    let latin = gzip(b"one\ncaf\xe9 ole");
    refused(
        "a.txt.gz",
        &latin,
        "no character begins at byte 7, in line 2",
        "iconv",
    );
}

/// 600 MB of one letter in 0.6 MB: neither unpacked to memory nor written.
#[test]
fn a_bomb_is_refused() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let part = gzip(&vec![b'x'; 30 << 20]);
    let path = write(&folder, "a.jsonl.gz", part.repeat(10));
    let error = make(&request(&[path], TokenizerKind::Gpt2, &out)).unwrap_err();
    assert!(
        error.to_string().contains("bytes without a line break"),
        "{error}"
    );
    assert!(!out.exists());
}
