//! The error type of the program, where every room's errors meet. Only `commands` and `main` use it.
//!
//! An error says what happened and what was expected (`Display`), why (`source`), and what to do next
//! (`hint`). `main` prints all three.

use std::error::Error as _;
use std::path::Path;

use crate::chart::PngError;
use crate::checkpoint::CheckpointError;
use crate::config::ConfigError;
use crate::data::DataError;
use crate::data::prepare::PrepareError;
use crate::device::DeviceError;
use crate::evals::EvalsError;
use crate::hub::HubError;
use crate::interrupt::InterruptError;
use crate::memory::{AllocationError, OutOfMemory, Recoverable};
use crate::plan::PlanError;
use crate::report::OutputError;
use crate::runs::RunError;
use crate::sampling::SamplingError;
use crate::session::SessionError;
use crate::terms::FileError;
use crate::tokenizer::TokenizerError;
use crate::trial::TrialError;
use crate::units::bytes;

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
    Hub(#[from] HubError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Interrupt(#[from] InterruptError),
    #[error(transparent)]
    Allocation(#[from] AllocationError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Trial(#[from] TrialError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Evals(#[from] EvalsError),
    #[error(transparent)]
    Picture(#[from] PngError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A request that cannot be carried out as made; both texts are complete.
    #[error("{what}")]
    Usage { what: String, hint: String },
    /// The operating system refused worker threads.
    #[error("cannot start {threads} threads")]
    Threads {
        threads: usize,
        source: rayon::ThreadPoolBuildError,
    },
    /// `ulimit -v` or `ulimit -d` leaves too little to start with.
    #[error(
        "a limit of this process, `ulimit -v` or `-d`, leaves {} to map, and a start takes {}",
        bytes(*left),
        bytes(*needed)
    )]
    AddressSpace { left: u64, needed: u64 },
    /// Runs of a sweep failed; each said why, and the table names them.
    #[error("{failed} of {runs} runs failed")]
    Sweep { failed: usize, runs: usize },
    /// `taper doctor` found something; its report names each problem.
    #[error("{problems} {} that can stop a run", if *problems == 1 { "problem" } else { "problems" })]
    Unfit { problems: usize },
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Recoverable for Error {
    fn into_out_of_memory(self) -> Result<OutOfMemory, Self> {
        match self {
            Self::Allocation(error) => error.into_out_of_memory().map_err(Self::Allocation),
            Self::Checkpoint(error) => error.into_out_of_memory().map_err(Self::Checkpoint),
            Self::Session(error) => error.into_out_of_memory().map_err(Self::Session),
            Self::Trial(error) => error.into_out_of_memory().map_err(Self::Trial),
            Self::Sampling(error) => error.into_out_of_memory().map_err(Self::Sampling),
            Self::Evals(error) => error.into_out_of_memory().map_err(Self::Evals),
            other => Err(other),
        }
    }
}

impl Error {
    /// Names the file and the operation, for `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let at = FileError::at(action, path);
        move |source| Error::File(at(source))
    }

    /// The error, its causes and its hint, a line for each.
    pub fn account(&self) -> String {
        // The end that was asked for is no error.
        let what = if self.is_interrupt() {
            "stopped"
        } else {
            "error"
        };
        let mut text = format!("{what}: {self}");
        let mut cause = self.source();
        while let Some(inner) = cause {
            text += &format!("\n  caused by: {inner}");
            cause = inner.source();
        }
        if let Some(hint) = self.hint() {
            text += &format!("\nhint: {hint}");
        }
        text
    }

    /// A literal edit or command that would help, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Config(e) => e.hint(),
            Error::Device(e) => Some(e.hint()),
            Error::Data(e) => e.hint(),
            Error::Prepare(e) => e.hint(),
            Error::Hub(e) => e.hint(),
            Error::Tokenizer(e) => e.hint(),
            Error::Checkpoint(e) => e.hint(),
            Error::Interrupt(_) => None,
            Error::Allocation(e) => Some(e.hint()),
            Error::Plan(e) => Some(e.hint()),
            Error::Trial(e) => Some(e.hint()),
            Error::Session(e) => e.hint(),
            Error::Sampling(e) => e.hint(),
            Error::Run(e) => e.hint(),
            Error::Evals(e) => e.hint(),
            Error::Picture(_) => Some("ask for a smaller one with `--width` and `--height`, or for SVG".into()),
            Error::File(e) => e.hint(),
            Error::Output(e) => Some(e.hint()),
            Error::Usage { hint, .. } => Some(hint.clone()),
            Error::Threads { .. } => Some(
                "ask for fewer: `--set system.threads=1` when training, `--threads 1` when sampling; or raise \
                 `ulimit -u` or `ulimit -v`"
                    .into(),
            ),
            Error::AddressSpace { .. } => Some("raise it, such as with `ulimit -v unlimited`".into()),
            Error::Sweep { .. } => Some(
                "the same command with `--resume` runs them again, and skips those that are done".into(),
            ),
            Error::Unfit { .. } => Some("the report above says what to do about each".into()),
        }
    }

    /// A device failed, and nothing can be computed on it in this process any more.
    pub fn is_device_failure(&self) -> bool {
        self.allocation()
            .is_some_and(AllocationError::is_device_failure)
    }

    /// The process exit code: 1 the user can fix it, 2 ours, 130 interrupted with the work saved.
    pub fn exit_code(&self) -> u8 {
        match self {
            _ if self.is_interrupt() => 130,
            _ if self.is_device_failure() => 2,
            _ => 1,
        }
    }

    /// A signal ended the command, and nothing is lost.
    pub fn is_interrupt(&self) -> bool {
        match self {
            Error::Prepare(error) => matches!(error, PrepareError::Interrupted { .. }),
            Error::Session(error) => error.is_interrupt(),
            Error::Checkpoint(error) => error.is_interrupt(),
            Error::Hub(error) => matches!(error, HubError::Interrupted),
            Error::Evals(error) => error.is_interrupt(),
            _ => false,
        }
    }

    /// The allocation error that this error is, in whatever room it came up.
    fn allocation(&self) -> Option<&AllocationError> {
        match self {
            Error::Allocation(error)
            | Error::Session(
                SessionError::Allocation(error)
                | SessionError::Evals(EvalsError::Allocation(error)),
            )
            | Error::Sampling(SamplingError::Allocation(error))
            | Error::Evals(EvalsError::Allocation(error))
            | Error::Trial(TrialError::Allocation(error)) => Some(error),
            _ => None,
        }
    }
}
