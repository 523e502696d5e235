//! The folders in an `out_dir`: their names, their order, and which may go.
//!
//! | name | meaning |
//! |---|---|
//! | `ckpt-00002000` | a checkpoint, complete |
//! | `.tmp-ckpt-00002000` | being written; worthless after a kill |
//! | `.old-ckpt-00002000` | set aside while its replacement is renamed into place |
//! | `.del-ckpt-00002000` | being deleted |
//! | `.lock` | the lock of [`super::OutDir`] |
//!
//! The order is that of [`super::lineage`]: by branch, then by step. Anything else in the folder is not taper's and is
//! never touched.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::lineage::{Lineage, Place};
use super::manifest::Manifest;
use super::{CheckpointError, Stuck};

const TEMPORARY: &str = ".tmp-";
const ASIDE: &str = ".old-";
const DOOMED: &str = ".del-";

/// The names that belong to the checkpoint of one step.
pub(super) struct Folders {
    pub(super) complete: PathBuf,
    pub(super) temporary: PathBuf,
    pub(super) aside: PathBuf,
    doomed: PathBuf,
}

impl Folders {
    pub(super) fn new(out_dir: &Path, step: u64) -> Self {
        let name = format!("ckpt-{step:08}");
        Self {
            temporary: out_dir.join(format!("{TEMPORARY}{name}")),
            aside: out_dir.join(format!("{ASIDE}{name}")),
            doomed: out_dir.join(format!("{DOOMED}{name}")),
            complete: out_dir.join(name),
        }
    }

    /// Deletes the checkpoint that was set aside, or puts it back if nothing has taken its place.
    pub(super) fn settle_aside(self) -> Result<(), Stuck> {
        if self.complete.exists() {
            return delete(&self.aside, self.doomed);
        }
        fs::rename(&self.aside, &self.complete)
            .map_err(|error| Stuck::new("restore", self.aside, error))
    }
}

/// The step in a checkpoint folder's name; None for any other name.
pub(super) fn step_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("ckpt-")?;
    let step = digits.parse().ok()?;
    (format!("{step:08}") == digits).then_some(step)
}

/// A checkpoint folder, whole or not.
pub(super) struct Listed {
    pub(super) path: PathBuf,
    /// `None` when the manifest, a size or the lineage is not as it was written.
    pub(super) lineage: Option<Lineage>,
    /// A folder whose lineage cannot be read counts to the branch that was saved last.
    pub(super) place: Place,
}

/// Every checkpoint folder, newest first. One that was set aside counts while nothing has taken
/// its place: a kill between the two renames of a replacement leaves exactly that. A folder that
/// does not exist holds none.
pub(super) fn list(out_dir: &Path) -> io::Result<Vec<Listed>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(out_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
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
            found.push((step, Lineage::read(&path).ok(), path));
        }
    }
    let branches = found.iter().filter_map(|(_, lineage, _)| lineage.as_ref());
    let last = branches.map(|lineage| lineage.branch).max().unwrap_or(0);
    let listed = found.into_iter().map(|(step, lineage, path)| Listed {
        place: Place {
            branch: lineage.as_ref().map_or(last, |lineage| lineage.branch),
            step,
        },
        path,
        lineage,
    });
    let mut listed: Vec<Listed> = listed.collect();
    listed.sort_by_key(|listed| std::cmp::Reverse(listed.place));
    Ok(listed)
}

/// Every checkpoint folder of a run, whole or not, with its step: newest first. A folder that does not exist holds none.
///
/// # Errors
/// `Io` when the folder cannot be listed.
pub fn saved(out_dir: &Path) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
    let listed = list(out_dir).map_err(CheckpointError::io("read", out_dir))?;
    let saved = listed
        .into_iter()
        .map(|listed| (listed.place.step, listed.path));
    Ok(saved.collect())
}

/// Finishes or undoes whatever a killed save or prune left behind. Returns what it could not.
///
/// # Errors
/// `Io` when `out_dir` cannot be listed.
pub fn sweep(out_dir: &Path) -> Result<Vec<Stuck>, CheckpointError> {
    let entries = fs::read_dir(out_dir).map_err(CheckpointError::io("read", out_dir))?;
    let mut stuck = Vec::new();
    for entry in entries {
        let entry = entry.map_err(CheckpointError::io("read", out_dir))?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        // `file_type` does not follow links: a link is not ours.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if let Some(step) = ours(&name, ASIDE).and_then(step_of) {
            stuck.extend(Folders::new(out_dir, step).settle_aside().err());
        } else if ours(&name, TEMPORARY).or(ours(&name, DOOMED)).is_some() {
            stuck.extend(remove(path).err());
        }
    }
    Ok(stuck)
}

fn ours<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let name = name.strip_prefix(prefix)?;
    step_of(name).map(|_| name)
}

fn remove(folder: PathBuf) -> Result<(), Stuck> {
    fs::remove_dir_all(&folder).map_err(|error| Stuck::new("remove", folder, error))
}

/// Makes the names in a folder as durable as the files they name.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Deletes all checkpoints of the branch that was saved last but its newest `keep` intact ones and that of `best_step`;
/// returns the deleted paths, newest first.
///
/// The newest intact checkpoint always stays, and it is held against its checksums before anything
/// goes. Folders that are damaged, of another branch, or not taper's, are left for their owner to look at.
///
/// # Errors
/// `Io` when `out_dir` cannot be listed; `NotRemoved` names the folders that cannot be deleted, when all others are.
pub fn prune(
    out_dir: &Path,
    keep: usize,
    best_step: Option<u64>,
) -> Result<Vec<PathBuf>, CheckpointError> {
    let mut stuck = sweep(out_dir)?;
    let all = list(out_dir).map_err(CheckpointError::io("read", out_dir))?;
    let mut current: Option<Lineage> = None;
    let mut kept = 0;
    let mut removed = Vec::new();
    for Listed {
        path,
        lineage,
        place,
    } in all
    {
        // Reading every byte of one survivor is enough: it alone is a run that can go on.
        let intact = |_: &Lineage| kept > 0 || Manifest::verify(&path).is_ok();
        let Some(lineage) = lineage.filter(intact) else {
            continue;
        };
        if !current.get_or_insert(lineage).holds(place) {
            continue;
        }
        if kept < keep.max(1) {
            kept += 1;
        } else if Some(place.step) != best_step && !path.is_symlink() {
            match delete(&path, Folders::new(out_dir, place.step).doomed) {
                Ok(()) => removed.push(path),
                Err(error) => stuck.push(error),
            }
        }
    }
    if stuck.is_empty() {
        Ok(removed)
    } else {
        Err(CheckpointError::NotRemoved { stuck })
    }
}

/// Renames a checkpoint to `doomed` first, so that a kill half-way leaves no torn one, and a reader finds it gone.
fn delete(path: &Path, doomed: PathBuf) -> Result<(), Stuck> {
    // What an earlier deletion left is in the way.
    let _ = fs::remove_dir_all(&doomed);
    fs::rename(path, &doomed).map_err(|error| Stuck::new("remove", path.to_owned(), error))?;
    remove(doomed)
}
