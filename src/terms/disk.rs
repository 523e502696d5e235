//! Room on a disk.

use std::path::Path;

/// The folder, or the nearest one above it that exists.
pub fn nearest_existing(folder: &Path) -> &Path {
    let mut ancestors = folder.ancestors().filter(|path| *path != Path::new(""));
    ancestors
        .find(|path| path.symlink_metadata().is_ok())
        .unwrap_or(Path::new("."))
}

/// Bytes that this user can still write to the folder's file system; the folder need not be there yet.
#[cfg(unix)]
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let status = rustix::fs::statvfs(nearest_existing(folder)).ok()?;
    status.f_bavail.checked_mul(status.f_frsize)
}

#[cfg(not(unix))]
pub fn free_bytes(_: &Path) -> Option<u64> {
    None
}
