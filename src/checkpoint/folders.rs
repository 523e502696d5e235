//! The folders in an `out_dir`: their names, their order, and which may go.
//!
//! | name | meaning |
//! |---|---|
//! | `ckpt-00002000` | a checkpoint, complete |
//! | `.tmp-ckpt-00002000` | being written, or being deleted; worthless after a kill |
//! | `.old-ckpt-00002000` | set aside while its replacement is renamed into place |
//!
//! Anything else in the folder is not taper's and is never touched.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::CheckpointError;
use super::manifest::Manifest;

const TEMPORARY: &str = ".tmp-";
const ASIDE: &str = ".old-";

/// The three names that belong to the checkpoint of one step.
pub(super) struct Folders {
    pub(super) complete: PathBuf,
    pub(super) temporary: PathBuf,
    pub(super) aside: PathBuf,
}

impl Folders {
    pub(super) fn new(out_dir: &Path, step: u64) -> Self {
        let name = format!("ckpt-{step:08}");
        Self {
            temporary: out_dir.join(format!("{TEMPORARY}{name}")),
            aside: out_dir.join(format!("{ASIDE}{name}")),
            complete: out_dir.join(name),
        }
    }
}

/// The step in a checkpoint folder's name; None for any other name.
pub(super) fn step_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("ckpt-")?;
    let step = digits.parse().ok()?;
    (format!("{step:08}") == digits).then_some(step)
}

/// Every checkpoint folder, newest first. One that was set aside counts while nothing has taken
/// its place: a kill between the two renames of a replacement leaves exactly that. A folder that
/// does not exist holds none.
pub(super) fn list(out_dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(out_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let step = match name.strip_prefix(ASIDE) {
            None => step_of(name),
            Some(name) => step_of(name).filter(|_| !out_dir.join(name).exists()),
        };
        if let Some(step) = step.filter(|_| path.is_dir()) {
            found.push((step, path));
        }
    }
    found.sort();
    found.reverse();
    Ok(found)
}

/// Finishes or undoes whatever a killed save or prune left behind.
pub(super) fn sweep(out_dir: &Path) -> Result<(), CheckpointError> {
    let entries = fs::read_dir(out_dir).map_err(CheckpointError::io("read", out_dir))?;
    for entry in entries {
        let entry = entry.map_err(CheckpointError::io("read", out_dir))?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        // `file_type` does not follow links: a link is not ours.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if let Some(name) = ours(&name, ASIDE) {
            let complete = out_dir.join(name);
            if complete.exists() {
                remove(&path)?;
            } else {
                fs::rename(&path, &complete).map_err(CheckpointError::io("restore", &path))?;
            }
        } else if ours(&name, TEMPORARY).is_some() {
            remove(&path)?;
        }
    }
    Ok(())
}

fn ours<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let name = name.strip_prefix(prefix)?;
    step_of(name).map(|_| name)
}

pub(super) fn remove(folder: &Path) -> Result<(), CheckpointError> {
    fs::remove_dir_all(folder).map_err(CheckpointError::io("remove", folder))
}

/// Makes the names in a folder as durable as the files they name.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Deletes all checkpoints but the newest `keep` intact ones and that of `best_step`; returns the
/// deleted paths, newest first.
///
/// The newest intact checkpoint always stays, and it is held against its checksums before anything
/// goes. Folders that are damaged, or not taper's, are left for their owner to look at.
///
/// # Errors
/// `Io` when `out_dir` cannot be listed or a folder cannot be deleted.
pub fn prune(
    out_dir: &Path,
    keep: usize,
    best_step: Option<u64>,
) -> Result<Vec<PathBuf>, CheckpointError> {
    sweep(out_dir)?;
    let all = list(out_dir).map_err(CheckpointError::io("read", out_dir))?;
    let mut kept = 0;
    let mut removed = Vec::new();
    for (step, path) in all {
        // Reading every byte of one survivor is enough: it alone is a run that can go on.
        let intact = match kept {
            0 => Manifest::verify(&path).is_ok(),
            _ => Manifest::read(&path).is_ok(),
        };
        if !intact {
            continue;
        }
        if kept < keep.max(1) {
            kept += 1;
        } else if Some(step) != best_step && !path.is_symlink() {
            // Renamed first, so that a kill half-way leaves no torn checkpoint.
            let doomed = Folders::new(out_dir, step).temporary;
            fs::rename(&path, &doomed).map_err(CheckpointError::io("remove", &path))?;
            remove(&doomed)?;
            removed.push(path);
        }
    }
    Ok(removed)
}
