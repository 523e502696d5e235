//! Text files that people write, in whatever encoding they are.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use super::{FileError, shell_word};

/// Reads a UTF-8 text of at most `most` bytes, which bounds what an endless file takes. A byte order mark is left out.
///
/// # Errors
/// [`FileError`]; its source is a [`NotUtf8`] for another encoding.
pub fn read_text(action: &'static str, path: &Path, most: u64) -> Result<String, FileError> {
    read(path, most).map_err(FileError::at(action, path))
}

fn read(path: &Path, most: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let reason = format!("it has more than {} KiB", most >> 10);
        return Err(io::Error::new(ErrorKind::FileTooLarge, reason));
    }
    let text = decode(bytes).map_err(|other| io::Error::new(ErrorKind::InvalidData, other))?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(unmarked) => unmarked.into(),
        None => text,
    })
}

/// A text that is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUtf8 {
    #[error("it is UTF-16, where UTF-8 is read")]
    Utf16,
    /// A byte that UTF-8 does not have there, in a line counted from 1.
    #[error(
        "line {line} is not UTF-8: it holds the byte 0x{byte:02X}, as Latin-1 or Windows-1252 do"
    )]
    Byte { line: usize, byte: u8 },
}

impl NotUtf8 {
    /// The command that converts `path`.
    pub fn hint(self, path: &Path) -> String {
        let encoding = match self {
            Self::Utf16 => "UTF-16",
            Self::Byte { .. } => "WINDOWS-1252",
        };
        let word = shell_word(path);
        format!("save it as UTF-8, or convert it: `iconv -f {encoding} -t UTF-8 {word} > NEW_FILE`")
    }
}

/// Tells the encodings that editors write apart: by a byte order mark, by zeros, by the first byte that is wrong.
fn decode(bytes: Vec<u8>) -> Result<String, NotUtf8> {
    // Without a mark, ASCII in UTF-16 is valid UTF-8 with a zero beside every character.
    let marked = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    let zeros = bytes.iter().filter(|&&byte| byte == 0).count();
    if marked || zeros > bytes.len() / 4 {
        return Err(NotUtf8::Utf16);
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let before = &error.as_bytes()[..at];
        NotUtf8::Byte {
            line: 1 + before.iter().filter(|&&byte| byte == b'\n').count(),
            byte: error.as_bytes()[at],
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_told_apart() {
        let utf16 = |text: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            text.encode_utf16().flat_map(bytes).collect()
        };
        let latin1 = NotUtf8::Byte {
            line: 2,
            byte: 0xe9,
        };
        let cases = [
            (utf16("\u{feff}a = 1", u16::to_le_bytes), NotUtf8::Utf16),
            (utf16("\u{feff}a = 1", u16::to_be_bytes), NotUtf8::Utf16),
            (utf16("a = 1", u16::to_le_bytes), NotUtf8::Utf16),
            (utf16("a = 1", u16::to_be_bytes), NotUtf8::Utf16),
            (b"a = 1\n# caf\xe9\n".to_vec(), latin1),
        ];
        for (bytes, expected) in cases {
            assert_eq!(decode(bytes), Err(expected));
        }
        assert_eq!(decode("ä\n".into()), Ok("ä\n".into()));
        assert_eq!(decode(Vec::new()), Ok(String::new()));
    }

    #[test]
    fn a_mark_is_left_out_and_an_endless_file_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "\u{feff}a = 1").unwrap();
        assert_eq!(read_text("read", file.path(), 10).unwrap(), "a = 1");
        let error = read_text("read", Path::new("/dev/zero"), 4096).unwrap_err();
        assert_eq!(error.source.to_string(), "it has more than 4 KiB");
    }
}
