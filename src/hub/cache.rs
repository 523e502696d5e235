//! The layout of the cache, which Hugging Face's tools share.
//!
//! ```text
//! models--owner--name/
//!     blobs/<etag>                     contents, by SHA-256 or git's id
//!     blobs/<etag>.incomplete          what has come so far
//!     refs/main                        the commit that it stood for
//!     snapshots/<commit>/<path>        a link to a blob
//!     .taper/<commit>.json             names of the commit's files, and its card
//! .locks/models--owner--name/<etag>.lock
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::NamedTempFile;

use super::listing::is_hex;
use super::retry::sleep;
use super::{HubError, Listing, Repository, Watch};
use crate::terms::FileError;

/// Distance of two tries to get a lock.
const BETWEEN_TRIES: Duration = Duration::from_millis(200);

/// A file in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedFile {
    /// Its name in the repository is the end of the path.
    pub path: PathBuf,
    pub bytes: u64,
    /// The SHA-256 that it was verified against; none of a file that the hub gives none of.
    pub sha256: Option<String>,
}

/// The folder of a repository in the cache.
pub(super) struct Folder {
    path: PathBuf,
    locks: PathBuf,
}

impl Folder {
    pub fn new(cache: &Path, repository: &Repository) -> Self {
        Self {
            path: cache.join(repository.folder()),
            locks: cache.join(".locks").join(repository.folder()),
        }
    }

    pub fn blob(&self, etag: &str) -> PathBuf {
        self.path.join("blobs").join(etag)
    }

    pub fn incomplete(&self, etag: &str) -> PathBuf {
        self.path.join("blobs").join(format!("{etag}.incomplete"))
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.path.join("snapshots").join(commit)
    }

    /// A file of a commit, if it is here.
    pub fn file(&self, commit: &str, path: &str) -> Option<CachedFile> {
        let path = self.snapshot(commit).join(path);
        let metadata = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
        let blob = fs::read_link(&path).ok();
        let etag = blob.as_ref().and_then(|blob| blob.file_name()?.to_str());
        let sha256 = etag.filter(|etag| is_hex(etag, 64)).map(str::to_owned);
        Some(CachedFile {
            path,
            bytes: metadata.len(),
            sha256,
        })
    }

    /// The commit's files as an earlier call listed them.
    pub fn listing(&self, revision: &str) -> Option<Listing> {
        let commit = fs::read_to_string(self.path.join("refs").join(revision)).ok()?;
        let commit = commit.trim();
        if !is_hex(commit, 40) {
            return None;
        }
        let text = fs::read(self.listing_path(commit)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn listing_path(&self, commit: &str) -> PathBuf {
        self.path.join(".taper").join(format!("{commit}.json"))
    }

    /// Keeps the files of a commit, and the commit as that of `revision`.
    pub fn keep_listing(&self, revision: &str, listing: &Listing) -> Result<(), HubError> {
        let text = serde_json::to_vec(listing).map_err(io::Error::from);
        let path = self.listing_path(&listing.commit);
        let text = text.map_err(FileError::at("write", &path))?;
        replace(&path, &text)?;
        replace(
            &self.path.join("refs").join(revision),
            listing.commit.as_bytes(),
        )
    }

    /// Makes the folder of the blobs.
    pub fn make(&self) -> Result<(), HubError> {
        make(&self.path.join("blobs"))
    }

    /// Puts a blob into the snapshot of a commit: by a relative link, or where there are none, by moving it there.
    pub fn link(&self, commit: &str, path: &str, etag: &str) -> Result<(), HubError> {
        let at = self.snapshot(commit).join(path);
        if at.is_file() {
            return Ok(());
        }
        if let Some(folder) = at.parent() {
            make(folder)?;
        }
        // A link to a blob that somebody removed.
        if at.symlink_metadata().is_ok() {
            fs::remove_file(&at).map_err(FileError::at("remove", &at))?;
        }
        let up = "../".repeat(1 + path.split('/').count());
        match link(&format!("{up}blobs/{etag}"), &at) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(_) => Ok(fs::rename(self.blob(etag), &at).map_err(FileError::at("create", &at))?),
            Ok(()) => Ok(()),
        }
    }

    /// The lock of a blob, as huggingface_hub takes it. Waits for another process that has it. `None` where the file
    /// system has no locks.
    pub fn lock(&self, etag: &str, watch: &dyn Watch) -> Result<Option<File>, HubError> {
        make(&self.locks)?;
        let path = self.locks.join(format!("{etag}.lock"));
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(FileError::at("create", &path))?;
        let mut is_said = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::Error(error)) => {
                    watch.note(&format!(
                        "the cache has no locks ({error}): let no other process download the same file"
                    ));
                    return Ok(None);
                }
                Err(TryLockError::WouldBlock) => {}
            }
            if !std::mem::replace(&mut is_said, true) {
                watch.note("another process is downloading the same file; waiting for it");
            }
            sleep(BETWEEN_TRIES, watch)?;
        }
    }
}

#[cfg(unix)]
fn link(target: &str, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, at)
}

#[cfg(not(unix))]
fn link(_: &str, _: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

fn make(folder: &Path) -> Result<(), HubError> {
    Ok(fs::create_dir_all(folder).map_err(FileError::at("create", folder))?)
}

/// Writes a small file as a whole.
fn replace(path: &Path, contents: &[u8]) -> Result<(), HubError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    make(folder)?;
    let written = temporary(folder).and_then(|mut file| {
        file.write_all(contents)?;
        file.persist(path).map_err(|error| error.error)
    });
    written.map_err(FileError::at("write", path))?;
    Ok(())
}

/// A file that others may read as they may read any other: a cache is often shared.
fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}
