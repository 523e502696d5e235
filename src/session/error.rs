//! Failures of a run.

use std::path::PathBuf;

use super::divergence::Divergence;
use crate::checkpoint::CheckpointError;
use crate::data::DataError;
use crate::evals::EvalsError;
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
    Evals(#[from] EvalsError),
    #[error(transparent)]
    File(#[from] FileError),
    /// `metrics.jsonl` cannot be used.
    #[error(transparent)]
    Metrics(FileError),
    /// `train.init_from` asks for a checkpoint where there is none.
    #[error(transparent)]
    NothingToResume(CheckpointError),
    /// A failure with no checkpoint to go on from.
    #[error(transparent)]
    NothingSaved(Box<SessionError>),
    /// `--eval-only` without a checkpoint, where there is one.
    #[error("`{}` holds a run, but nothing says to evaluate it: the weights would be untrained", out_dir.display())]
    UntrainedInRun { out_dir: PathBuf },
    /// A run from step 0 would bury the checkpoints of another.
    #[error("`{}` already holds a run, saved at step {step}", out_dir.display())]
    OutDirTaken { out_dir: PathBuf, step: u64 },
    /// A signal came; the checkpoint named here was written.
    #[error("interrupted at step {step}; checkpoint saved in `{}` (on {signal})", checkpoint.display())]
    Interrupted {
        step: u64,
        checkpoint: PathBuf,
        signal: &'static str,
    },
    /// A signal came before the first step was done.
    #[error("interrupted before the first step; nothing was saved (on {signal})")]
    InterruptedBeforeTraining { signal: &'static str },
    /// A signal came during an evaluation that changes nothing.
    #[error("interrupted during the evaluation; nothing was changed")]
    EvaluationInterrupted,
    #[error(transparent)]
    Diverged(#[from] Box<Divergence>),
}

impl Recoverable for SessionError {
    fn into_out_of_memory(self) -> Result<OutOfMemory, Self> {
        match self {
            Self::Allocation(error) => error.into_out_of_memory().map_err(Self::Allocation),
            Self::Checkpoint(error) => error.into_out_of_memory().map_err(Self::Checkpoint),
            Self::Evals(error) => error.into_out_of_memory().map_err(Self::Evals),
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
            Self::Evals(error) => error.hint(),
            Self::File(error) => error.hint(),
            Self::Metrics(error) => error.hint().or_else(|| {
                Some("move it away, or make it a link to /dev/null to keep no metrics".into())
            }),
            Self::NothingToResume(CheckpointError::NoneFound { skipped, .. })
                if skipped.is_empty() =>
            {
                Some(
                    "`--set train.init_from=scratch` starts from the beginning, `--resume=auto` \
                     does so only where there is nothing to resume"
                        .into(),
                )
            }
            Self::NothingToResume(error) => error.hint(),
            Self::NothingSaved(error) => error.hint_without_checkpoint(),
            Self::UntrainedInRun { .. } => Some(
                "add `--resume` to evaluate its newest checkpoint; for untrained weights name \
                 another folder: `--set checkpoint.out_dir=NEW_FOLDER`"
                    .into(),
            ),
            Self::OutDirTaken { .. } => Some(
                "add `--resume` to continue it, or start another beside it with \
                 `--set checkpoint.out_dir=NEW_FOLDER`"
                    .into(),
            ),
            Self::Interrupted { .. } => {
                Some("run the same command with plain `--resume` to continue exactly here".into())
            }
            Self::InterruptedBeforeTraining { .. } | Self::EvaluationInterrupted => None,
            Self::Diverged(divergence) => Some(divergence.hint()),
        }
    }

    /// The same failure where there is no checkpoint to go on from.
    pub fn without_checkpoint(self) -> Self {
        match self {
            Self::Data(_) | Self::Checkpoint(_) | Self::File(_) | Self::Metrics(_) => {
                Self::NothingSaved(Box::new(self))
            }
            other => other,
        }
    }

    /// The hint where there is no checkpoint, which `--resume` would need.
    fn hint_without_checkpoint(&self) -> Option<String> {
        match self {
            Self::Checkpoint(error) => error.hint_without_checkpoint(),
            other => other.hint().map(|hint| {
                hint.replace("the same command with `--resume`", "the same command again")
            }),
        }
    }

    /// Whether what was trained is whole in spite of the failure, and a checkpoint may be written.
    pub(super) fn leaves_state_intact(&self) -> bool {
        match self {
            Self::Data(_) | Self::Tokenizer(_) => true,
            Self::Evals(error) => !matches!(error, EvalsError::Allocation(_)),
            _ => false,
        }
    }

    /// A signal ended the run, with the work saved.
    pub fn is_interrupt(&self) -> bool {
        match self {
            Self::Interrupted { .. }
            | Self::InterruptedBeforeTraining { .. }
            | Self::EvaluationInterrupted => true,
            Self::Checkpoint(error) => error.is_interrupt(),
            Self::Evals(error) => error.is_interrupt(),
            _ => false,
        }
    }
}
