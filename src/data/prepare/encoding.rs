//! Files that are not UTF-8 text: their likely contents, the place of the first fault, and the command that converts.

use std::fmt;
use std::io::Read;
use std::path::Path;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};

use super::PrepareError;
use super::input::InputFile;
use crate::terms::shell_word;

/// The byte order mark that some programs put before UTF-8 text.
pub(super) const MARK: &[u8] = b"\xEF\xBB\xBF";

/// Bytes that a guess is made from.
pub(super) const SAMPLE_BYTES: usize = 64 << 10;

/// Contents of a file that is not UTF-8 text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text in another encoding, named as `iconv` names it.
    Encoded(&'static str),
    /// UTF-8 of the halves of surrogate pairs, which is CESU-8.
    Surrogates,
    /// UTF-8 that ends inside of a character.
    Cut,
    /// UTF-8 among which some bytes are not.
    Stray,
    /// A format known by its first bytes, with the command that makes text of it; `{}` is the file.
    Known(&'static str, &'static str),
    Binary,
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Content::Encoded("ISO-8859-1") => f.write_str("text in ISO-8859-1 (Latin-1)"),
            Content::Encoded(encoding) => write!(f, "text in {encoding}"),
            Content::Surrogates => f.write_str("CESU-8, which has the halves of surrogate pairs"),
            Content::Cut => f.write_str("UTF-8 that is cut short"),
            Content::Stray => f.write_str("UTF-8 with some damaged bytes"),
            Content::Known(name, _) => f.write_str(name),
            Content::Binary => f.write_str("binary data"),
        }
    }
}

/// First bytes of formats, from the start of a file.
const KNOWN: [(&[u8], Content); 19] = [
    (b"\xFF\xFE\0\0", Content::Encoded("UTF-32")),
    (b"\0\0\xFE\xFF", Content::Encoded("UTF-32")),
    (b"\xFF\xFE", Content::Encoded("UTF-16")),
    (b"\xFE\xFF", Content::Encoded("UTF-16")),
    (
        b"\x1F\x8B",
        Content::Known("compressed with gzip", "gzip -dc {}"),
    ),
    (
        b"\x28\xB5\x2F\xFD",
        Content::Known("compressed with zstd", "zstd -dc {}"),
    ),
    (
        b"\xFD7zXZ\0",
        Content::Known("compressed with xz", "xz -dc {}"),
    ),
    (
        b"BZh",
        Content::Known("compressed with bzip2", "bzip2 -dc {}"),
    ),
    (
        b"\x04\x22\x4D\x18",
        Content::Known("compressed with lz4", "lz4 -dc {}"),
    ),
    (
        b"7z\xBC\xAF\x27\x1C",
        Content::Known("a 7z archive", "7z e -so {}"),
    ),
    (
        b"PK\x03\x04",
        Content::Known("a zip archive (.zip, .docx, .xlsx, .npz)", "unzip -p {}"),
    ),
    (b"PAR1", Content::Known("a Parquet table", "")),
    (b"ARROW1", Content::Known("an Arrow table", "")),
    (b"%PDF-", Content::Known("a PDF", "pdftotext {} -")),
    (
        b"\xD0\xCF\x11\xE0",
        Content::Known("a document of an old Office", "catdoc {}"),
    ),
    (
        b"SQLite format 3\0",
        Content::Known("an SQLite database", ""),
    ),
    (b"\x93NUMPY", Content::Known("a NumPy array", "")),
    (
        b"\x88\xD8\x34\x01",
        Content::Known("a token file of llm.c", ""),
    ),
    (
        b"\0\x05\x16\x07",
        Content::Known("a companion file of macOS (AppleDouble)", ""),
    ),
];

/// The contents of a file that begins with `head`, where that shows they are not UTF-8 text.
pub(super) fn recognise(head: &[u8]) -> Option<Content> {
    if is_plain(head) {
        return None;
    }
    let known = KNOWN.iter().find(|(first, _)| head.starts_with(first));
    if let Some((_, content)) = known {
        return Some(*content);
    }
    if head.get(257..262) == Some(b"ustar") {
        return Some(Content::Known("a tar archive", "tar -xOf {}"));
    }
    if is_utf16(head, u16::from_le_bytes) {
        return Some(Content::Encoded("UTF-16LE"));
    }
    is_utf16(head, u16::from_be_bytes).then_some(Content::Encoded("UTF-16BE"))
}

/// True if `head` is UTF-8, perhaps cut inside of a character, without control characters: text, whatever it begins with.
fn is_plain(head: &[u8]) -> bool {
    let is_utf8 = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    is_utf8 && !head.iter().any(is_control)
}

/// Control characters beyond those of texts: tab, line ends, form feed and ESC.
fn is_control(byte: &u8) -> bool {
    matches!(byte, 0..=8 | 14..=26 | 28..=31)
}

/// True if `head` is likely UTF-16 without a mark: spaces, line breaks and the like have a zero byte, which text in
/// other encodings has not, and there are no control characters.
fn is_utf16(head: &[u8], unit: fn([u8; 2]) -> u16) -> bool {
    let units = head.as_chunks().0;
    let mut ascii = 0;
    let mut faults = 0;
    for character in char::decode_utf16(units.iter().map(|&bytes| unit(bytes))) {
        match character {
            Ok('\t' | '\n' | '\r' | ' '..='~') => ascii += 1,
            Ok(character) => faults += usize::from(character.is_control()),
            Err(_) => faults += 1,
        }
    }
    // The last unit may be half of a pair.
    if faults > 1 || ascii * 128 < units.len().max(1) {
        return false;
    }
    // UTF-8 may have zero bytes, too, as between file names. It has few other control characters.
    let is_odd = |byte: &&u8| matches!(byte, 1..=8 | 14..=31);
    std::str::from_utf8(head).is_err()
        || ascii * 2 >= units.len()
        || head.iter().filter(is_odd).count() * 64 >= head.len()
}

/// The first place in a file where no character begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub offset: u64,
    /// From 1; a line ends with LF, CR or both.
    pub line: u64,
    pub content: Content,
}

/// Looks for the first fault in the unpacked contents; `None` if they are UTF-8.
pub(super) fn first_fault(source: &InputFile) -> Result<Option<Fault>, PrepareError> {
    let mut contents = source.contents(0)?;
    let mut lines = Lines::default();
    let mut buffer = Vec::new();
    let mut offset = 0;
    loop {
        let read = contents.by_ref().take(1 << 20);
        let read = { read }.read_to_end(&mut buffer);
        let read = read.map_err(|error| source.unreadable(error))?;
        let error = match std::str::from_utf8(&buffer) {
            Err(error) if error.error_len().is_some() || read == 0 => error,
            other => {
                let valid = other.map_or_else(|error| error.valid_up_to(), str::len);
                lines.pass(offset, &buffer[..valid]);
                buffer.drain(..valid);
                offset += valid as u64;
                if read == 0 {
                    return Ok(None);
                }
                continue;
            }
        };
        let valid = error.valid_up_to();
        lines.pass(offset, &buffer[..valid]);
        offset += valid as u64;
        let before = (offset - lines.start).min(SAMPLE_BYTES as u64 / 2);
        let around = source.contents(offset - before)?;
        let mut sample = Vec::new();
        let read = around.take(SAMPLE_BYTES as u64).read_to_end(&mut sample);
        read.map_err(|error| source.unreadable(error))?;
        return Ok(Some(Fault {
            offset,
            line: lines.before + 1,
            content: guess(&sample, before as usize, error.error_len().is_none()),
        }));
    }
}

/// Counts lines.
#[derive(Default)]
struct Lines {
    before: u64,
    /// Offset of the line's first byte.
    start: u64,
    after_return: bool,
}

impl Lines {
    fn pass(&mut self, offset: u64, bytes: &[u8]) {
        for (at, &byte) in (offset + 1..).zip(bytes) {
            if matches!(byte, b'\n' | b'\r') {
                self.before += u64::from(byte == b'\r' || !self.after_return);
                self.start = at;
            }
            self.after_return = byte == b'\r';
        }
    }
}

/// The likely contents of a file of which `sample` is a part; the fault is at `fault` in it, `at_end` of the file.
fn guess(sample: &[u8], fault: usize, at_end: bool) -> Content {
    if let [0xED, 0xA0..=0xBF, ..] = sample[fault..] {
        return Content::Surrogates;
    }
    if sample.iter().filter(|byte| is_control(byte)).count() * 100 > sample.len() {
        return Content::Binary;
    }
    let (mut long, mut invalid) = (0, 0);
    for chunk in sample.utf8_chunks() {
        long += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        invalid += usize::from(!chunk.invalid().is_empty());
    }
    if long > 0 && at_end {
        return Content::Cut;
    }
    if long > 4 * invalid {
        return Content::Stray;
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(sample, true);
    let name = detector.guess(None, Utf8Detection::Deny).name();
    let of_windows = |byte: &u8| matches!(byte, 0x80..=0x9F);
    match name {
        "windows-1252" if !sample.iter().any(of_windows) => Content::Encoded("ISO-8859-1"),
        name => Content::Encoded(name),
    }
}

impl Content {
    /// The command that makes UTF-8 text of the file at `path`.
    pub(super) fn hint(&self, path: &Path) -> String {
        let extension = path.extension().and_then(|e| e.to_str());
        let stem = path.with_extension("");
        // `a.txt.gz` becomes `a.txt`; another encoding of `a.txt` becomes `a.utf8.txt`.
        let text = match (self, extension) {
            (Content::Known(..), Some(_)) if stem.extension().is_some() => stem,
            (Content::Known(..), _) => path.with_extension("txt"),
            (_, extension) => path.with_extension(format!("utf8.{}", extension.unwrap_or("txt"))),
        };
        let (from, to) = (shell_word(path), shell_word(&text));
        match self {
            Content::Encoded(encoding) => format!(
                "run `iconv -f {encoding} -t UTF-8 {from} > {to}`, look at `{to}`, and prepare that"
            ),
            Content::Surrogates => format!(
                "run `python3 -c 'import sys; sys.stdout.buffer.write(open(sys.argv[1], encoding=\"utf-8\", \
                 errors=\"surrogatepass\", newline=\"\").read().encode(\"utf-16\", \"surrogatepass\")\
                 .decode(\"utf-16\", \"replace\").encode())' {from} > {to}`, and prepare `{to}`"
            ),
            Content::Cut => format!(
                "copy the file again; to leave out what is incomplete, run `iconv -c -f UTF-8 -t UTF-8 {from} > {to}`"
            ),
            Content::Stray => format!(
                "mend it in an editor, or leave out the damaged bytes: `iconv -c -f UTF-8 -t UTF-8 {from} > {to}`"
            ),
            Content::Known("a token file of llm.c", _) => format!(
                "tokens need no `prepare`: train with `--set data.train_bin={from}` and a `data.val_bin`"
            ),
            Content::Known(_, "") | Content::Binary => {
                "save it as UTF-8 text (.txt), or as JSON lines with one document each (.jsonl)"
                    .into()
            }
            Content::Known(_, command) => format!(
                "run `{} > {to}`, and prepare `{to}`",
                command.replace("{}", &from)
            ),
        }
    }
}
