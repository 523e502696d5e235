//! Runs that cannot be shown.

use std::path::PathBuf;

use super::METRICS;
use crate::checkpoint::CheckpointError;
use crate::terms::FileError;

/// A run that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("`{}` is no run: it has no `{METRICS}`", folder.display())]
    NoMetrics { folder: PathBuf },
    #[error("there is nothing at `{}`", path.display())]
    NotFound { path: PathBuf },
    #[error("`{}` has no step and no evaluation yet", path.display())]
    Empty { path: PathBuf },
    /// A line beyond any that a run writes: the file is another one.
    #[error("line {line} of `{}` has more than {} MiB", path.display(), most >> 20)]
    LongLine { path: PathBuf, line: u64, most: u64 },
    #[error("`{}` holds no line of a run", path.display())]
    Foreign { path: PathBuf },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl RunError {
    /// A literal edit or command that would help, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoMetrics { .. } | Self::NotFound { .. } => Some(
                "give the folder of a run, `checkpoint.out_dir`; `taper runs` lists those below this folder".into(),
            ),
            Self::Empty { .. } => Some("wait for the first step, then run the same command".into()),
            Self::LongLine { .. } | Self::Foreign { .. } => Some(format!(
                "give the folder of a run of taper, or its `{METRICS}`"
            )),
            Self::File(error) => error.hint(),
            Self::Checkpoint(error) => error.hint(),
        }
    }
}
