//! A record of what is done, by which a preparation that was killed goes on.
//!
//! It lies beside the staged files, a line of JSON for each record: first the request, then the result of the first pass
//! over each file, then places up to which everything is written and on the disk. A line that is cut short, and all that
//! follows it, counts for nothing.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::blocks::Position;
use super::input::InputFile;
use super::staging::{JOURNAL_FILE, NEW_JOURNAL_FILE, change, sync_file};
use super::survey::{Counts, Surveyed};
use super::{PrepareError, PrepareRequest};
use crate::tokenizer::TokenizerKind;

/// Longest line that is read; the characters of a file are at most 65,536 of 4 bytes.
const LONGEST_LINE_BYTES: u64 = 64 << 20;

/// Everything that the files of a dataset follow from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Identity {
    version: String,
    tokenizer: TokenizerKind,
    field: String,
    val_fraction: f64,
    sources: Vec<SourceIdentity>,
}

/// A file, and that it is unchanged: by its checksum if that is known, else by its time and its place on the disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SourceIdentity {
    path: PathBuf,
    bytes: u64,
    sha256: Option<String>,
    /// Nanoseconds since 1970.
    modified: Option<u64>,
    inode: Option<u64>,
}

impl SourceIdentity {
    fn of(source: &InputFile) -> Result<SourceIdentity, PrepareError> {
        let path = &source.path;
        let metadata = std::fs::metadata(path).map_err(PrepareError::io("read", path))?;
        let mut identity = SourceIdentity {
            path: path.canonicalize().unwrap_or_else(|_| path.clone()),
            bytes: metadata.len(),
            sha256: source.sha256.clone(),
            modified: None,
            inode: None,
        };
        if identity.sha256.is_none() {
            let since = metadata.modified().ok();
            let since = since.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            identity.modified = since.map(|since| since.as_nanos() as u64);
            #[cfg(unix)]
            {
                identity.inode = Some(std::os::unix::fs::MetadataExt::ino(&metadata));
            }
        }
        Ok(identity)
    }
}

impl Identity {
    pub(super) fn of(
        request: &PrepareRequest,
        sources: &[InputFile],
    ) -> Result<Identity, PrepareError> {
        let sources = sources.iter().map(SourceIdentity::of);
        Ok(Identity {
            version: env!("CARGO_PKG_VERSION").into(),
            tokenizer: request.tokenizer,
            field: request.field.clone(),
            val_fraction: request.val_fraction,
            sources: sources.collect::<Result<_, _>>()?,
        })
    }

    /// The first file that is not as it was.
    pub(super) fn changed(&self, sources: &[InputFile]) -> Result<Option<PathBuf>, PrepareError> {
        for (source, before) in sources.iter().zip(&self.sources) {
            if SourceIdentity::of(source)? != *before {
                return Ok(Some(source.path.clone()));
            }
        }
        Ok(None)
    }

    /// The first difference to `earlier`, in words.
    fn difference(&self, earlier: &Identity) -> Option<String> {
        let odd = |same: bool, what: &str| (!same).then(|| what.to_owned());
        let version = &earlier.version;
        odd(self.version == *version, &format!("it was taper {version}"))
            .or_else(|| {
                odd(
                    self.tokenizer == earlier.tokenizer,
                    "the tokenizer was another",
                )
            })
            .or_else(|| {
                odd(
                    self.field == earlier.field,
                    &format!("the field was `{}`", earlier.field),
                )
            })
            .or_else(|| {
                let fraction = earlier.val_fraction;
                odd(
                    self.val_fraction == fraction,
                    &format!("`--val-fraction` was {fraction}"),
                )
            })
            .or_else(|| {
                let (now, then) = (self.sources.len(), earlier.sources.len());
                odd(
                    now == then,
                    &format!("there were {then} input files, now {now}"),
                )
            })
            .or_else(|| {
                let mut both = self.sources.iter().zip(&earlier.sources);
                let (now, then) = both.find(|(now, then)| now != then)?;
                let is_same = now.path == then.path;
                let (now, then) = (now.path.display(), then.path.display());
                Some(if is_same {
                    format!("`{now}` has changed since")
                } else {
                    format!("its input was `{then}`, now it is `{now}`")
                })
            })
    }
}

/// A place up to which the tokens are on the disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    pub position: Position,
    /// Lengths of `train.bin` and `val.bin`.
    pub bytes: [u64; 2],
    /// Facts of the documents so far in files without a first pass.
    pub counts: Counts,
}

/// One line of the journal.
#[derive(Serialize, Deserialize)]
enum Record {
    Request(Identity),
    Surveyed(usize, Surveyed),
    Checksum(usize, String),
    Progress(Progress),
}

/// The work that a journal records.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub surveyed: BTreeMap<usize, Surveyed>,
    pub checksums: BTreeMap<usize, String>,
    pub progress: Progress,
}

impl Done {
    fn is_empty(&self) -> bool {
        self.surveyed.is_empty() && self.progress.bytes == [0; 2]
    }
}

/// The journal of a running preparation.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Whether there is work worth keeping.
    pub has_work: bool,
}

/// The journal in a staging folder, compared with a request.
pub(super) enum Found {
    None,
    /// It is of the same request.
    Same(Box<Done>),
    /// It is of another one, or cannot be read; and why.
    Other(String),
}

/// Reads the journal in `folder`.
pub(super) fn read(folder: &Path, identity: &Identity) -> Result<Found, PrepareError> {
    let path = folder.join(JOURNAL_FILE);
    let file = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::None),
        file => file.map_err(PrepareError::io("open", &path))?,
    };
    let mut file = BufReader::new(file);
    let mut next = || -> Result<Option<Record>, PrepareError> {
        let mut line = Vec::new();
        let read = file
            .by_ref()
            .take(LONGEST_LINE_BYTES)
            .read_until(b'\n', &mut line);
        read.map_err(PrepareError::io("read", &path))?;
        let line = line.strip_suffix(b"\n").unwrap_or_default();
        Ok(serde_json::from_slice(line).ok())
    };
    let Some(Record::Request(earlier)) = next()? else {
        return Ok(Found::Other("its journal cannot be read".into()));
    };
    let mut done = Done::default();
    while let Some(record) = next()? {
        match record {
            Record::Request(_) => break,
            Record::Surveyed(source, surveyed) => drop(done.surveyed.insert(source, surveyed)),
            Record::Checksum(source, sha256) => drop(done.checksums.insert(source, sha256)),
            Record::Progress(progress) => done.progress = progress,
        }
    }
    if done.is_empty() {
        return Ok(Found::None);
    }
    if let Some(why) = identity.difference(&earlier) {
        return Ok(Found::Other(why));
    }
    for (name, bytes) in ["train.bin", "val.bin"].iter().zip(done.progress.bytes) {
        let found = std::fs::metadata(folder.join(name)).map_or(0, |metadata| metadata.len());
        if found < bytes {
            let why = format!("its {name} has {found} bytes, its journal says {bytes}");
            return Ok(Found::Other(why));
        }
    }
    Ok(Found::Same(Box::new(done)))
}

impl Journal {
    /// Writes the journal anew, with the records of `done`.
    pub(super) fn begin(
        folder: &Path,
        identity: Identity,
        done: &Done,
    ) -> Result<Journal, PrepareError> {
        let path = folder.join(JOURNAL_FILE);
        let fault = || PrepareError::io("write", &path);
        let mut lines = vec![line(&Record::Request(identity)).map_err(fault())?];
        let surveyed = done.surveyed.iter();
        let surveyed = surveyed.map(|(&source, one)| Record::Surveyed(source, one.clone()));
        let checksums = done.checksums.iter();
        let checksums = checksums.map(|(&source, one)| Record::Checksum(source, one.clone()));
        let progress = [Record::Progress(done.progress.clone())];
        for record in surveyed.chain(checksums).chain(progress) {
            lines.push(line(&record).map_err(fault())?);
        }
        // The old one stays whole until the new one is.
        let new = folder.join(NEW_JOURNAL_FILE);
        let mut file = change(|| File::create(&new)).map_err(fault())?;
        change(|| file.write_all(&lines.concat())).map_err(fault())?;
        sync_file(&file).map_err(fault())?;
        change(|| std::fs::rename(&new, &path)).map_err(fault())?;
        let file = OpenOptions::new().append(true).open(&path);
        Ok(Journal {
            file: file.map_err(fault())?,
            has_work: !done.is_empty(),
            path,
        })
    }

    pub(super) fn surveyed(&mut self, source: usize, one: &Surveyed) -> Result<(), PrepareError> {
        self.has_work = true;
        self.append(&Record::Surveyed(source, one.clone()))
    }

    pub(super) fn checksum(&mut self, source: usize, sha256: &str) -> Result<(), PrepareError> {
        self.append(&Record::Checksum(source, sha256.to_owned()))
    }

    /// Records a place whose tokens are on the disk.
    pub(super) fn progress(&mut self, progress: Progress) -> Result<(), PrepareError> {
        self.has_work |= progress.bytes != [0; 2];
        self.append(&Record::Progress(progress))?;
        sync_file(&self.file).map_err(PrepareError::io("write", &self.path))
    }

    fn append(&mut self, record: &Record) -> Result<(), PrepareError> {
        let written = line(record).and_then(|line| change(|| self.file.write_all(&line)));
        written.map_err(PrepareError::io("write", &self.path))
    }
}

fn line(record: &Record) -> std::io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    Ok(line)
}
