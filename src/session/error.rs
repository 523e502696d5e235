//! Failures of a run.

use std::path::PathBuf;

use crate::checkpoint::CheckpointError;
use crate::data::DataError;
use crate::memory::{AllocationError, OutOfMemory, Recoverable};
use crate::terms::FileError;
use crate::tokenizer::TokenizerError;

/// Anything that stops a run.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The device refused memory for good, or failed.
    #[error(transparent)]
    Allocation(#[from] AllocationError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    File(#[from] FileError),
    /// A run from step 0 would bury the checkpoints of another.
    #[error("`{}` already holds a run, saved at step {step}", out_dir.display())]
    OutDirTaken { out_dir: PathBuf, step: u64 },
    /// Ctrl-C or SIGTERM, after the checkpoint named here was written.
    #[error("interrupted at step {step}; checkpoint saved in `{}`", checkpoint.display())]
    Interrupted { step: u64, checkpoint: PathBuf },
    /// A signal came before the first step was done.
    #[error("interrupted before the first step; nothing was saved")]
    InterruptedBeforeTraining,
    /// A signal came during an evaluation that changes nothing.
    #[error("interrupted during the evaluation; nothing was changed")]
    EvaluationInterrupted,
    /// The loss or the gradient norm is NaN or infinite; the step was not taken.
    #[error("training diverged at step {step}: loss {loss}, gradient norm {gradient_norm}")]
    Diverged {
        step: u64,
        loss: f64,
        gradient_norm: f64,
    },
}

impl Recoverable for SessionError {
    fn into_out_of_memory(self) -> Result<OutOfMemory, Self> {
        match self {
            Self::Allocation(error) => error.into_out_of_memory().map_err(Self::Allocation),
            Self::Checkpoint(error) => error.into_out_of_memory().map_err(Self::Checkpoint),
            other => Err(other),
        }
    }
}

impl SessionError {
    /// A literal edit or command that would help, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Allocation(error) => Some(error.hint()),
            Self::Data(error) => error.hint(),
            Self::Tokenizer(error) => error.hint(),
            Self::Checkpoint(error) => error.hint(),
            Self::File(error) => error.hint(),
            Self::OutDirTaken { .. } => Some(
                "add `--resume` to continue it, or start another beside it with \
                 `--set checkpoint.out_dir=NEW_FOLDER`"
                    .into(),
            ),
            Self::Interrupted { .. } => {
                Some("run the same command with `--resume` to continue exactly here".into())
            }
            Self::InterruptedBeforeTraining | Self::EvaluationInterrupted => None,
            Self::Diverged { .. } => Some(
                "checkpoints, if any, are from before this; try a lower `optimizer.learning_rate` \
                 or a longer `optimizer.warmup_iters`"
                    .into(),
            ),
        }
    }

    /// A signal ended the run, with the work saved.
    pub fn is_interrupt(&self) -> bool {
        matches!(
            self,
            Self::Interrupted { .. }
                | Self::InterruptedBeforeTraining
                | Self::EvaluationInterrupted
        )
    }
}
