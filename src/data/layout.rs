//! The layout of a token file, told from its first bytes: nanoGPT's, llm.c's, or none of them.
//!
//! nanoGPT's files are raw little-endian u16 tokens. llm.c's shards put 256 little-endian i32 in
//! front: magic 20240520, version 1, number of tokens, zeros. The magic tells them apart: as the
//! first two u16 tokens it would need the id 55,432, beyond GPT-2's vocabulary.

use std::collections::HashSet;
use std::path::Path;

use super::DataError;

pub(super) const HEADER_BYTES: usize = 1024;
const MAGIC: i32 = 20_240_520;
const VERSION: i32 = 1;

/// First bytes of other formats, with their names and the way to tokens. As tokens they would begin with ids that no
/// text begins with.
const FORMATS: [(&[u8], &str, Way); 15] = [
    (b"\x93NUMPY", "a NumPy array (.npy)", Way::Numpy),
    (
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
        "gzip",
        Way::Unpack("gunzip"),
    ),
    (b"\x1f\x8b\x08\x08", "gzip", Way::Unpack("gunzip")),
    (b"\x28\xb5\x2f\xfd", "Zstandard", Way::Unpack("zstd -d")),
    (b"\xfd7zXZ\0", "xz", Way::Unpack("unxz")),
    (b"BZh91AY&SY", "bzip2", Way::Unpack("bunzip2")),
    (
        b"PK\x03\x04",
        "a zip archive, as `torch.save` and `np.savez` write them",
        Way::Array,
    ),
    (b"\x80\x02}q\x00", "a pickle", Way::Array),
    (b"\x80\x02]q\x00", "a pickle", Way::Array),
    (b"\x80\x03]q\x00", "a pickle", Way::Array),
    (b"\x89HDF\r\n\x1a\n", "HDF5", Way::Array),
    (b"PAR1", "Parquet", Way::Text),
    (b"ARROW1\0\0", "an Arrow file", Way::Text),
    (b"\xff\xfe", "UTF-16 text", Way::Text),
    (
        b"\xff\xff\xff\xff",
        "an Arrow stream, as Hugging Face's datasets write them",
        Way::Text,
    ),
];

/// The way from a file of another format to tokens.
#[derive(Clone, Copy)]
enum Way {
    Numpy,
    Array,
    Unpack(&'static str),
    Text,
}

impl Way {
    fn hint(self, path: &Path) -> String {
        let path = path.display();
        match self {
            Way::Numpy => format!(
                "convert it in Python: `numpy.load('{path}').astype('<u2').tofile('{path}.u16')`"
            ),
            Way::Array => format!(
                "load its array in Python and write the bare tokens: `array.astype('<u2').tofile('{path}.u16')`"
            ),
            Way::Unpack(command) => format!("unpack it first, with `{command}`"),
            Way::Text => {
                "token files hold bare ids; make them from the text with `taper prepare`".into()
            }
        }
    }
}

/// The number of bytes before the first token (llm.c's header or none) in a file of `bytes` that begins with
/// `head`.
pub(super) fn check_layout(path: &Path, head: &[u8], bytes: u64) -> Result<u64, DataError> {
    let words = head.as_chunks().0.iter();
    let words: Vec<i32> = words.map(|&word| i32::from_le_bytes(word)).collect();
    if words.first() == Some(&MAGIC) {
        check_header(path, &words, bytes)?;
        return Ok(HEADER_BYTES as u64);
    }
    // Words that are zero from the fourth to the 256th, and not before, are a header, not text.
    let like_header = words.len() == HEADER_BYTES / 4
        && words[3..].iter().all(|&word| word == 0)
        && words[..3].iter().all(|&word| word != 0);
    if like_header {
        return Err(DataError::WrongMagic {
            path: path.to_owned(),
            found: words[0],
        });
    }
    if let Some((seems, way)) = other_format(head) {
        return Err(DataError::NotTokens {
            path: path.to_owned(),
            seems: seems.into(),
            hint: way.hint(path),
        });
    }
    if !bytes.is_multiple_of(2) {
        let path = path.to_owned();
        return Err(DataError::OddLength { path, bytes });
    }
    Ok(0)
}

fn other_format(head: &[u8]) -> Option<(&'static str, Way)> {
    let mut formats = FORMATS.iter();
    match (formats.find(|(magic, ..)| head.starts_with(magic)), head) {
        (Some(&(_, name, way)), _) => Some((name, way)),
        // Protocols 4 and 5: the length of the first frame.
        (_, [0x80, 4 | 5, 0x95, _, _, _, _, 0, 0, 0, 0, ..]) => Some(("a pickle", Way::Array)),
        // The length of its JSON.
        (_, [_, _, _, _, 0, 0, 0, 0, b'{', b'"', ..]) => Some(("safetensors", Way::Array)),
        _ => is_text(head).then_some(("text", Way::Text)),
    }
}

/// Whether these are characters without control codes, and so many different ones that they are no few tokens that
/// happen to look so.
fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The last character may be cut.
        Err(error) if error.error_len().is_none() => {
            return error.valid_up_to() > 0 && is_text(&head[..error.valid_up_to()]);
        }
        Err(_) => return false,
    };
    let pairs: HashSet<&[u8]> = head.chunks_exact(2).collect();
    let printed = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r');
    pairs.len() >= 32 && text.chars().all(printed)
}

/// Checks the header of a file of `bytes` that begins with llm.c's magic number.
fn check_header(path: &Path, words: &[i32], bytes: u64) -> Result<(), DataError> {
    let path = path.to_owned();
    if words.len() < HEADER_BYTES / 4 {
        return Err(DataError::ShortHeader { path, bytes });
    }
    let (found, promised) = (words[1], words[2]);
    if found != VERSION {
        return Err(DataError::WrongVersion { path, found });
    }
    let found_bytes = bytes - HEADER_BYTES as u64;
    match u64::try_from(promised) {
        Ok(promised) if 2 * promised > found_bytes => Err(DataError::Truncated {
            path,
            promised,
            found: found_bytes / 2,
        }),
        Ok(tokens) if tokens > 0 && 2 * tokens == found_bytes => Ok(()),
        _ => Err(DataError::WrongCount {
            path,
            promised,
            found_bytes,
        }),
    }
}
