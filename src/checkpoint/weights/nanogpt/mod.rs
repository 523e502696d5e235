//! nanoGPT's `ckpt.pt`: a dictionary of `torch.save`.
//!
//! | key | value |
//! |---|---|
//! | `model` | the state dictionary, perhaps with the prefix `_orig_mod.` of `torch.compile` |
//! | `model_args` | the sizes: `n_layer`, `n_head`, `n_embd`, `block_size`, `bias`, `vocab_size`, `dropout` |
//! | `optimizer` | AdamW's state dictionary: both moments and the hyperparameters |
//! | `iter_num` | optimizer steps done |
//! | `best_val_loss` | a number, or a tensor of one |
//! | `config` | the settings of `train.py` |
//!
//! Source: nanoGPT's `train.py` and `model.py`. Its activation is `nn.GELU()`, the exact form.

mod run;
mod write;

use std::path::Path;

use super::gpt2_config::{LAYERS, SIZES};
use super::pretrained::{Matrices, Pretrained};
use super::tensor_names::few;
use super::torch::tensors::{Saved, Table};
use super::torch::{TorchFlaw, View};
use crate::checkpoint::CheckpointError;
use crate::terms::{Gelu, ModelDims};

pub(in crate::checkpoint) use run::{Run, open_run};
pub use write::{AdamWState, NanoGptState, write_nanogpt};

/// The name that nanoGPT gives its checkpoint.
pub(in crate::checkpoint) const CHECKPOINT: &str = "ckpt.pt";

const EXPECTED: &str =
    "nanoGPT's checkpoint: a dictionary with `model`, `model_args`, `optimizer` and `iter_num`";

/// Opens the model of a checkpoint of nanoGPT.
///
/// # Errors
/// `Io`, `Torch`, `UnsupportedModel`, and those of [`Pretrained::new`].
pub(in crate::checkpoint) fn open_weights(path: &Path) -> Result<Pretrained, CheckpointError> {
    let saved = Saved::open(path)?;
    weights(path, &saved)
}

fn weights(path: &Path, saved: &Saved) -> Result<Pretrained, CheckpointError> {
    let root = saved.root();
    let (state, arguments) = (
        entry(path, root, "model")?,
        entry(path, root, "model_args")?,
    );
    let arguments = Arguments { path, arguments };
    let dims = arguments.dims()?;
    let Table { tensors, left_out } = saved.table(state)?;
    let files = vec![saved.with(tensors)?];
    let mut pretrained = Pretrained::new(path, dims, files, Matrices::OutIn)?;
    let unknown = arguments.unknown();
    for (what, names) in [("`model_args`", unknown), ("`model`", left_out)] {
        if !names.is_empty() {
            let names = few(names.iter());
            let note = format!("{what} holds what taper does not know and leaves out: {names}");
            pretrained.told.push(note);
        }
    }
    let dataset = root.get("config").and_then(|config| config.get("dataset"));
    pretrained.dataset = dataset.and_then(View::text).map(String::from);
    Ok(pretrained)
}

/// The dictionary under a key of the checkpoint.
fn entry<'a>(path: &Path, root: View<'a>, key: &str) -> Result<View<'a>, CheckpointError> {
    let found = match root.get(key) {
        Some(entry) if entry.is_dict() => return Ok(entry),
        Some(other) => format!("{} as `{key}`", other.kind()),
        None if root.is_dict() => format!("a dictionary without `{key}`"),
        None => root.kind(),
    };
    let expected = EXPECTED;
    Err(TorchFlaw::Object { found, expected }.of(path).into())
}

/// The `model_args` of a checkpoint.
struct Arguments<'a> {
    path: &'a Path,
    arguments: View<'a>,
}

/// Keys of `model_args`.
const KEYS: [&str; 7] = [
    "n_layer",
    "n_head",
    "n_embd",
    "block_size",
    "bias",
    "vocab_size",
    "dropout",
];

impl Arguments<'_> {
    fn dims(&self) -> Result<ModelDims, CheckpointError> {
        let (n_head, n_embd) = (self.size("n_head")?, self.size("n_embd")?);
        if !n_embd.is_multiple_of(n_head) {
            let expected = format!("a divisor of `n_embd`, which is {n_embd}");
            return Err(self.refusal("n_head", n_head.to_string(), expected));
        }
        Ok(ModelDims {
            n_layer: self.size("n_layer")?,
            n_head,
            n_embd,
            block_size: self.size("block_size")?,
            vocab_size: self.size("vocab_size")?,
            bias: self.bias()?,
            dropout: self.dropout()?,
            gelu: Gelu::Erf,
        })
    }

    fn size(&self, key: &'static str) -> Result<usize, CheckpointError> {
        let range = if key == "n_layer" { LAYERS } else { SIZES };
        let found = self.arguments.get(key);
        let size = found.and_then(View::int);
        let size = size.and_then(|size| usize::try_from(size).ok());
        size.filter(|size| range.contains(size)).ok_or_else(|| {
            let expected = format!("a whole number from {} to {}", range.start(), range.end());
            self.refusal(key, kind(found), expected)
        })
    }

    /// Whether the model has biases. nanoGPT had no such key before February 2023, and always biases.
    fn bias(&self) -> Result<bool, CheckpointError> {
        let Some(found) = self.arguments.get("bias") else {
            return Ok(true);
        };
        found
            .bool()
            .ok_or_else(|| self.refusal("bias", found.kind(), "True or False"))
    }

    fn dropout(&self) -> Result<f64, CheckpointError> {
        let Some(found) = self.arguments.get("dropout") else {
            return Ok(0.0);
        };
        let dropout = found.float().filter(|p| (0.0..=1.0).contains(p));
        dropout.ok_or_else(|| self.refusal("dropout", found.kind(), "a number from 0 to 1"))
    }

    /// Keys that say something about the model that taper does not know.
    fn unknown(&self) -> Vec<String> {
        let keys = self.arguments.items();
        let name = |(key, _): (View, View)| key.text().map_or_else(|| key.kind(), String::from);
        keys.map(name)
            .filter(|key| !KEYS.contains(&key.as_str()))
            .collect()
    }

    fn refusal(
        &self,
        key: &'static str,
        found: String,
        expected: impl Into<String>,
    ) -> CheckpointError {
        CheckpointError::UnsupportedModel {
            path: self.path.to_owned(),
            key,
            found,
            expected: expected.into(),
        }
    }
}

fn kind(found: Option<View>) -> String {
    found.map_or("absent".into(), View::kind)
}
