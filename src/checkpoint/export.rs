//! Weights written in the layout of another program, whole or not at all.
//!
//! Everything is written into `.NAME.convert` beside the target, synced, and renamed into place. A killed process leaves
//! that folder, which the next one clears.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;

use super::counted::Counted;
use super::to_nanogpt::nanogpt_state;
use super::weights::encode::WeightsDtype;
use super::weights::nanogpt::write_nanogpt;
use super::weights::pretrained::Pretrained;
use super::weights::safetensors::{self, Failure};
use super::weights::stored_values::{StoredValues, from_io};
use super::weights::{huggingface, llmc};
use super::{CheckpointError, MODEL, MODEL_CONFIG, TrainedRun, folders};
use crate::model::ParamLayout;
use crate::ops::backend::Values;
use crate::terms::{FileError, Gelu, ModelDims, shell_word};

/// A program that weights are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ExportTarget {
    /// A Hugging Face folder: config.json, model.safetensors, tokenizer files
    Hf,
    /// nanoGPT's ckpt.pt, with the optimizer's state if FROM is a checkpoint
    Nanogpt,
    /// A model file of llm.c
    Llmc,
}

/// Weights and the form that they are wanted in.
pub struct Export<'a> {
    pub pretrained: &'a Pretrained,
    pub target: ExportTarget,
    pub dtype: WeightsDtype,
    /// The form of GELU that the model is written with, if not its own.
    pub gelu: Option<Gelu>,
    /// The run that the weights are of.
    pub run: Option<&'a TrainedRun>,
    /// Files of the tokenizer and the like, for a folder: (plain file name, contents).
    pub extra_files: &'a [(String, Vec<u8>)],
    /// Counts the bytes of tensors that are written.
    pub progress: &'a ProgressBar,
}

/// Failure to write weights for another program.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("`{}` exists, and nothing is overwritten", out.display())]
    Taken { out: PathBuf },
    #[error("`{}` is being written by another `taper convert`", out.display())]
    Busy { out: PathBuf },
    #[error("`{}` does not exist, where `{}` is to be written", folder.display(), out.display())]
    NoFolder { folder: PathBuf, out: PathBuf },
    #[error(transparent)]
    File(#[from] FileError),
    /// A target that is one file, and the name of a folder.
    #[error("`{}` is a folder, and {program} reads a file", out.display())]
    Folder {
        out: PathBuf,
        program: &'static str,
        name: &'static str,
    },
    /// Numbers that a program's file does not have.
    #[error("{program}'s file holds float32 alone, asked for is {}", dtype.name())]
    Dtype {
        program: &'static str,
        dtype: WeightsDtype,
    },
    #[error("{program} has no such model: `{key}` is {found}, expected {expected}")]
    Unlike {
        program: &'static str,
        key: &'static str,
        found: &'static str,
        expected: &'static str,
    },
}

impl ExportError {
    /// A literal edit or command that would help.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::File(error) => return error.hint(),
            Self::NoFolder { folder, .. } => format!("make it: `mkdir -p {}`", shell_word(folder)),
            Self::Taken { out } => {
                let word = shell_word(out);
                format!("name another place, or remove it: `rm -r {word}`")
            }
            Self::Busy { .. } => "wait for it, or name another place".into(),
            Self::Dtype { .. } => "leave `--dtype` out".into(),
            Self::Folder { out, name, .. } => {
                let file = out.join(name);
                format!("name the file, such as `{}`", shell_word(&file))
            }
            Self::Unlike { .. } => {
                "with `--to hf` the model stays what it is. `--gelu` writes it with the other form, whose logits are a \
                 little different: nanoGPT does so with OpenAI's weights. One that is to be used there is best trained with \
                 that program's own: `--set model.gelu=erf` for nanoGPT, `tanh` for llm.c"
                    .into()
            }
        })
    }
}

impl ExportTarget {
    /// Refuses a model that the program would compute something else with.
    ///
    /// # Errors
    /// `Unlike` with the first key.
    fn check(self, dims: &ModelDims) -> Result<(), ExportError> {
        let unlike = |program, found, expected| ExportError::Unlike {
            program,
            key: "gelu",
            found,
            expected,
        };
        let (exact, approximate) = ("erf, the exact form", "tanh, its approximation");
        match (self, dims.gelu) {
            (Self::Llmc, Gelu::Erf) => Err(unlike("llm.c", exact, approximate)),
            (Self::Nanogpt, Gelu::Tanh) => Err(unlike("nanoGPT", approximate, exact)),
            _ => Ok(()),
        }
    }

    /// The program, and the usual name of its file; `None` for a folder.
    fn file(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Hf => None,
            Self::Nanogpt => Some(("nanoGPT", "ckpt.pt")),
            Self::Llmc => Some(("llm.c", "gpt2.bin")),
        }
    }

    /// Sentences about what the program's form adds to a model, or has no room for.
    pub fn notes(self, dims: &ModelDims) -> Vec<String> {
        let mut notes = Vec::new();
        let zeros =
            "the model has no biases: they are written as zeros, which is the same function";
        match self {
            Self::Hf if !dims.bias => {
                notes.push(format!("{zeros}; `taper.bias` in config.json remembers it"));
            }
            Self::Hf | Self::Nanogpt => {}
            Self::Llmc => {
                if !dims.bias {
                    notes.push(format!("{zeros}; llm.c trains them along with the rest"));
                }
                let padded = llmc::padded_vocab(dims.vocab_size);
                if padded != dims.vocab_size {
                    notes.push(format!(
                        "the vocabulary of {} is padded to {padded} rows with zeros",
                        dims.vocab_size
                    ));
                }
                if dims.dropout > 0.0 {
                    notes.push(format!(
                        "a dropout of {} is left out: llm.c has none",
                        dims.dropout
                    ));
                }
            }
        }
        notes
    }
}

/// Writes weights to `out`, a folder or a file as the target has it, which must not exist. One tensor of the model is in
/// memory at a time.
///
/// # Errors
/// `Export` for a place that is taken and a model that the program does not have; `Foreign` and `Tensor` for weights that
/// cannot be used, or that the model would be another without. Then nothing is at `out`.
pub fn export(export: &Export, out: &Path) -> Result<(), CheckpointError> {
    export.target.check(&export.dims())?;
    if export.target == ExportTarget::Nanogpt && export.dtype != WeightsDtype::default() {
        let (program, dtype) = ("nanoGPT", export.dtype);
        return Err(ExportError::Dtype { program, dtype }.into());
    }
    export.pretrained.check_left_out()?;
    let place = Place::begin(out, export.target)?;
    match export.write(&place).and_then(|()| place.publish()) {
        Ok(()) if place.is_folder => Ok(()),
        Ok(()) => fs::remove_dir_all(&place.staged).map_err(failed("remove", &place.staged)),
        Err(error) => {
            // The error at hand matters more than one of the clean-up, which the next conversion repeats.
            let _ = fs::remove_dir_all(&place.staged);
            Err(error)
        }
    }
}

impl Export<'_> {
    /// The sizes of the model that is written.
    fn dims(&self) -> ModelDims {
        let dims = &self.pretrained.dims;
        ModelDims {
            gelu: self.gelu.unwrap_or(dims.gelu),
            ..dims.clone()
        }
    }

    fn write(&self, place: &Place) -> Result<(), CheckpointError> {
        let dims = &self.dims();
        let rows = match (self.target, self.run) {
            // Weights and both moments.
            (ExportTarget::Nanogpt, Some(_)) => 3,
            _ => 1,
        };
        let bytes_per_value = self.dtype.bytes() as u64;
        let values = ParamLayout::new(dims).len as u64;
        self.progress.set_length(rows * bytes_per_value * values);
        self.progress.set_message("writing");
        let counted = |values| Counted {
            values,
            bytes_per_value,
            bar: self.progress,
        };
        let values = counted(StoredValues::new(self.pretrained, self.dtype.largest()));
        match self.target {
            ExportTarget::Llmc => place.write(&place.name(), |file| {
                llmc::write(file, dims, &values, self.dtype)
            }),
            ExportTarget::Nanogpt => {
                let state = nanogpt_state(self.run)?;
                let moments = self.run.map(|run| {
                    ["m", "v"]
                        .map(|moment| StoredValues::of_moment(&run.moments, moment, dims))
                        .map(counted)
                });
                let moments = moments.as_ref().map(|[m, v]| [m as &dyn Values, v]);
                write_nanogpt(
                    &place.staged.join(place.name()),
                    dims,
                    &values,
                    moments,
                    &state,
                )
            }
            ExportTarget::Hf => {
                let tensors = huggingface::tensors(&ParamLayout::new(dims), &values);
                place.write(MODEL, |file| safetensors::write(file, &tensors, self.dtype))?;
                let config = self.config_json(&place.staged)?;
                place.write(MODEL_CONFIG, |file| Ok(file.write_all(config.as_bytes())?))?;
                for (name, bytes) in self.extra_files {
                    place.write(name, |file| Ok(file.write_all(bytes)?))?;
                }
                Ok(())
            }
        }
    }

    fn config_json(&self, folder: &Path) -> Result<String, CheckpointError> {
        huggingface::config_json(&self.dims(), &self.pretrained.end_of_text, self.dtype)
            .map_err(io::Error::from)
            .map_err(failed("write", &folder.join(MODEL_CONFIG)))
    }
}

/// The place of what is written, and the hidden folder that it is written into.
struct Place {
    out: PathBuf,
    is_folder: bool,
    staged: PathBuf,
    /// Keeps another process away until the end.
    _lock: File,
}

impl Place {
    fn begin(out: &Path, target: ExportTarget) -> Result<Self, CheckpointError> {
        let ends_as_folder = out.as_os_str().to_string_lossy().ends_with('/');
        let out = out.to_owned();
        let file = target.file();
        if let Some((program, name)) = file
            && (out.is_dir() || ends_as_folder)
        {
            return Err(ExportError::Folder { out, program, name }.into());
        }
        let Some(name) = out.file_name().filter(|_| out.symlink_metadata().is_err()) else {
            return Err(ExportError::Taken { out }.into());
        };
        let folder = parent(&out);
        if !folder.is_dir() {
            let folder = folder.to_owned();
            return Err(ExportError::NoFolder { folder, out }.into());
        }
        let staged = out.with_file_name(format!(".{}.convert", name.to_string_lossy()));
        match fs::create_dir(&staged) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(failed("create", &staged)(error));
            }
            _ => {}
        }
        // What a link leads to is not ours to clear.
        if !staged.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            return Err(ExportError::Taken { out: staged }.into());
        }
        let lock = File::open(&staged).map_err(failed("open", &staged))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ExportError::Busy { out }.into()),
            Err(TryLockError::Error(error)) => {
                return Err(failed("lock", &staged)(error));
            }
        }
        clear(&staged).map_err(failed("clear", &staged))?;
        Ok(Self {
            out,
            is_folder: file.is_none(),
            staged,
            _lock: lock,
        })
    }

    fn name(&self) -> String {
        let name = self.out.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Writes a file of the hidden folder, and waits until it is on the disk.
    fn write(
        &self,
        name: &str,
        body: impl FnOnce(&mut File) -> Result<(), Failure>,
    ) -> Result<(), CheckpointError> {
        let path = self.staged.join(name);
        let io = |error| failed("write", &path)(error);
        let mut file = File::create_new(&path).map_err(io)?;
        match body(&mut file) {
            Ok(()) => file.sync_all().map_err(io),
            Err(Failure::File(error)) => Err(io(error)),
            Err(Failure::Values(error)) => Err(from_io(error).unwrap_or_else(io)),
        }
    }

    /// Renames what was written to its name, which nobody may have taken meanwhile.
    fn publish(&self) -> Result<(), CheckpointError> {
        let io = |error| failed("rename", &self.staged)(error);
        let from = if self.is_folder {
            folders::sync(&self.staged).map_err(io)?;
            self.staged.clone()
        } else {
            self.staged.join(self.name())
        };
        match rename_to_new(&from, &self.out) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let out = self.out.clone();
                return Err(ExportError::Taken { out }.into());
            }
            renamed => renamed.map_err(io)?,
        }
        folders::sync(parent(&self.out)).map_err(io)
    }
}

/// The error of an operation on a file, for `map_err`.
fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError + use<> {
    let at = FileError::at(action, path);
    move |source| ExportError::from(at(source)).into()
}

/// The folder that a path is in.
fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Empties a folder that a killed process left.
fn clear(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}

/// Renames, and overwrites nothing.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Some file systems cannot do it in one step.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
            done => return Ok(done?),
        }
    }
    if to.symlink_metadata().is_ok() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    fs::rename(from, to)
}
