//! The archive: the place of each entry in the file, and the bytes of its pickle.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::ops::Range;
use std::path::Path;

use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::error::TorchFlaw;
use crate::checkpoint::CheckpointError;

/// Longest `data.pkl` that is read. That of GPT-2 XL's checkpoint, optimizer included, has 0.3 MB.
const LONGEST_PICKLE_BYTES: u64 = 8 << 20;

/// First bytes of an entry of a zip archive, which is what `torch.save` begins with.
const ZIP: &[u8] = b"PK\x03\x04";

/// First bytes of the pickles that PyTorch 0.1.10 to 1.5 wrote one after another: protocol 2, then the number
/// 0x1950a86a20f9469cfc6c as a `LONG1` of ten bytes.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// Place and first bytes of the mark in a tar archive, which PyTorch wrote before 0.1.10.
const TAR: (usize, &[u8]) = (257, b"ustar");

const GIT_LFS: &[u8] = b"version https://git-lfs";

/// Bytes of entries in the file, by their names.
type Entries = BTreeMap<String, Range<u64>>;

/// An open file and its entries, by their names in the one folder of the archive.
#[derive(Debug)]
pub(super) struct Archive {
    pub(super) file: File,
    pub(super) entries: Entries,
    pub(super) pickle: Vec<u8>,
}

impl Archive {
    /// Opens an archive and holds its list of entries against its length.
    ///
    /// # Errors
    /// `Io`, and `Torch` for a file that cannot be read as it is.
    pub(super) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let io = || CheckpointError::io("read", path);
        let file = File::open(path).map_err(io())?;
        let mut start = Vec::new();
        (&file).take(512).read_to_end(&mut start).map_err(io())?;
        if let Some(flaw) = other_format(&start) {
            return Err(flaw.of(path).into());
        }
        (&file).rewind().map_err(io())?;
        let (pickle, entries) = match read(&file) {
            Ok(read) => read,
            Err(Failure::Flaw(flaw)) => return Err(flaw.of(path).into()),
            Err(Failure::Zip(ZipError::Io(error)))
                if error.kind() != std::io::ErrorKind::UnexpectedEof =>
            {
                return Err(io()(error));
            }
            Err(Failure::Zip(error)) => {
                return Err(TorchFlaw::CutShort(error.to_string()).of(path).into());
            }
        };
        Ok(Self {
            file,
            entries,
            pickle,
        })
    }
}

enum Failure {
    Flaw(TorchFlaw),
    Zip(ZipError),
}

impl From<ZipError> for Failure {
    fn from(error: ZipError) -> Self {
        Self::Zip(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Zip(ZipError::Io(error))
    }
}

impl From<TorchFlaw> for Failure {
    fn from(flaw: TorchFlaw) -> Self {
        Self::Flaw(flaw)
    }
}

/// The format of a file that does not begin as an archive.
fn other_format(start: &[u8]) -> Option<TorchFlaw> {
    let (tar, mark) = TAR;
    let is_tar = start.get(tar..).is_some_and(|at| at.starts_with(mark));
    if start.starts_with(ZIP) {
        None
    } else if start.starts_with(GIT_LFS) {
        Some(TorchFlaw::GitLfs)
    } else if start.starts_with(LEGACY) || is_tar {
        Some(TorchFlaw::Legacy)
    } else {
        Some(TorchFlaw::NotSaved)
    }
}

/// The pickle, and the entries beside it.
fn read(file: &File) -> Result<(Vec<u8>, Entries), Failure> {
    let mut zip = ZipArchive::new(BufReader::new(file))?;
    if zip.has_duplicate_names() {
        return Err(TorchFlaw::Overlap.into());
    }
    let mut all = BTreeMap::new();
    for index in 0..zip.len() {
        let (name, range) = place(&mut zip, index)?;
        all.insert(name, (index, range));
    }
    if zip.has_overlapping_files()? {
        return Err(TorchFlaw::Overlap.into());
    }
    let folder = folder_of_pickle(all.keys())?;
    let inside = |name: &str| Some(name.strip_prefix(&folder)?.to_owned());
    if all
        .keys()
        .any(|name| is_of_torch_script(&name[..], &folder))
    {
        return Err(TorchFlaw::TorchScript.into());
    }
    let pickle = entry(&mut zip, &all, &format!("{folder}data.pkl"))?;
    let order = format!("{folder}byteorder");
    if all.contains_key(&order) && entry(&mut zip, &all, &order)?.trim_ascii() != b"little" {
        return Err(TorchFlaw::BigEndian.into());
    }
    let entries = all
        .into_iter()
        .filter_map(|(name, (_, range))| Some((inside(&name)?, range)));
    Ok((pickle, entries.collect()))
}

type Zip<'a> = ZipArchive<BufReader<&'a File>>;

/// Name and bytes of an entry, which are stored as they are.
fn place(zip: &mut Zip, index: usize) -> Result<(String, Range<u64>), Failure> {
    let entry = zip.by_index_raw(index)?;
    let name = entry.name()?.into_owned();
    let refuse = |found, expected| TorchFlaw::Entry {
        entry: name.clone(),
        found,
        expected,
    };
    if entry.encrypted() {
        return Err(refuse("encrypted", "plain bytes").into());
    }
    if entry.compression() != CompressionMethod::Stored || entry.size() != entry.compressed_size() {
        return Err(refuse("compressed", "bytes as `torch.save` stores them").into());
    }
    let start = entry.data_start();
    let end = start.and_then(|start| start.checked_add(entry.size()));
    match start.zip(end) {
        Some((start, end)) => Ok((name, start..end)),
        None => Err(refuse("outside of the file", "inside").into()),
    }
}

/// The folder of `data.pkl`, with its slash: every entry of the object is in it.
fn folder_of_pickle<'a>(names: impl Iterator<Item = &'a String>) -> Result<String, TorchFlaw> {
    let folders = names.filter_map(|name| name.strip_suffix("data.pkl"));
    let mut folders =
        folders.filter(|folder| folder.is_empty() || folder.find('/') == Some(folder.len() - 1));
    match (folders.next(), folders.next()) {
        (Some(folder), None) => Ok(folder.to_owned()),
        (None, _) => Err(TorchFlaw::NotSaved),
        (Some(_), Some(_)) => Err(TorchFlaw::Overlap),
    }
}

/// Whether an entry is one of `torch.jit.save`: code and constants.
fn is_of_torch_script(name: &str, folder: &str) -> bool {
    let inside = name.strip_prefix(folder);
    inside.is_some_and(|name| name == "constants.pkl" || name.starts_with("code/"))
}

/// The bytes of a small entry, held against its checksum.
fn entry(
    zip: &mut Zip,
    all: &BTreeMap<String, (usize, Range<u64>)>,
    name: &str,
) -> Result<Vec<u8>, Failure> {
    let Some((index, range)) = all.get(name) else {
        return Err(TorchFlaw::NotSaved.into());
    };
    if range.end - range.start > LONGEST_PICKLE_BYTES {
        return Err(TorchFlaw::Pickle("it is longer than 8 MiB").into());
    }
    let mut bytes = Vec::new();
    zip.by_index(*index)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}
