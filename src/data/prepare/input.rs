//! The input files: each is text or lines of JSON, and none is named twice.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::PrepareError;
use super::encoding::{self, MARK, SAMPLE_BYTES};
use super::json;
use super::note::Note;

/// Division of a file into documents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Format {
    /// The file is one document.
    Text,
    /// Each line is a JSON object with one document in a field.
    JsonLines,
}

/// One input file.
#[derive(Clone, Debug)]
pub(super) struct InputFile {
    pub path: PathBuf,
    pub format: Format,
    pub bytes: u64,
    /// Whether a byte order mark comes before the text.
    pub mark: bool,
    name: Name,
    /// Whether the first line is a JSON object.
    looks_like_lines: bool,
}

/// The format that a file's name promises.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Name {
    JsonLines,
    /// One value, or lines all the same.
    Json,
    Other,
}

impl Name {
    fn of(path: &Path) -> Name {
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("jsonl" | "ndjson" | "jsonlines") => Name::JsonLines,
            Some("json") => Name::Json,
            _ => Name::Other,
        }
    }
}

impl InputFile {
    /// Looks at the name and the first bytes.
    fn new(path: &Path, metadata: &Metadata) -> Result<Self, PrepareError> {
        let file = File::open(path).map_err(PrepareError::io("open", path))?;
        let mut head = Vec::new();
        file.take(SAMPLE_BYTES as u64)
            .read_to_end(&mut head)
            .map_err(PrepareError::io("read", path))?;
        if let Some(content) = encoding::recognise(&head) {
            return Err(PrepareError::NotText {
                path: path.to_owned(),
                content,
            });
        }
        let text = head.strip_prefix(MARK).unwrap_or(&head);
        let whole = metadata.len() <= SAMPLE_BYTES as u64;
        let looks_like_lines = is_json_lines(text, whole);
        let name = Name::of(path);
        if name == Name::Json && !looks_like_lines && !text.trim_ascii().is_empty() {
            return Err(PrepareError::NotLines {
                path: path.to_owned(),
                is_array: text.trim_ascii_start().starts_with(b"["),
            });
        }
        Ok(InputFile {
            path: path.to_owned(),
            format: match name {
                Name::JsonLines | Name::Json => Format::JsonLines,
                Name::Other => Format::Text,
            },
            bytes: metadata.len(),
            mark: text.len() < head.len(),
            name,
            looks_like_lines,
        })
    }
}

/// True if the first line of a file that begins with `head` is a JSON object, as far as it can be seen.
fn is_json_lines(head: &[u8], whole: bool) -> bool {
    let text = head.trim_ascii_start();
    let end = text.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
    let line = &text[..end.unwrap_or(text.len())];
    let complete = end.is_some() || whole;
    match std::str::from_utf8(line) {
        Ok(line) if complete => json::read(line, |_, _| {}) == Ok(json::Kind::Object),
        _ => line.starts_with(b"{\"") && !complete,
    }
}

/// Opens the files at `paths` and looks at each.
pub(super) fn open(paths: &[PathBuf]) -> Result<Vec<InputFile>, PrepareError> {
    let mut sources = Vec::new();
    let mut seen: HashMap<Identity, &Path> = HashMap::new();
    for path in paths {
        let metadata = match std::fs::metadata(path) {
            Err(_) if path == Path::new("-") => return Err(not_a_file(path, "standard input")),
            metadata => metadata.map_err(PrepareError::io("read", path))?,
        };
        if metadata.is_dir() {
            return Err(not_a_file(path, "a folder"));
        }
        if !metadata.is_file() {
            return Err(not_a_file(path, "a pipe or a device"));
        }
        let identity = identity(path, &metadata).map_err(PrepareError::io("read", path))?;
        if let Some(first) = seen.insert(identity, path) {
            return Err(PrepareError::NamedTwice {
                path: path.clone(),
                first: first.to_owned(),
            });
        }
        sources.push(InputFile::new(path, &metadata)?);
    }
    Ok(sources)
}

/// Notes on what the names and the first bytes were taken for.
pub(super) fn notes(sources: &[InputFile]) -> Vec<Note> {
    let paths = |wanted: fn(&InputFile) -> bool| -> Vec<PathBuf> {
        let wanted = sources.iter().filter(|source| wanted(source));
        wanted.map(|source| source.path.clone()).collect()
    };
    let found = [
        Note::JsonLines(paths(|source| source.name == Name::Json)),
        Note::LikeJsonLines(paths(|source| {
            source.looks_like_lines && source.format == Format::Text
        })),
        Note::Marks(paths(|source| source.mark)),
    ];
    found.into_iter().filter(Note::is_due).collect()
}

fn not_a_file(path: &Path, what: &'static str) -> PrepareError {
    PrepareError::NotAFile {
        path: path.to_owned(),
        what,
    }
}

/// Equal for two names of one file.
#[cfg(unix)]
type Identity = (u64, u64);

#[cfg(unix)]
fn identity(_: &Path, metadata: &Metadata) -> std::io::Result<Identity> {
    use std::os::unix::fs::MetadataExt;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
type Identity = PathBuf;

#[cfg(not(unix))]
fn identity(path: &Path, _: &Metadata) -> std::io::Result<Identity> {
    path.canonicalize()
}
