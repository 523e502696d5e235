//! Files of `torch.save` that taper cannot read, each with what to do about it.

use std::path::{Path, PathBuf};

/// A file of `torch.save` that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`{}` cannot be read: {flaw}", path.display())]
pub struct TorchError {
    pub path: PathBuf,
    pub flaw: TorchFlaw,
}

/// The reason why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TorchFlaw {
    #[error("it is no file of `torch.save`")]
    NotSaved,
    #[error("it is Git LFS's pointer to the file")]
    GitLfs,
    #[error("it has the format of `torch.save` before PyTorch 1.6")]
    Legacy,
    #[error("it is a TorchScript program of `torch.jit.save`, expected a file of `torch.save`")]
    TorchScript,
    #[error("it ends early, or its list of entries is damaged ({0})")]
    CutShort(String),
    #[error("its entry `{entry}` is {found}, expected {expected}")]
    Entry {
        entry: String,
        found: &'static str,
        expected: &'static str,
    },
    #[error("two of its entries have one name, or share bytes")]
    Overlap,
    #[error("its numbers are big-endian, expected little-endian")]
    BigEndian,
    #[error("its `data.pkl` is damaged: {0}")]
    Pickle(&'static str),
    #[error("its tensor `{name}` is {found}, expected {expected}")]
    Tensor {
        name: String,
        found: String,
        expected: String,
    },
    #[error("it holds {found}, expected {expected}")]
    Object {
        found: String,
        expected: &'static str,
    },
    /// Weights that can be used, of a run that cannot be gone on with.
    #[error("it holds {found}, expected {expected}")]
    Run {
        found: String,
        expected: &'static str,
    },
}

impl TorchFlaw {
    pub(in crate::checkpoint) fn of(self, path: &Path) -> TorchError {
        TorchError {
            path: path.to_owned(),
            flaw: self,
        }
    }
}

impl TorchError {
    /// A literal edit or command that would help.
    pub(in crate::checkpoint) fn hint(&self) -> String {
        let path = self.path.display();
        let again = |object: &str| {
            format!(
                "save it again, in Python: `torch.save({object}, \"NEW_FILE\")`, and use the new file"
            )
        };
        match &self.flaw {
            TorchFlaw::NotSaved => {
                "check the path; expected a file that `torch.save` wrote, as nanoGPT's `ckpt.pt`".into()
            }
            TorchFlaw::GitLfs => "fetch the file itself with `git lfs pull`".into(),
            TorchFlaw::Legacy | TorchFlaw::BigEndian | TorchFlaw::Entry { .. } => {
                again(&format!("torch.load(\"{path}\", map_location=\"cpu\")"))
            }
            TorchFlaw::TorchScript => {
                again(&format!("torch.jit.load(\"{path}\", map_location=\"cpu\").state_dict()"))
            }
            TorchFlaw::CutShort(_) | TorchFlaw::Overlap | TorchFlaw::Pickle(_) => {
                "copy or download the file again; a program that was killed while it saved leaves such a file".into()
            }
            TorchFlaw::Tensor { .. } => again(
                "{name: tensor.contiguous().float() for name, tensor in state_dict.items()}",
            ),
            TorchFlaw::Run { .. } => {
                format!("start another run from its weights: `--set train.init_from={path}`")
            }
            TorchFlaw::Object { .. } => "name nanoGPT's `ckpt.pt`, or the folder of a Hugging Face model with its \
                 `config.json` and its weights"
                .into(),
        }
    }
}
