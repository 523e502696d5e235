//! A dataset that appears, or takes the place of another, all at once.
//!
//! A first dataset is written to `out/.prepare`; its files are moved up when all are complete, `train.bin` last, without
//! which there is no dataset. One that replaces another is written to a folder beside `out`, and the two folders are
//! exchanged. Then the folder that was there before receives the same files and is exchanged back, so that `out` stays the
//! folder it was: with its owner, its permissions, everything else in it, and the shells that stand in it.
//!
//! | name | meaning |
//! |---|---|
//! | `out/.prepare` | a first dataset, being written |
//! | `.NAME.prepare` beside `out`, which is called `NAME` | a dataset that is to replace another; after a kill perhaps the old folder |
//! | `.NAME.replaced` | the old folder, set aside where the file system cannot exchange two folders |
//!
//! A staged folder with a journal is kept after a kill: the next `prepare` goes on with it, or clears it. The journal is
//! gone before any file of the dataset has a second name elsewhere.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::PrepareError;
use crate::data::vocabulary::{META_FILE, Meta};

/// The files of a dataset, in the order in which a first one appears.
const FILES: [&str; 5] = [
    META_FILE,
    "tokenizer_config.json",
    "tokenizer.json",
    "val.bin",
    TRAIN_FILE,
];
const TRAIN_FILE: &str = "train.bin";
/// The record of what is done; see `journal`.
pub(super) const JOURNAL_FILE: &str = ".prepare.journal";
/// The journal while it is written anew.
pub(super) const NEW_JOURNAL_FILE: &str = ".prepare.new";
/// The vocabulary of a dataset that nanoGPT made.
const PICKLE_FILE: &str = "meta.pkl";

/// New files for `out`, written elsewhere until [`Staging::commit`].
///
/// The lock on `out` keeps a second `prepare` away. A killed process leaves only hidden folders, with which the next one
/// goes on, or which it clears; an error removes them at once.
pub(super) struct Staging {
    out: PathBuf,
    pub folder: PathBuf,
    replaced: Vec<String>,
    /// True once the staged files are to outlive this process.
    kept: bool,
    /// True while a failure removes `out`, which did not exist before.
    created: bool,
    /// Locks of `out` and of `folder`, which may take its place.
    locks: Vec<File>,
}

/// The hidden names beside a folder.
struct Beside {
    staged: PathBuf,
    aside: PathBuf,
}

impl Beside {
    /// `None` for the root of the file system.
    fn of(out: &Path) -> Option<Beside> {
        let parent = out.parent()?;
        let hidden = |ending: &str| {
            let mut name = OsString::from(".");
            name.push(out.file_name()?);
            name.push(ending);
            Some(parent.join(name))
        };
        Some(Beside {
            staged: hidden(".prepare")?,
            aside: hidden(".replaced")?,
        })
    }
}

impl Staging {
    pub(super) fn begin(out: &Path) -> Result<Staging, PrepareError> {
        let out = &resolved(out);
        let beside = Beside::of(out);
        if let Some(Beside { aside, .. }) = &beside
            && aside.exists()
            && !out.exists()
        {
            change(|| fs::rename(aside, out)).map_err(PrepareError::io("restore", out))?;
        }
        let inside = out.join(".prepare");
        let created = !out.exists() || holds_only(out, &inside);
        change(|| fs::create_dir_all(out)).map_err(PrepareError::io("create", out))?;
        let lock = locked(out, out)?;
        remove_journal(out)?;
        let replaced = dataset_in(out);
        let (folder, stale) = match (replaced.is_empty(), beside) {
            (true, None) => (inside, vec![]),
            (true, Some(Beside { staged, aside })) => (inside, vec![staged, aside]),
            (false, Some(Beside { staged, aside })) => (staged, vec![inside, aside]),
            (false, None) => return Err(irreplaceable(out, ErrorKind::CrossesDevices.into())),
        };
        stale.iter().try_for_each(|folder| discard(folder, out))?;
        let has_journal = folder.join(JOURNAL_FILE).is_file();
        let mut staging = Staging {
            out: out.to_owned(),
            folder,
            replaced,
            kept: has_journal,
            created,
            locks: vec![lock],
        };
        if has_journal {
            let lock = locked(&staging.folder, out)?;
            staging.locks.push(lock);
            staging.gather()?;
        } else {
            staging.restart()?;
        }
        staging.kept = false;
        Ok(staging)
    }

    /// Clears the staged folder.
    pub(super) fn restart(&mut self) -> Result<(), PrepareError> {
        let (folder, out) = (&self.folder, &self.out);
        self.locks.truncate(1);
        discard(folder, out)?;
        change(|| fs::create_dir(folder)).map_err(|error| match self.replaced[..] {
            [] => PrepareError::io("create", folder)(error),
            _ => irreplaceable(out, error),
        })?;
        self.kept = false;
        if !self.replaced.is_empty() && is_mount_point(out) {
            return Err(irreplaceable(out, ErrorKind::CrossesDevices.into()));
        }
        let lock = locked(folder, out)?;
        self.locks.push(lock);
        Ok(())
    }

    /// Takes back the files of a first dataset that was killed while they moved up, `meta.json` first.
    fn gather(&self) -> Result<(), PrepareError> {
        let tokens = fs::metadata(self.folder.join(TRAIN_FILE)).map(|file| file.len() / 2);
        let meta = fs::read(self.out.join(META_FILE)).ok();
        let meta = meta.and_then(|meta| serde_json::from_slice::<Meta>(&meta).ok());
        let moved_up = meta.is_some_and(|meta| tokens.is_ok_and(|n| n == meta.train_tokens));
        if !self.replaced.is_empty() || !moved_up {
            return Ok(());
        }
        for name in FILES.into_iter().rev() {
            let (staged, moved) = (self.folder.join(name), self.out.join(name));
            if !staged.exists() && moved.exists() {
                change(|| fs::rename(&moved, &staged)).map_err(PrepareError::io("move", &moved))?;
            }
        }
        Ok(())
    }

    /// Leaves the staged files for the next `prepare` to go on with.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }

    /// The files of the dataset that is replaced, by name; empty if there is none.
    pub(super) fn replaced(&self) -> &[String] {
        &self.replaced
    }

    /// Puts the files in place once all of them are on the disk.
    pub(super) fn commit(mut self) -> Result<(), PrepareError> {
        for name in FILES {
            let path = self.folder.join(name);
            sync(&path).map_err(PrepareError::io("write", &path))?;
        }
        sync(&self.folder).map_err(PrepareError::io("write", &self.folder))?;
        self.created = false;
        if self.replaced.is_empty() {
            for name in FILES {
                let target = self.out.join(name);
                change(|| fs::rename(self.folder.join(name), &target))
                    .map_err(PrepareError::io("replace", &target))?;
            }
        } else if exchange(&self.folder, &self.out).is_ok() {
            remove_journal(&self.out)?;
            self.take_back()?;
        } else {
            self.rename_twice()?;
        }
        let parent = self.out.parent().filter(|_| !self.replaced.is_empty());
        let mut changed = [Some(&*self.out), parent].into_iter().flatten();
        changed.try_for_each(|folder| sync(folder).map_err(PrepareError::io("write", folder)))
    }

    /// After the exchange, makes the old folder hold the new dataset, too, and exchanges it back. Where that fails, what
    /// else it holds moves to the new one.
    fn take_back(&self) -> Result<(), PrepareError> {
        let old = &self.folder;
        let filled = self
            .replaced
            .iter()
            .try_for_each(|name| change(|| fs::remove_file(old.join(name))));
        let filled = filled.and_then(|()| {
            FILES
                .iter()
                .try_for_each(|name| change(|| fs::hard_link(self.out.join(name), old.join(name))))
        });
        match filled.and_then(|()| exchange(old, &self.out)) {
            Ok(()) => Ok(()),
            Err(_) => move_foreign(old, &self.out),
        }
    }

    /// Without an exchange there is no dataset between the two renames; a kill there is mended by the next `prepare`.
    fn rename_twice(&self) -> Result<(), PrepareError> {
        let failed = |error| irreplaceable(&self.out, error);
        let Some(Beside { aside, .. }) = Beside::of(&self.out) else {
            return Err(failed(ErrorKind::CrossesDevices.into()));
        };
        change(|| fs::rename(&self.out, &aside)).map_err(failed)?;
        if let Err(error) = change(|| fs::rename(&self.folder, &self.out)) {
            change(|| fs::rename(&aside, &self.out))
                .map_err(PrepareError::io("restore", &aside))?;
            return Err(failed(error));
        }
        remove_journal(&self.out)?;
        let permissions = fs::metadata(&aside).map(|metadata| metadata.permissions());
        // As far as this user may set them.
        let _ = permissions.and_then(|old| change(|| fs::set_permissions(&self.out, old)));
        discard(&aside, &self.out)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // Nothing can be done about a failure here, and nothing depends on it.
        let _ = discard(&self.folder, &self.out);
        if self.created {
            let _ = change(|| fs::remove_dir(&self.out));
        }
    }
}

/// Makes one change to the file system. Tests end the process before any of them.
pub(super) fn change<T>(act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    #[cfg(test)]
    tests::pass()?;
    act()
}

/// `out` without links, so that the folder is exchanged and not the link.
fn resolved(out: &Path) -> PathBuf {
    if let Ok(resolved) = out.canonicalize() {
        return resolved;
    }
    let parent = match out.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    match (parent.canonicalize(), out.file_name()) {
        (Ok(parent), Some(name)) => parent.join(name),
        _ => out.to_owned(),
    }
}

fn locked(folder: &Path, out: &Path) -> Result<File, PrepareError> {
    let lock = File::open(folder).map_err(PrepareError::io("open", folder))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(PrepareError::Busy { folder: out.into() }),
        Err(TryLockError::Error(error)) => Err(PrepareError::io("lock", folder)(error)),
    }
}

/// The names of the files of the dataset in `out`; none without its `train.bin`.
fn dataset_in(out: &Path) -> Vec<String> {
    let exists = |name: &&str| out.join(name).symlink_metadata().is_ok();
    if !exists(&TRAIN_FILE) {
        return Vec::new();
    }
    let names = FILES.into_iter().rev().chain([PICKLE_FILE]);
    names.filter(exists).map(str::to_owned).collect()
}

/// Removes the journal from a folder that is no staged one any more.
fn remove_journal(folder: &Path) -> Result<(), PrepareError> {
    for name in [JOURNAL_FILE, NEW_JOURNAL_FILE] {
        let path = folder.join(name);
        if path.symlink_metadata().is_ok() {
            change(|| fs::remove_file(&path)).map_err(PrepareError::io("remove", &path))?;
        }
    }
    Ok(())
}

/// Whether a folder holds nothing but `inside`.
fn holds_only(folder: &Path, inside: &Path) -> bool {
    let Ok(mut entries) = fs::read_dir(folder) else {
        return false;
    };
    let is_inside =
        |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|entry| entry.path() == inside);
    entries.next().is_some_and(is_inside) && entries.next().is_none()
}

/// Removes a hidden folder, if it is there. What it holds beside the files of a dataset moves to `out`.
fn discard(folder: &Path, out: &Path) -> Result<(), PrepareError> {
    if folder.symlink_metadata().is_err() {
        return Ok(());
    }
    move_foreign(folder, out)?;
    change(|| fs::remove_dir_all(folder)).map_err(PrepareError::io("clear", folder))
}

/// Moves everything in `from` that is no file of a dataset to `out`, where it was before a kill or a replacement.
fn move_foreign(from: &Path, out: &Path) -> Result<(), PrepareError> {
    let entries = fs::read_dir(from).map_err(PrepareError::io("read", from))?;
    for entry in entries {
        let entry = entry.map_err(PrepareError::io("read", from))?;
        let name = entry.file_name();
        let is_ours = |ours: &str| name.to_str() == Some(ours);
        let target = out.join(&name);
        let ours = [PICKLE_FILE, JOURNAL_FILE, NEW_JOURNAL_FILE];
        if FILES.into_iter().chain(ours).any(is_ours) {
            continue;
        }
        if target.symlink_metadata().is_ok() {
            let error = io::Error::from(ErrorKind::AlreadyExists);
            return Err(PrepareError::io("move", &entry.path())(error));
        }
        change(|| fs::rename(entry.path(), &target))
            .map_err(PrepareError::io("move", &entry.path()))?;
    }
    Ok(())
}

fn irreplaceable(out: &Path, source: io::Error) -> PrepareError {
    PrepareError::Irreplaceable {
        folder: out.to_owned(),
        source,
    }
}

/// Lets two folders change places.
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    change(|| Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?))
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// True if `out` is on another file system than the folder that it is in, where it cannot be renamed.
#[cfg(unix)]
fn is_mount_point(out: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    out.parent()
        .is_some_and(|parent| device(parent) != device(out))
}

#[cfg(not(unix))]
fn is_mount_point(_: &Path) -> bool {
    false
}

/// Puts a file, or the names in a folder, on the disk. Only Unix can open a folder.
fn sync(path: &Path) -> io::Result<()> {
    if cfg!(not(unix)) && path.is_dir() {
        return Ok(());
    }
    let file = File::open(path)?;
    sync_file(&file)
}

/// Puts a file on the disk. A kill needs none of that, so tests, which kill a thousand times, do without.
pub(super) fn sync_file(file: &File) -> io::Result<()> {
    change(|| if cfg!(test) { Ok(()) } else { file.sync_all() })
}

#[cfg(test)]
pub(super) mod tests;
