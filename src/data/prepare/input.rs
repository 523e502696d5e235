//! The input files: each is text, lines of JSON or a table, perhaps compressed, and none is named twice.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::PrepareError;
use super::encoding::{self, MARK, SAMPLE_BYTES};
use super::json;
use super::note::Note;
use super::packed::{Contents, Packing};
use super::table::{self, Table};

/// One file of a request.
#[derive(Clone, Debug)]
pub struct RequestedFile {
    pub path: PathBuf,
    /// Lower-case hex, verified by whoever downloaded the file; `None` where nobody knows it yet.
    pub sha256: Option<String>,
}

impl From<PathBuf> for RequestedFile {
    fn from(path: PathBuf) -> Self {
        RequestedFile { path, sha256: None }
    }
}

/// Division of a file into documents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Format {
    /// The file is one document.
    Text,
    /// Each line is a JSON object with one document in a field.
    JsonLines,
    /// Each row of a Parquet table has one document in a column.
    Parquet,
}

/// One input file.
#[derive(Clone, Debug)]
pub(super) struct InputFile {
    pub path: PathBuf,
    pub format: Format,
    pub packing: Packing,
    /// Length of the file, compressed as it is.
    pub bytes: u64,
    /// The checksum that the request has.
    pub sha256: Option<String>,
    /// Whether a byte order mark comes before the text.
    pub mark: bool,
    /// Parquet only.
    pub table: Option<Table>,
    name: Name,
    /// Whether the first line is a JSON object.
    looks_like_lines: bool,
}

/// The format that a file's name promises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Name {
    JsonLines,
    /// One value, or lines all the same.
    Json,
    Parquet,
    Text,
    Other,
}

impl Name {
    /// The name without the ending of a compressed file.
    pub(super) fn of(path: &Path) -> Name {
        let ending = |path: &Path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            extension.map(str::to_ascii_lowercase)
        };
        let inner = match ending(path).as_deref() {
            Some("gz" | "zst") => ending(&path.with_extension("")),
            outer => outer.map(str::to_owned),
        };
        match inner.as_deref() {
            Some("jsonl" | "ndjson" | "jsonlines") => Name::JsonLines,
            Some("json") => Name::Json,
            Some("parquet") => Name::Parquet,
            Some("txt") => Name::Text,
            _ => Name::Other,
        }
    }
}

impl InputFile {
    /// Looks at the name and the first bytes.
    pub(super) fn new(
        file: &RequestedFile,
        metadata: &Metadata,
        field: &str,
    ) -> Result<Self, PrepareError> {
        let path = &file.path;
        let (packing, head, whole) = beginning(path)?;
        let name = Name::of(path);
        let content = encoding::recognise(&head);
        let mut source = InputFile {
            path: path.clone(),
            format: Format::Text,
            packing,
            bytes: metadata.len(),
            sha256: file.sha256.clone(),
            mark: false,
            table: None,
            name,
            looks_like_lines: false,
        };
        if packing == Packing::None && head.starts_with(table::MAGIC) && content.is_some() {
            source.format = Format::Parquet;
            source.table = Some(Table::open(path, field)?);
            return Ok(source);
        }
        if let Some(content) = content {
            let path = path.clone();
            return Err(match packing.name() {
                None => PrepareError::NotText { path, content },
                Some(name) => PrepareError::NotPackedText {
                    path,
                    name,
                    content,
                },
            });
        }
        let text = head.strip_prefix(MARK).unwrap_or(&head);
        source.mark = text.len() < head.len();
        source.looks_like_lines = is_json_lines(text, whole);
        source.format = match name {
            Name::JsonLines | Name::Json => Format::JsonLines,
            Name::Parquet => return Err(PrepareError::NoTable { path: path.clone() }),
            Name::Text | Name::Other => Format::Text,
        };
        if name == Name::Json && !source.looks_like_lines && !text.trim_ascii().is_empty() {
            return Err(PrepareError::NotLines {
                path: path.clone(),
                is_array: text.trim_ascii_start().starts_with(b"["),
            });
        }
        Ok(source)
    }

    /// Opens the unpacked contents at byte `start`.
    pub(super) fn contents(&self, start: u64) -> Result<Contents, PrepareError> {
        Contents::open(&self.path, self.packing, start).map_err(|error| self.unreadable(error))
    }

    /// The error of a failure to read the contents.
    pub(super) fn unreadable(&self, source: std::io::Error) -> PrepareError {
        unreadable(&self.path, self.packing, source)
    }
}

/// The first unpacked bytes of a file, and whether they are all of it.
fn beginning(path: &Path) -> Result<(Packing, Vec<u8>, bool), PrepareError> {
    let file = File::open(path).map_err(PrepareError::io("open", path))?;
    let mut first = Vec::new();
    let read = file.take(4).read_to_end(&mut first);
    read.map_err(PrepareError::io("read", path))?;
    let packing = Packing::of(&first);
    let fault = |error| unreadable(path, packing, error);
    let mut contents = Contents::open(path, packing, 0).map_err(fault)?;
    let mut head = Vec::new();
    let sample = contents.by_ref().take(SAMPLE_BYTES as u64);
    { sample }.read_to_end(&mut head).map_err(fault)?;
    let whole = contents.is_at_end().map_err(fault)?;
    Ok((packing, head, whole))
}

fn unreadable(path: &Path, packing: Packing, source: std::io::Error) -> PrepareError {
    match packing.name() {
        // The decoder's own errors have no code of the system.
        Some(name) if source.raw_os_error().is_none() => PrepareError::BadPacked {
            path: path.to_owned(),
            name,
            is_cut: source.kind() == std::io::ErrorKind::UnexpectedEof,
            source,
        },
        _ => PrepareError::io("read", path)(source),
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

/// Opens the files of a request and looks at each.
pub(super) fn open(files: &[RequestedFile], field: &str) -> Result<Vec<InputFile>, PrepareError> {
    let mut sources = Vec::new();
    let mut seen: HashMap<Identity, &Path> = HashMap::new();
    for file in files {
        let path = &file.path;
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
        sources.push(InputFile::new(file, &metadata, field)?);
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
        Note::JsonLines(paths(|source| {
            source.name == Name::Json && source.format == Format::JsonLines
        })),
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
