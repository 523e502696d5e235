//! Failures of an evaluation.

use std::path::PathBuf;

use crate::data::DataError;
use crate::hub::HubError;
use crate::memory::{AllocationError, OutOfMemory, Recoverable};
use crate::terms::{FileError, shell_word};
use crate::tokenizer::TokenizerError;
use crate::units::bytes;

/// A task that cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum EvalsError {
    #[error("a list of tasks has an empty place")]
    NoTask,
    #[error("there is no task and no file `{name}`")]
    UnknownTask {
        name: String,
        nearest: Option<&'static str>,
    },
    #[error("`{}` is JSON lines, and its name does not tell of which task", path.display())]
    WhichTask { path: PathBuf },
    #[error("the file of `{task}` is missing: `{}` does not exist", path.display())]
    Missing {
        task: String,
        path: PathBuf,
        /// Whether the examples can be downloaded.
        is_published: bool,
    },
    #[error("`{}` has nothing to score: {reason}", path.display())]
    Empty { path: PathBuf, reason: &'static str },
    #[error("`{}`, line {line}: {reason}", path.display())]
    Line {
        path: PathBuf,
        line: usize,
        reason: String,
    },
    #[error("the model's vocabulary cannot write `{task}` (`{}`, line {line})", path.display())]
    Unwritable {
        task: String,
        path: PathBuf,
        line: usize,
        /// `None` where a tokenizer left something out.
        source: Option<TokenizerError>,
    },
    /// The tokenizer has more ids than the model.
    #[error("`{task}` has token {id}, but the model has {vocab_size} token ids")]
    UnknownToken {
        task: String,
        id: u32,
        vocab_size: usize,
    },
    #[error(
        "`{}` was made with another vocabulary: its id {id} is {there}, which is {here} to the model", path.display()
    )]
    OtherVocabulary {
        path: PathBuf,
        id: u32,
        there: String,
        here: String,
    },
    #[error("cannot download {url}")]
    Unreachable {
        url: String,
        source: Box<ureq::Error>,
    },
    #[error("what came from {url} is not the file that was expected: {found}, expected {expected}")]
    OtherFile {
        url: String,
        found: String,
        expected: String,
    },
    #[error("`{}` has {} free, and the download takes {}", folder.display(), bytes(*free), bytes(*needed))]
    NoRoom {
        folder: PathBuf,
        free: u64,
        needed: u64,
    },
    #[error("`HF_HUB_OFFLINE` is set, and the examples of `{task}` are not in `{}`", path.display())]
    Offline { task: String, path: PathBuf },
    #[error("there is no folder for downloads: neither `XDG_CACHE_HOME` nor a home folder is set")]
    NoCache,
    #[error("interrupted; nothing was changed")]
    Interrupted,
    #[error(transparent)]
    Hub(#[from] HubError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Allocation(AllocationError),
}

impl From<AllocationError> for EvalsError {
    fn from(error: AllocationError) -> Self {
        match error {
            AllocationError::Interrupted => Self::Interrupted,
            error => Self::Allocation(error),
        }
    }
}

impl Recoverable for EvalsError {
    fn into_out_of_memory(self) -> Result<OutOfMemory, Self> {
        match self {
            Self::Allocation(error) => error.into_out_of_memory().map_err(Self::Allocation),
            other => Err(other),
        }
    }
}

impl EvalsError {
    /// Whether a signal ended the work.
    pub fn is_interrupt(&self) -> bool {
        matches!(self, Self::Interrupted | Self::Hub(HubError::Interrupted))
    }

    /// A literal edit or command that would help, where there is one.
    pub fn hint(&self) -> Option<String> {
        const TASKS: &str =
            "`hellaswag`, `lambada`, either with `:PATH`, or the path of a text or a token file";
        Some(match self {
            Self::NoTask => format!("name a task between two commas: {TASKS}"),
            Self::UnknownTask {
                nearest: Some(nearest),
                ..
            } => format!("did you mean `{nearest}`? A task is {TASKS}"),
            Self::UnknownTask { nearest: None, .. } => format!("a task is {TASKS}"),
            Self::WhichTask { path } => {
                let word = shell_word(path);
                format!(
                    "write `hellaswag:{word}` or `lambada:{word}`; for the perplexity of its texts, run `taper prepare \
                     {word} --out FOLDER` and name `FOLDER/val.bin`"
                )
            }
            Self::Missing {
                task,
                is_published: true,
                ..
            } => format!(
                "check the path; `{task}` alone, without `--data` and `:PATH`, downloads its examples"
            ),
            Self::Missing { .. } => format!("check the path; a task is {TASKS}"),
            Self::Empty { .. } => "check that it was downloaded or written completely".into(),
            Self::Line { .. } => {
                "a line is a JSON object: of HellaSwag with `ctx`, four `endings` and their `label`, of LAMBADA with `text`"
                    .into()
            }
            Self::Unwritable { .. } => {
                "leave this task out, or use a model with GPT-2's vocabulary, which writes any text".into()
            }
            Self::UnknownToken { .. } => {
                "the tokenizer beside the weights is not the one they were trained with".into()
            }
            Self::OtherVocabulary { .. } => {
                "name a token file of the model's own vocabulary, or the text itself".into()
            }
            Self::Unreachable { url, .. } | Self::OtherFile { url, .. } => format!(
                "check the network and `HTTPS_PROXY`, then run the same command; or bring {url} by other means and name \
                 its folder with `--data`"
            ),
            Self::NoRoom { .. } => {
                "free some disk space, or set `XDG_CACHE_HOME` to a folder on another disk".into()
            }
            Self::Offline { .. } => {
                "unset `HF_HUB_OFFLINE`, or bring the file from another machine and name its folder with `--data`".into()
            }
            Self::NoCache => "set `XDG_CACHE_HOME`, or name the file: `hellaswag:PATH`".into(),
            Self::Interrupted => return None,
            Self::Hub(error) => return error.hint(),
            Self::Data(error) => return error.hint(),
            Self::Tokenizer(error) => return error.hint(),
            Self::File(error) => return error.hint(),
            Self::Allocation(error) => error.hint(),
        })
    }
}
