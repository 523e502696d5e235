//! Files that `plot` and `report` make: written aside and renamed, and never over a file of somebody else's.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use crate::chart::MARKER;
use crate::error::{Error, Result};
use crate::runs::CSV_START;

/// The marker is in the first bytes of a file.
const START_BYTES: u64 = 1_024;

/// Writes a file as a whole. A file that is there already is replaced if it has [`MARKER`] at its start, or the header of our
/// CSV.
///
/// # Errors
/// [`Error::Usage`] when the file there is not ours, and [`Error::File`] when the system refuses.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    check(path)?;
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    let io = || Error::io("write", path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tmp-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As for any new file, less the umask.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file = builder.tempfile_in(folder).map_err(io())?;
    file.write_all(bytes).map_err(io())?;
    file.persist(path).map_err(|error| io()(error.error))?;
    Ok(())
}

/// Refuses a path that has a file of somebody else's, a folder or a device.
///
/// # Errors
/// [`Error::Usage`], and [`Error::File`] when the file cannot be read.
pub(super) fn check(path: &Path) -> Result<()> {
    let refused = |what: String| Error::Usage {
        what,
        hint: "name another file with `--out`, or move that one away".into(),
    };
    match path.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("read", path)(error)),
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => {
            return Err(refused(format!(
                "`{}` is there and is no file",
                path.display()
            )));
        }
    }
    let mut start = Vec::new();
    let file = File::open(path).map_err(Error::io("read", path))?;
    let read = file.take(START_BYTES).read_to_end(&mut start);
    read.map_err(Error::io("read", path))?;
    let is_ours = start
        .windows(MARKER.len())
        .any(|part| part == MARKER.as_bytes())
        || start.starts_with(CSV_START.as_bytes());
    if is_ours || start.is_empty() {
        return Ok(());
    }
    Err(refused(format!(
        "`{}` is there, and taper did not make it",
        path.display()
    )))
}
