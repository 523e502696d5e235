//! Files that are not UTF-8 text: each is named by its line, its byte, and what it may be.

use taper::tokenizer::TokenizerKind;
use tempfile::TempDir;

use crate::{make, request, write};

fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(bytes).collect()
}

/// Asserts that files of these bytes, as text and as JSON lines, are refused with these words and this advice.
fn assert_refused(cases: &[(Vec<u8>, &str, &str)]) {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    for name in ["my text.txt", "lines.jsonl"] {
        for (bytes, expected, advice) in cases {
            let path = write(&folder, name, bytes);
            let error = make(&request(&[path], TokenizerKind::Gpt2, &out)).unwrap_err();
            let shown = error.to_string();
            assert!(
                shown.contains("is not UTF-8 text") && shown.contains(expected),
                "{expected}: {shown}"
            );
            let hint = error.hint().unwrap();
            assert!(hint.contains(advice), "{expected}: {hint}");
            assert!(
                !hint.contains("my text") || hint.contains("my text.txt'"),
                "{hint}"
            );
        }
    }
    assert!(!out.exists());
}

#[test]
fn utf16_is_named_with_a_mark_and_without() {
    let english = "The quick brown fox jumps over the lazy dog.\n".repeat(9);
    let russian = "Съешь ещё этих мягких французских булок.\n".repeat(9);
    let chinese = "敏捷的棕色狐狸跳过懒狗身上,而狗还在睡觉。\n".repeat(9);
    let marked = format!("\u{FEFF}{english}");
    let mut cases = vec![];
    for bytes in [u16::to_le_bytes, u16::to_be_bytes] {
        cases.push((utf16(&marked, bytes), "it is text in UTF-16", "-f UTF-16 "));
    }
    for text in [&english, &russian, &chinese] {
        let (little, big) = (utf16(text, u16::to_le_bytes), utf16(text, u16::to_be_bytes));
        cases.push((little, "it is text in UTF-16LE", "-f UTF-16LE"));
        cases.push((big, "it is text in UTF-16BE", "-f UTF-16BE"));
    }
    assert_refused(&cases);
}

#[test]
fn the_first_byte_of_another_encoding_is_named_by_line_and_offset() {
    let latin1: &[u8] = b"one\ntwo\r\nthree\rcaf\xe9 ol\xe9 \xe0 la cr\xe8me\n";
    let windows: &[u8] = b"it\x92s \x93quoted\x94 text, in Windows' own way\n";
    let koi8: &[u8] =
        b"\xf3\xdf\xc5\xdb\xd8 \xc5\xdd\xa3 \xdc\xd4\xc9\xc8 \xcd\xd1\xc7\xcb\xc9\xc8 \
        \xc6\xd2\xc1\xce\xc3\xd5\xda\xd3\xcb\xc9\xc8 \xc2\xd5\xcc\xcf\xcb";
    let shift_jis: &[u8] =
        b"\x93\xfa\x96\x7b\x8c\xea\x82\xcc\x83\x65\x83\x4c\x83\x58\x83\x67\x82\xc5\
        \x82\xb7\x81\x42";
    let stray: Vec<u8> = ["déjà vu, naïve café, déjà vu".as_bytes(), b"\xff and more"].concat();
    let cut: Vec<u8> = ["déjà vu, naïve café".as_bytes(), b"\xe2\x82"].concat();
    let lone: &[u8] = b"plain text with one \xe9 in it\n";
    assert_refused(&[
        (
            latin1.to_vec(),
            "at byte 18, in line 4; it may be text in ISO-8859-1 (Latin-1)",
            "iconv -f ISO-8859-1",
        ),
        (
            windows.to_vec(),
            "byte 2, in line 1; it may be text in windows-1252",
            "-f windows-1252",
        ),
        (
            lone.to_vec(),
            "byte 20, in line 1; it may be text in ",
            "iconv -f ",
        ),
        (
            koi8.to_vec(),
            "in line 1; it may be text in KOI8-",
            "-f KOI8-",
        ),
        (
            shift_jis.to_vec(),
            "in line 1; it may be text in Shift_JIS",
            "-f Shift_JIS",
        ),
        (stray, "may be UTF-8 with some damaged bytes", "iconv -c"),
        (cut, "may be UTF-8 that is cut short", "iconv -c"),
        (
            b"a pair: \xed\xa0\xbd\xed\xb8\x80, in CESU-8".to_vec(),
            "byte 8, in line 1; it may be CESU-8",
            "surrogatepass",
        ),
    ]);
}

#[test]
fn formats_that_hold_text_are_named_with_the_command_that_takes_it_out() {
    let binary: Vec<u8> = (0..=255).cycle().take(4096).collect();
    assert_refused(&[
        (
            b"\xFD7zXZ\0\0\0\xff".to_vec(),
            "compressed with xz",
            "xz -dc",
        ),
        (
            b"PK\x03\x04\x14\0\0\0".to_vec(),
            "a zip archive",
            "unzip -p",
        ),
        (b"%PDF-1.7\n%\xe2\xe3\n".to_vec(), "a PDF", "pdftotext"),
        (
            b"\0\x05\x16\x07\0\x02\0\0Mac OS X".to_vec(),
            "AppleDouble",
            ".txt",
        ),
        (binary, "it may be binary data", ".txt"),
    ]);
}

/// Beyond the first block, and for a character that two blocks share.
#[test]
fn a_fault_far_inside_is_found() {
    let folder = TempDir::new().unwrap();
    let mut bytes = "All is well here, où que ce soit.\r\n"
        .repeat(60_000)
        .into_bytes();
    let at = bytes.len();
    bytes.extend(b"caf\xe9 ol\xe9\n");
    bytes.extend("and further on.\n".repeat(9).bytes());
    let path = write(&folder, "long.txt", bytes);
    let out = folder.path().join("out");
    let error = make(&request(&[path], TokenizerKind::Char, &out)).unwrap_err();
    let expected = format!("no character begins at byte {}, in line 60001", at + 3);
    assert!(error.to_string().contains(&expected), "{error}");
}

#[test]
fn text_may_begin_as_a_format_does() {
    let folder = TempDir::new().unwrap();
    for beginning in ["BZh is no word", "%PDF-1.7", "PAR1, a gene", "ARROW1"] {
        let path = write(&folder, "a.txt", format!("{beginning}, but this is text."));
        make(&request(
            &[path],
            TokenizerKind::Char,
            &folder.path().join("out"),
        ))
        .unwrap();
    }
}
