//! One error type for the whole program.
//!
//! Every room has its own typed error; they meet here. An error says what happened and what was
//! expected (`Display`), why (`source`), and what to do next (`hint`). `main` prints all three.

use std::path::{Path, PathBuf};

use crate::checkpoint::CheckpointError;
use crate::config::ConfigError;
use crate::data::DataError;
use crate::data::prepare::PrepareError;
use crate::device::DeviceError;
use crate::faults::Site;
use crate::interrupt::InterruptError;
use crate::memory::{AllocationError, OutOfMemory};
use crate::plan::Refusal;
use crate::report::ReportError;
use crate::tokenizer::TokenizerError;

/// Anything that stops a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Interrupt(#[from] InterruptError),
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A file operation failed; `action` is a verb phrase such as "read" or "create".
    #[error("cannot {action} `{}`", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// The host or a device refused memory, or failed.
    #[error(transparent)]
    Allocation(#[from] AllocationError),
    /// Not even the smallest launch fits.
    #[error(transparent)]
    DoesNotFit(Box<Refusal>),
    /// A request that cannot be carried out as made; the text of both is complete.
    #[error("{what}")]
    Usage { what: String, hint: String },
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
    /// The operating system refused worker threads.
    #[error("cannot start {threads} threads")]
    Threads {
        threads: usize,
        source: rayon::ThreadPoolBuildError,
    },
    /// `taper doctor` found something; what and why is in its report.
    #[error("{problems} {} that can stop a run", if *problems == 1 { "problem" } else { "problems" })]
    Unfit { problems: usize },
    /// candle refused something; always a defect of taper, never of the user's input.
    #[error("internal error in a tensor operation")]
    Candle(#[from] candle_core::Error),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Error::DoesNotFit(Box::new(refusal))
    }
}

impl Error {
    /// For `map_err`: names the file and what was being done to it.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let path = path.to_owned();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    }

    /// The refusal of memory that this error is, or the error itself. The one place that knows what a
    /// lack of memory looks like: by type, never by text.
    pub fn into_refusal(self) -> Result<OutOfMemory, Error> {
        match self {
            Error::Allocation(AllocationError::OutOfMemory(refusal)) => Ok(refusal),
            // A file operation that the system has no memory for.
            Error::Checkpoint(error) if error.is_out_of_memory() => Ok(OutOfMemory {
                site: Site::Checkpoint,
                name: error.to_string(),
                bytes: 0,
                held: 0,
                limit: None,
            }),
            other => Err(other),
        }
    }

    /// A literal edit or command that would help, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Config(e) => e.hint(),
            Error::Device(e) => Some(e.hint()),
            Error::Data(e) => e.hint(),
            Error::Prepare(e) => e.hint(),
            Error::Tokenizer(e) => e.hint(),
            Error::Checkpoint(e) => e.hint(),
            Error::Interrupt(_) => None,
            Error::Report(e) => e.hint(),
            Error::Io { source, path, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => Some(format!(
                    "check the path: nothing exists at `{}`",
                    path.display()
                )),
                std::io::ErrorKind::PermissionDenied => {
                    Some("check the permissions of the file and its folder".into())
                }
                std::io::ErrorKind::StorageFull => {
                    Some("free some disk space, then run the same command with `--resume`".into())
                }
                _ => None,
            },
            Error::Allocation(AllocationError::OutOfMemory(_)) => Some(
                "see what holds the memory with `taper doctor`, or raise `--memory-limit`, then run the \
                 same command again; checkpoints are as they were"
                    .into(),
            ),
            Error::Allocation(AllocationError::Device { .. }) => {
                Some("look at the device with `taper doctor`; checkpoints are as they were".into())
            }
            Error::DoesNotFit(refusal) => Some(refusal.hint()),
            Error::Usage { hint, .. } => Some(hint.clone()),
            Error::EvaluationInterrupted | Error::InterruptedBeforeTraining => None,
            Error::Unfit { .. } => Some("the report above says what to do about each".into()),
            Error::Diverged { .. } => Some(
                "checkpoints, if any, are from before this; try a lower `optimizer.learning_rate` \
                 or a longer `optimizer.warmup_iters`"
                    .into(),
            ),
            Error::Threads { .. } => Some(
                "ask for fewer: `--set system.threads=1` when training, `--threads 1` when sampling"
                    .into(),
            ),
            Error::Interrupted { .. } => {
                Some("run the same command with `--resume` to continue exactly here".into())
            }
            Error::Candle(_) => Some("please report this with the command you ran".into()),
        }
    }

    /// The process exit code: 1 the user can fix it, 2 ours, 130 interrupted with the work saved.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Interrupted { .. }
            | Error::EvaluationInterrupted
            | Error::InterruptedBeforeTraining
            | Error::Prepare(PrepareError::Interrupted { .. }) => 130,
            Error::Candle(_) | Error::Allocation(AllocationError::Device { .. }) => 2,
            _ => 1,
        }
    }
}
