//! Failures that stop a run: `metrics.jsonl` cannot be opened or stored.

use std::io;
use std::path::{Path, PathBuf};

/// A failure of the metrics file before the first step or at a checkpoint. A line that cannot be
/// appended is a [`super::Warning`].
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file operation failed; `action` is a verb phrase such as "open" or "store".
    #[error("cannot {action} `{}`", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl ReportError {
    /// For `map_err`: names the file and the operation.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// A literal edit or command that would help, where there is one.
    pub fn hint(&self) -> Option<String> {
        let Self::Io { path, source, .. } = self;
        match source.kind() {
            io::ErrorKind::NotFound => Some(format!(
                "check the path: nothing exists at `{}`",
                path.display()
            )),
            io::ErrorKind::PermissionDenied => {
                Some("check the permissions of the file and its folder".into())
            }
            io::ErrorKind::StorageFull => {
                Some("free some disk space, then run the same command with `--resume`".into())
            }
            _ => None,
        }
    }
}
