//! A folder that changes all at once or not at all.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::PrepareError;

/// New files for `out`, written in a hidden folder inside it until [`Staging::commit`].
///
/// The lock on `out` keeps a second `prepare` away. A killed process leaves only the hidden
/// folder, which the next one clears; an error removes it at once.
pub(super) struct Staging {
    out: PathBuf,
    pub folder: PathBuf,
    /// True while a failure removes `out`, which did not exist before.
    created: bool,
    lock: File,
}

impl Staging {
    pub(super) fn begin(out: &Path) -> Result<Staging, PrepareError> {
        let created = !out.exists();
        fs::create_dir_all(out).map_err(PrepareError::io("create", out))?;
        let lock = File::open(out).map_err(PrepareError::io("open", out))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(PrepareError::Busy { folder: out.into() }),
            Err(TryLockError::Error(e)) => return Err(PrepareError::io("lock", out)(e)),
        }
        let folder = out.join(".prepare");
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(PrepareError::io("clear", &folder))?;
        }
        let staging = Staging {
            out: out.to_owned(),
            folder,
            created,
            lock,
        };
        fs::create_dir(&staging.folder).map_err(PrepareError::io("create", &staging.folder))?;
        Ok(staging)
    }

    /// Moves `names` into place, in this order, once all of them are on the disk.
    pub(super) fn commit(mut self, names: &[&str]) -> Result<(), PrepareError> {
        for name in names {
            let path = self.folder.join(name);
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(PrepareError::io("write", &path))?;
        }
        self.created = false;
        for name in names {
            let target = self.out.join(name);
            let renamed = fs::rename(self.folder.join(name), &target);
            renamed.map_err(PrepareError::io("replace", &target))?;
        }
        let synced = self.lock.sync_all();
        synced.map_err(PrepareError::io("write", &self.out))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and nothing depends on it.
        let _ = fs::remove_dir_all(&self.folder);
        if self.created {
            let _ = fs::remove_dir(&self.out);
        }
    }
}
