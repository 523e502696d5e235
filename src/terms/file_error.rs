//! A failed file operation.

use std::io;
use std::path::{Path, PathBuf};

use super::NotUtf8;

/// A file operation that failed; `action` is a verb phrase such as "read" or "create".
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", path.display())]
pub struct FileError {
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`: names the file and the operation.
    pub fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self {
            action,
            path,
            source,
        }
    }

    /// The next thing to do, for the failures that users meet.
    pub fn hint(&self) -> Option<String> {
        let other = self
            .source
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<NotUtf8>());
        if let Some(other) = other {
            return Some(other.hint(&self.path));
        }
        match self.source.kind() {
            io::ErrorKind::NotFound => Some(format!(
                "check the path: nothing exists at `{}`",
                self.path.display()
            )),
            io::ErrorKind::PermissionDenied => {
                Some("check the permissions of the file and its folder".into())
            }
            io::ErrorKind::StorageFull => {
                Some("free some disk space, then run the same command again".into())
            }
            io::ErrorKind::FileTooLarge => Some(
                "allow larger files with `ulimit -f unlimited`, then run the same command".into(),
            ),
            _ => None,
        }
    }
}
