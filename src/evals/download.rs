//! A public file of a known checksum, downloaded once.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::EvalsError;
use crate::hub::Watch;
use crate::terms::{FileError, free_bytes};
use crate::units::bytes;

/// HellaSwag's validation split, 10,042 contexts, from its authors. Length and checksum are those that Hugging Face's
/// `datasets` has (`datasets/hellaswag/dataset_infos.json`).
pub(super) const HELLASWAG: PublicFile = PublicFile {
    name: "hellaswag_val.jsonl",
    url: "https://raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_val.jsonl",
    bytes: 12_246_618,
    sha256: "0aa3b88843990f3f10a97b9575c94d7b71fb2205240ba04ae4884d9e9c992588",
};

const CONNECT: Duration = Duration::from_secs(15);
/// The longest time without a byte.
const SILENCE: Duration = Duration::from_secs(30);

/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// A file that anybody may download.
#[derive(Clone, Copy, Debug)]
pub struct PublicFile<'a> {
    pub name: &'a str,
    pub url: &'a str,
    pub bytes: u64,
    /// In lower-case hex.
    pub sha256: &'a str,
}

/// The file in `folder`, downloaded if it is not there. It is written aside, verified and renamed.
///
/// # Errors
/// `NoRoom`, `Unreachable`, `OtherFile`, `Interrupted`, and `File` when it cannot be written. Nothing is left of what
/// came.
pub fn fetch(file: &PublicFile, folder: &Path, watch: &dyn Watch) -> Result<PathBuf, EvalsError> {
    let path = folder.join(file.name);
    if fs::metadata(&path).is_ok_and(|there| there.len() == file.bytes) {
        return Ok(path);
    }
    fs::create_dir_all(folder).map_err(FileError::at("create", folder))?;
    if let Some(free) = free_bytes(folder).filter(|free| *free < file.bytes) {
        return Err(EvalsError::NoRoom {
            folder: folder.to_owned(),
            free,
            needed: file.bytes,
        });
    }
    watch.note(&format!(
        "downloading {}, {} from {}, to `{}`",
        file.name,
        bytes(file.bytes),
        file.url,
        folder.display()
    ));
    let mut aside = NamedTempFile::new_in(folder).map_err(FileError::at("create", &path))?;
    watch.begin(0, file.bytes);
    let received = receive(file, &mut aside, watch);
    watch.end();
    received?;
    let stored = aside.as_file().sync_all();
    stored.map_err(FileError::at("write", &path))?;
    let kept = aside.persist(&path);
    kept.map_err(|error| FileError::at("create", &path)(error.error))?;
    Ok(path)
}

/// Writes what comes to `aside`, and verifies it.
fn receive(
    file: &PublicFile,
    aside: &mut NamedTempFile,
    watch: &dyn Watch,
) -> Result<(), EvalsError> {
    let unreachable = |source| EvalsError::Unreachable {
        url: file.url.to_owned(),
        source: Box::new(source),
    };
    let other = |found: String, expected: String| EvalsError::OtherFile {
        url: file.url.to_owned(),
        found,
        expected,
    };
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .user_agent(concat!("taper/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .build()
        .into();
    let answer = agent.get(file.url).call().map_err(unreachable)?;
    let mut body = answer.into_body().into_reader();
    let (mut piece, mut length, mut sum) = (vec![0; PIECE], 0, Sha256::new());
    loop {
        if watch.is_interrupted() {
            return Err(EvalsError::Interrupted);
        }
        let read = match body.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreachable(error.into())),
        };
        length += read as u64;
        if length > file.bytes {
            break;
        }
        sum.update(&piece[..read]);
        let written = aside.write_all(&piece[..read]);
        written.map_err(FileError::at("write", aside.path()))?;
        watch.reach(length);
    }
    if length != file.bytes {
        let found = match length > file.bytes {
            true => format!("more than {} bytes", file.bytes),
            false => format!("{length} bytes"),
        };
        return Err(other(found, format!("{} bytes", file.bytes)));
    }
    let found: String = sum
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    match found == file.sha256 {
        true => Ok(()),
        false => Err(other(
            format!("SHA-256 {found}"),
            format!("SHA-256 {}", file.sha256),
        )),
    }
}
