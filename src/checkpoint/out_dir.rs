//! A run's folder, held by one process.
//!
//! The holder has an operating system's lock on `.lock`, a small file with its process number and host. The lock goes with
//! the process, however that ends; the file is removed at the end of a run and means nothing without the lock. Only
//! training holds a folder: readers do without.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::CheckpointError;
use crate::terms::FileId;

const LOCK: &str = ".lock";

/// The holder writes its name right after it took the lock: how often, and how long each time, to wait for that.
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// A run's folder that no other run writes to as long as this value lives.
#[derive(Debug)]
pub struct OutDir {
    path: PathBuf,
    id: Option<FileId>,
    /// `None` where the file system has no locks.
    lock: Option<File>,
    /// Whether the folder is new: one that stays empty goes again.
    is_new: bool,
}

impl OutDir {
    /// Makes the folder if there is none, and takes its lock. Where the file system has no locks, also returns why.
    ///
    /// # Errors
    /// `OutDir` when the folder cannot be made or written, `InUse` when another process holds it.
    pub fn hold(path: &Path) -> Result<(Self, Option<io::Error>), CheckpointError> {
        let is_new = !path.exists();
        make(path)?;
        let mut held = Self {
            path: path.to_owned(),
            id: FileId::at(path),
            lock: None,
            is_new,
        };
        let unlocked = match held.take_lock()? {
            Ok(file) => {
                held.lock = Some(file);
                None
            }
            Err(error) => Some(error),
        };
        Ok((held, unlocked))
    }

    /// Whether the folder is still at its path: neither moved nor removed.
    pub fn is_in_place(&self) -> bool {
        FileId::at(&self.path) == self.id
    }

    /// Takes the lock; the inner error is that of a file system without locks.
    fn take_lock(&self) -> Result<io::Result<File>, CheckpointError> {
        let path = self.path.join(LOCK);
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(unusable(&self.path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::Error(error)) => return Ok(Err(error)),
                Err(TryLockError::WouldBlock) => {
                    return Err(CheckpointError::InUse {
                        out_dir: self.path.clone(),
                        holder: holder(&path),
                    });
                }
            }
            // A run that ended just now may have removed the file after it was opened here.
            if FileId::at(&path) == FileId::of_file(&file) {
                // The name is a courtesy: a full disk may refuse it.
                let _ = file.set_len(0).and_then(|()| {
                    let id = std::process::id();
                    file.write_all(format!("process {id} on host `{}`\n", host()).as_bytes())
                });
                return Ok(Ok(file));
            }
        }
    }
}

impl Drop for OutDir {
    fn drop(&mut self) {
        let path = self.path.join(LOCK);
        let ours = self.lock.as_ref().and_then(FileId::of_file);
        // Removed before it is unlocked: nobody else can have it at this moment.
        if ours.is_some() && FileId::at(&path) == ours {
            let _ = fs::remove_file(&path);
        }
        if self.is_new {
            // Refused for a folder that holds anything.
            let _ = fs::remove_dir(&self.path);
        }
    }
}

fn make(path: &Path) -> Result<(), CheckpointError> {
    let unusable = unusable(path);
    if path.is_dir() {
        return Ok(());
    }
    if let Ok(target) = fs::read_link(path) {
        let found = format!(
            "it is a link to `{}`, which is not a folder",
            target.display()
        );
        return Err(unusable(io::Error::other(found)));
    }
    if path.exists() {
        return Err(unusable(io::Error::other("it is a file")));
    }
    fs::create_dir_all(path).map_err(unusable)
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError + use<> {
    let path = path.to_owned();
    move |source| CheckpointError::OutDir { path, source }
}

/// The holder's words about itself.
fn holder(lock: &Path) -> String {
    for _ in 0..LOOKS {
        let text = fs::read_to_string(lock).unwrap_or_default();
        if let Some(line) = text.strip_suffix('\n') {
            return line.to_owned();
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
    "another process".into()
}

/// The name of this machine, as far as the system tells it without a library.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok());
    name.map_or("unknown".into(), |name| name.trim().to_owned())
}
