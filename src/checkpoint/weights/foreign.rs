//! Weights that others wrote and taper cannot use, each with the lines that make them usable.

use std::fmt::{self, Display};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::llmc;
use crate::checkpoint::MODEL;
use crate::terms::shell_word;

/// Weights of another program that cannot be used as they are.
#[derive(Debug, thiserror::Error)]
pub enum ForeignError {
    #[error("taper reads no weights from `{}`, {format}", path.display())]
    Format {
        path: PathBuf,
        format: ForeignFormat,
    },
    #[error(
        "`{}` is a model of llm.c in version {version}, expected 3 (f32) or 5 (bf16)", path.display()
    )]
    LlmCVersion { path: PathBuf, version: i32 },
    #[error("`{}` has no `model.safetensors`, but `{}`", folder.display(), others.join("`, `"))]
    NoWeights {
        folder: PathBuf,
        /// Names of the other safetensors files in the folder, at least one.
        others: Vec<String>,
    },
    #[error("`{}` lists `{shard}`, and no such file is beside it", index.display())]
    MissingShard { index: PathBuf, shard: String },
    #[error("`{one}` and `{other}` in `{}` are both the same weight of GPT-2", path.display())]
    TwoTensors {
        path: PathBuf,
        one: String,
        other: String,
    },
    #[error(
        "`{head}` in `{}` is another matrix than `{embedding}`, from {at:?} on: taper's GPT-2 has one for both",
        path.display()
    )]
    UntiedHead {
        path: PathBuf,
        head: String,
        embedding: String,
        at: Vec<usize>,
    },
    #[error(
        "the weights are damaged: tensor `{name}` in `{}` is {value} at {at:?}, expected {}",
        path.display(),
        numbers_up_to(*largest)
    )]
    Value {
        path: PathBuf,
        name: String,
        at: Vec<usize>,
        value: f32,
        /// The largest number that the weights may have.
        largest: f32,
    },
}

/// A format of weights that taper does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignFormat {
    /// A file of transformers, `pytorch_model.bin`, alone.
    PyTorch,
    /// A file of `torch.save`, as nanoGPT's `ckpt.pt`, in a folder.
    NanoGpt,
    /// A LoRA adapter of PEFT.
    Adapter,
    Gguf,
    /// TensorFlow or Flax weights of transformers.
    OtherFramework,
    /// llm.c's model file, which is read by its own name only.
    LlmC,
    /// The moments and the position of a run of llm.c.
    LlmCState,
    /// llm.c's vocabulary.
    LlmCTokenizer,
    /// llm.c's Llama.
    LlmCLlama,
    /// A safetensors file alone.
    Safetensors,
    Unknown,
}

impl Display for ForeignFormat {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::PyTorch => {
                "a file of transformers: it reads a folder with `config.json` and the file"
            }
            Self::NanoGpt => {
                "a file of `torch.save`: it reads nanoGPT's by its name, `ckpt.pt` also by its folder"
            }
            Self::Adapter => "an adapter without the model that it changes",
            Self::Gguf => "a GGUF file: it reads safetensors",
            Self::OtherFramework => "weights for TensorFlow or Flax: it reads safetensors",
            Self::LlmC => "a model of llm.c among other files: it reads the one that is named",
            Self::LlmCState => {
                "the optimizer's state of llm.c: moments, position and data order of its runs are not taken over"
            }
            Self::LlmCTokenizer => "llm.c's tokenizer: the weights are in another file",
            Self::LlmCLlama => "a Llama of llm.c: taper runs GPT-2",
            Self::Safetensors => {
                "a file: it reads a folder with `config.json` and `model.safetensors`"
            }
            Self::Unknown => "a file: it reads folders",
        })
    }
}

const CONVERT: &str = r#"from transformers import AutoModelForCausalLM, AutoTokenizer
AutoModelForCausalLM.from_pretrained("FROM"MORE).save_pretrained("FOLDER")
AutoTokenizer.from_pretrained("FROM"MORE).save_pretrained("FOLDER")"#;

const MERGE: &str = r#"from peft import AutoPeftModelForCausalLM
AutoPeftModelForCausalLM.from_pretrained("FROM").merge_and_unload().save_pretrained("FOLDER")"#;

impl ForeignError {
    /// A literal edit or command that would help.
    pub(in crate::checkpoint) fn hint(&self) -> String {
        match self {
            Self::Format { path, format } => format.hint(path),
            Self::NoWeights { folder, others } => {
                let from = folder.join(&others[0]);
                let to = folder.join(MODEL);
                format!("if these are the weights: `mv {} {}`", from.display(), to.display())
            }
            Self::LlmCVersion { .. } => {
                "write it again with llm.c as it is now, whose `train_gpt2.py` writes both versions".into()
            }
            Self::MissingShard { .. } => "download the model again, with all of its files".into(),
            Self::TwoTensors { .. } => "save the model again, with one of them".into(),
            Self::UntiedHead { .. } => {
                "use weights whose `lm_head.weight` is `transformer.wte.weight`, as in OpenAI's, or leave the head \
                 out of the file to use the embedding for it, which is another model"
                    .into()
            }
            Self::Value { value, .. } if value.is_finite() => {
                "use a wider format: `--set system.dtype=float32`, or `--dtype float32` of `taper convert`".into()
            }
            Self::Value { .. } => "a training that diverged, or a conversion to float16, leaves such weights: use an \
                 earlier checkpoint, or convert again from float32"
                .into(),
        }
    }
}

impl ForeignFormat {
    fn hint(self, path: &Path) -> String {
        let parent = path.parent().unwrap_or(path);
        let name = parent.file_name().or(path.file_stem()).unwrap_or_default();
        let folder = format!("{}-safetensors", name.display());
        let python = |lines: &str, from: &Path| {
            let lines = lines.replace("FROM", &from.display().to_string());
            let lines = lines.replace("FOLDER", &folder);
            format!("convert it once, in Python, and use `{folder}`:\n\n{lines}\n")
        };
        let parent = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        };
        match self {
            Self::PyTorch => format!(
                "name the folder, `{}`, with the model's `config.json` and the file as `pytorch_model.bin` in it",
                parent.display()
            ),
            Self::NanoGpt => format!(
                "if it is nanoGPT's checkpoint, name the file: `{}`; weights of transformers are read as \
                 `pytorch_model.bin`, with their `config.json` beside them",
                path.display()
            ),
            Self::Adapter => python(MERGE, parent),
            Self::Gguf => {
                let name = path.file_name().unwrap_or_default().display();
                python(&CONVERT.replace("MORE", &format!(", gguf_file=\"{name}\"")), parent)
            }
            Self::OtherFramework => {
                "download the model's `model.safetensors`, which is beside such files on the hub".into()
            }
            Self::LlmC => format!("name the file: `{}`", shell_word(path)),
            Self::LlmCState | Self::LlmCTokenizer => {
                "name the model's file, such as `model_00001000.bin` beside a `state_*.bin`; a new run starts from its \
                 weights with `--set train.init_from=FILE`"
                    .into()
            }
            Self::LlmCLlama => "use the weights of a GPT-2, such as llm.c's `gpt2_124M.bin`".into(),
            Self::Safetensors => format!(
                "name the folder, `{}`, with the model's `config.json` and the file as `model.safetensors` in it",
                parent.display()
            ),
            Self::Unknown => "name a run's folder, a checkpoint, or a folder with `config.json` and \
                 `model.safetensors`"
                .into(),
        }
    }
}

fn numbers_up_to(largest: f32) -> String {
    if largest == f32::MAX {
        "finite numbers".into()
    } else {
        format!("numbers up to {largest:e}")
    }
}

/// The format of a file that somebody names as a model; it need not be there.
pub(in crate::checkpoint) fn format_of(path: &Path) -> ForeignFormat {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    match extension.to_ascii_lowercase().as_str() {
        "pt" | "pth" | "ckpt" => ForeignFormat::NanoGpt,
        "bin" => of_llm_c(path).unwrap_or(ForeignFormat::PyTorch),
        "gguf" => ForeignFormat::Gguf,
        "h5" | "msgpack" => ForeignFormat::OtherFramework,
        "safetensors" => ForeignFormat::Safetensors,
        _ => ForeignFormat::Unknown,
    }
}

/// The integer that llm.c's files begin with, and what they are: its models, the state of its runs and of its tests, its
/// vocabulary, and the models of `train_llama3.py`.
const OF_LLM_C: [(i32, ForeignFormat); 5] = [
    (llmc::MODEL_MAGIC, ForeignFormat::LlmC),
    (20_240_527, ForeignFormat::LlmCState),
    (20_240_327, ForeignFormat::LlmCState),
    (20_240_328, ForeignFormat::LlmCTokenizer),
    (20_240_803, ForeignFormat::LlmCLlama),
];

fn of_llm_c(path: &Path) -> Option<ForeignFormat> {
    let mut magic = [0; 4];
    File::open(path).ok()?.read_exact(&mut magic).ok()?;
    let magic = i32::from_le_bytes(magic);
    let (_, format) = OF_LLM_C.into_iter().find(|(known, _)| *known == magic)?;
    Some(format)
}

/// Files of others that a folder without taper's may hold, the likeliest first.
const FILES: [(&str, ForeignFormat); 5] = [
    ("adapter_config.json", ForeignFormat::Adapter),
    ("tf_model.h5", ForeignFormat::OtherFramework),
    ("flax_model.msgpack", ForeignFormat::OtherFramework),
    ("model.gguf", ForeignFormat::Gguf),
    ("model.ckpt", ForeignFormat::NanoGpt),
];

/// The reason why a folder without `model.safetensors` has no weights that can be read; `None` if nothing in it looks
/// like weights.
pub(in crate::checkpoint) fn weights_of_others(folder: &Path) -> Option<ForeignError> {
    let known = FILES
        .into_iter()
        .find(|(name, _)| folder.join(name).is_file());
    if let Some((name, format)) = known {
        let path = folder.join(name);
        return Some(ForeignError::Format { path, format });
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    let foreign = paths.iter().find_map(|path| {
        let format = format_of(path);
        let readable = [ForeignFormat::Unknown, ForeignFormat::Safetensors].contains(&format);
        (path.is_file() && !readable).then(|| (path.clone(), format))
    });
    if let Some((path, format)) = foreign {
        return Some(ForeignError::Format { path, format });
    }
    let safetensors = paths
        .iter()
        .filter(|path| format_of(path) == ForeignFormat::Safetensors);
    let names =
        safetensors.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let others: Vec<String> = names.collect();
    (!others.is_empty()).then(|| ForeignError::NoWeights {
        folder: folder.to_owned(),
        others,
    })
}
