//! Failures of checkpoints and pretrained models, with their hints.

use std::fmt::{self, Display};
use std::io;
use std::path::{Path, PathBuf};

use super::export::ExportError;
use super::weights::foreign::ForeignError;
use super::weights::model_name::where_weights_are;
use super::weights::torch::TorchError;
use super::{FETCH, MODEL};
use crate::faults::Site;
use crate::hub::HubError;
use crate::memory::OutOfMemory;

/// Failure to write, read or use a checkpoint or a pretrained model.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// `action` is a verb phrase; earlier checkpoints are as they were.
    #[error("cannot save checkpoint `{}`: cannot {action} `{}`", checkpoint.display(), path.display())]
    Save {
        checkpoint: PathBuf,
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "`{name}` cannot be stored in a checkpoint: expected a plain file name that taper does not use itself"
    )]
    ExtraFile { name: String },
    #[error("cannot {action} `{}`", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The folder of a run cannot be made, or not be written.
    #[error("cannot use `{}` as the folder of a run", path.display())]
    OutDir { path: PathBuf, source: io::Error },
    /// Another process trains into the folder.
    #[error("`{}` is in use: {holder} trains into it", out_dir.display())]
    InUse { out_dir: PathBuf, holder: String },
    /// Old checkpoints, or what is left of them, that stay although they should go.
    #[error("{}", stuck.iter().map(Stuck::to_string).collect::<Vec<_>>().join("; "))]
    NotRemoved { stuck: Vec<Stuck> },
    #[error("checkpoint `{}` is damaged: {damage}", path.display())]
    Damaged { path: PathBuf, damage: Damage },
    #[error("no usable checkpoint in `{}`: {}", looked_in.display(), none_found(skipped))]
    NoneFound {
        looked_in: PathBuf,
        skipped: Vec<Skipped>,
    },
    #[error("`{}` is not a checkpoint: {found}", path.display())]
    NotACheckpoint {
        path: PathBuf,
        found: &'static str,
        hint: String,
    },
    #[error("tensor `{name}` in `{}` is {found}, expected {expected}", path.display())]
    Tensor {
        path: PathBuf,
        name: String,
        found: String,
        expected: String,
    },
    #[error("`{}` cannot be read: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("`{}` is a model taper cannot run: `{key}` is {found}, expected {expected}", path.display())]
    UnsupportedModel {
        path: PathBuf,
        key: &'static str,
        found: String,
        expected: String,
    },
    #[error(transparent)]
    Foreign(#[from] ForeignError),
    #[error(transparent)]
    Torch(#[from] TorchError),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("the config asks for another model than `{}` holds{}", path.display(), indented(differences))]
    OtherModel {
        path: PathBuf,
        differences: Vec<Difference>,
    },
    #[error("the config contradicts the checkpoint{}", indented(differences))]
    Contradiction { differences: Vec<Difference> },
    /// Training would go on with other data.
    #[error(
        "`{dataset}` is not the dataset that `{}` was trained on{}", checkpoint.display(), indented(differences)
    )]
    OtherDataset {
        checkpoint: PathBuf,
        /// The dataset's name now.
        dataset: String,
        differences: Vec<String>,
        /// Whether ids mean the same in both.
        same_vocabulary: bool,
    },
    /// The ids of a dataset stand for other text than those of the weights.
    #[error(
        "`{dataset}` has another vocabulary than the weights in `{}`: the id {id} stands for {there} there, and for \
         {here} in the dataset", weights.display()
    )]
    OtherVocabulary {
        weights: PathBuf,
        dataset: String,
        id: u32,
        there: String,
        here: String,
    },
    #[error("the run config stored in the checkpoint cannot be read: {reason}")]
    StoredConfig { reason: String },
    #[error("cannot download the weights of `{name}`")]
    Download { name: String, source: Box<HubError> },
    /// A repository of the hub without a GPT-2.
    #[error("the model `{id}` of the hub has no `{lacks}`")]
    NoModel { id: String, lacks: &'static str },
    #[error("no weights for `{name}`: looked at{}", indented(looked_at.iter().map(|p| format!("`{}`", p.display()))))]
    PretrainedNotFound {
        name: String,
        looked_at: Vec<PathBuf>,
    },
}

/// A folder that stays although it should be removed or restored.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`: {source}", path.display())]
pub struct Stuck {
    action: &'static str,
    pub path: PathBuf,
    source: io::Error,
}

/// A checkpoint that was passed over, and its damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    pub path: PathBuf,
    pub damage: Damage,
}

/// A file of a checkpoint that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Name inside the checkpoint folder.
    pub file: String,
    pub flaw: Flaw,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    Missing,
    Size { expected: u64, found: u64 },
    Checksum,
    Unreadable(String),
    Format { supported: u32, found: u32 },
}

/// A key whose value is not the stored one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `section.key`
    pub key: String,
    /// None when the key is absent.
    pub stored: Option<String>,
    pub current: Option<String>,
    /// The edit that makes the config match.
    pub edit: String,
}

impl Stuck {
    pub(super) fn new(action: &'static str, path: PathBuf, source: io::Error) -> Self {
        Self {
            action,
            path,
            source,
        }
    }
}

impl CheckpointError {
    /// The lack of memory behind this error: a file operation that the system has no memory for.
    ///
    /// # Errors
    /// The error itself, for every other failure.
    pub fn into_out_of_memory(self) -> Result<OutOfMemory, Self> {
        match &self {
            Self::Save { source, .. } | Self::Io { source, .. }
                if source.kind() == io::ErrorKind::OutOfMemory =>
            {
                Ok(OutOfMemory {
                    site: Site::Checkpoint,
                    name: self.to_string(),
                    bytes: 0,
                    held: 0,
                    limit: None,
                })
            }
            _ => Err(self),
        }
    }

    /// Names the file and the action that failed, for `map_err`.
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Whether a signal ended a download.
    pub fn is_interrupt(&self) -> bool {
        matches!(self, Self::Download { source, .. } if matches!(**source, HubError::Interrupted))
    }

    /// The hint of a run that has no earlier checkpoint.
    pub fn hint_without_checkpoint(&self) -> Option<String> {
        let Self::Save { action, source, .. } = self else {
            return self.hint();
        };
        let hint = match source.kind() {
            _ if *action == FETCH => {
                "look at the device with `taper doctor`, then run the same command again"
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some disk space, then run the same command again"
            }
            io::ErrorKind::FileTooLarge => {
                "allow larger files with `ulimit -f unlimited`, then run the same command again"
            }
            _ => "save elsewhere with `--set checkpoint.out_dir=DIR`",
        };
        Some(hint.into())
    }

    /// A literal edit or command that would help, where there is one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Save { .. } => {
                let hint = self.hint_without_checkpoint()?;
                let hint = hint.replace("the same command again", "the same command with `--resume`");
                format!("the earlier checkpoints are intact: {hint}")
            }
            Self::Damaged { path, .. } => format!(
                "to use the newest intact one beside it, name their folder: `{}`",
                path.parent().map_or(".".into(), |p| p.display().to_string())
            ),
            Self::NoneFound { skipped, .. } if skipped.is_empty() => {
                "leave out `--resume` to start from the beginning, or name a checkpoint: `--resume PATH`".into()
            }
            Self::NoneFound { .. } => {
                "restore one of them from a copy; or move them away to start from the beginning".into()
            }
            Self::NotACheckpoint { hint, .. } => hint.clone(),
            Self::Foreign(error) => error.hint(),
            Self::Torch(error) => error.hint(),
            Self::Export(error) => return error.hint(),
            Self::OtherModel { differences, .. } => {
                format!("use the model's own values: {}", edits(differences))
            }
            Self::Contradiction { differences } => format!(
                "to continue the stored run: {}; to begin another one: `--set checkpoint.out_dir=DIR`",
                edits(differences)
            ),
            Self::OtherDataset {
                checkpoint,
                same_vocabulary,
                ..
            } => on_other_data(checkpoint, *same_vocabulary),
            Self::OtherVocabulary { .. } => {
                "use a dataset made with the tokenizer of the weights; or train from scratch: \
                 `--set train.init_from=scratch`"
                    .into()
            }
            Self::StoredConfig { .. } => {
                "resume with the version of taper that wrote the checkpoint".into()
            }
            Self::PretrainedNotFound { name, .. } => where_weights_are(name),
            Self::Download { name, source } => match (&**source, source.hint()) {
                (HubError::NoRepository { .. }, Some(hint)) => {
                    format!("{hint}; if `{name}` is a folder, check its path")
                }
                (_, hint) => return hint,
            },
            Self::NoModel { .. } => "use a repository with a GPT-2 in Hugging Face's layout: `config.json`, and \
                 `model.safetensors` or `pytorch_model.bin`"
                .into(),
            Self::UnsupportedModel { path, key, .. } => format!(
                "taper runs GPT-2 as OpenAI published it: correct `{key}` in `{}` if it is wrong there, or use other weights",
                path.display()
            ),
            Self::Tensor { .. } | Self::Unreadable { .. } => {
                "download or convert the model again".into()
            }
            Self::OutDir { .. } => {
                "name a folder that can be written: `--set checkpoint.out_dir=DIR`".into()
            }
            Self::InUse { .. } => "wait for it or stop it; or start another run beside it: \
                 `--set checkpoint.out_dir=NEW_FOLDER`"
                .into(),
            Self::Io { path, source, .. } if path.ends_with(MODEL) && is_absent(source) => {
                "copy or download `model.safetensors` into the folder".into()
            }
            Self::NotRemoved { .. } | Self::ExtraFile { .. } | Self::Io { .. } => return None,
        })
    }
}

impl Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.file, self.flaw)
    }
}

impl Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "is missing"),
            Self::Size { expected, found } => {
                write!(f, "has {found} bytes, the manifest says {expected}")
            }
            Self::Checksum => write!(f, "does not match its checksum"),
            Self::Unreadable(reason) => write!(f, "cannot be read: {reason}"),
            Self::Format { supported, found } => {
                write!(f, "has format {found}, this taper reads {supported}")
            }
        }
    }
}

impl Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.path.display(), self.damage)
    }
}

impl Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
        write!(
            f,
            "`{}`: the checkpoint has {}, the config has {}",
            self.key,
            shown(&self.stored),
            shown(&self.current)
        )
    }
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// The ways on when the dataset is not the one that a checkpoint was trained on.
fn on_other_data(checkpoint: &Path, same_vocabulary: bool) -> String {
    let back = "point `data.data_dir` and `data.dataset` at the run's own data";
    if same_vocabulary {
        format!(
            "{back}; or start a new run on this dataset from those weights: in the place of `--resume`, \
             `--set train.init_from={} --set checkpoint.out_dir=NEW_FOLDER` (to evaluate them on it: with `--eval-only`)",
            checkpoint.display()
        )
    } else {
        format!(
            "{back}; weights are of no use with another vocabulary, so train on this dataset from scratch, with \
             `--set checkpoint.out_dir=NEW_FOLDER`"
        )
    }
}

fn none_found(skipped: &[Skipped]) -> String {
    if skipped.is_empty() {
        "it holds no folder named `ckpt-*`".into()
    } else {
        format!("every one is damaged{}", indented(skipped))
    }
}

fn indented<T: Display>(lines: impl IntoIterator<Item = T>) -> String {
    lines
        .into_iter()
        .map(|line| format!("\n  {line}"))
        .collect()
}

fn edits(differences: &[Difference]) -> String {
    let edits: Vec<&str> = differences.iter().map(|d| d.edit.as_str()).collect();
    edits.join(", ")
}
