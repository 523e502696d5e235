//! Writing nanoGPT's `ckpt.pt`, whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::Path;

use serde_json::Value;

use crate::checkpoint::weights::safetensors::Failure;
use crate::checkpoint::weights::stored_values::from_io;
use crate::checkpoint::weights::tensor_names::HEAD;
use crate::checkpoint::weights::torch::write::{Object, StorageOut, write};
use crate::checkpoint::{CheckpointError, FETCH, folders};
use crate::model::{ParamLayout, ParamSpec};
use crate::ops::backend::Values;
use crate::terms::ModelDims;

/// The best validation loss before the first evaluation, in nanoGPT.
const NO_LOSS: f64 = 1e9;

/// A run of nanoGPT, beside its weights and moments.
#[derive(Clone, Debug, PartialEq)]
pub struct NanoGptState {
    /// Optimizer steps done.
    pub iter_num: u64,
    pub best_val_loss: Option<f64>,
    /// The settings of nanoGPT's `train.py`, by its own names.
    pub config: BTreeMap<String, Value>,
    pub optimizer: AdamWState,
}

/// The hyperparameters of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWState {
    /// The learning rate of the last step.
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    /// Decay of matrices and embeddings; biases and norms have none.
    pub weight_decay: f64,
}

/// Writes nanoGPT's checkpoint, whose GELU is the exact one whatever `dims` say, to `path`, from weights and both moments that are flat in the layout of `dims`. A file
/// that is there is replaced when the new one is complete. Nothing the size of the model is allocated.
///
/// # Errors
/// `Io` when the file cannot be written, or a device does not give the values; those of the files that they are read from.
///
/// # Panics
/// When a buffer is not as long as the layout of `dims`: a defect of the caller.
pub fn write_nanogpt(
    path: &Path,
    dims: &ModelDims,
    weights: &dyn Values,
    moments: Option<[&dyn Values; 2]>,
    state: &NanoGptState,
) -> Result<(), CheckpointError> {
    let layout = ParamLayout::new(dims);
    let mut storages = Vec::new();
    let model = model(&layout, weights, &mut storages);
    let checkpoint = Object::dict([
        ("model", model),
        (
            "optimizer",
            optimizer(&layout, moments, state, &mut storages),
        ),
        ("model_args", model_args(dims)),
        ("iter_num", Object::Int(state.iter_num as i64)),
        (
            "best_val_loss",
            Object::Float(state.best_val_loss.unwrap_or(NO_LOSS)),
        ),
        (
            "config",
            Object::dict(state.config.iter().map(|(key, value)| (key, object(value)))),
        ),
    ]);
    replace(path, &checkpoint, &storages)
}

/// Writes a file aside, and renames it when it is on the disk.
fn replace(path: &Path, object: &Object, storages: &[StorageOut]) -> Result<(), CheckpointError> {
    let io = |action| CheckpointError::io(action, path);
    let name = path.file_name().unwrap_or_default();
    let aside = path.with_file_name(format!(".{}.tmp", name.display()));
    let folder = path.with_extension("");
    let folder = folder.file_name().unwrap_or_default().to_string_lossy();
    let written = File::create(&aside)
        .map_err(Failure::from)
        .and_then(|file| {
            let out = write(BufWriter::new(file), &folder, object, storages)?;
            let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
            Ok(file.sync_all()?)
        });
    let moved = match written {
        Ok(()) => fs::rename(&aside, path).map_err(io("rename")),
        Err(Failure::File(error)) => Err(io("write")(error)),
        Err(Failure::Values(error)) => Err(from_io(error).unwrap_or_else(io(FETCH))),
    };
    if moved.is_err() {
        // The error at hand matters more.
        let _ = fs::remove_file(&aside);
    }
    moved?;
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    folders::sync(parent.unwrap_or(Path::new("."))).map_err(io("sync"))
}

/// The state dictionary of the model. Its head is the token embedding.
fn model<'a>(
    layout: &ParamLayout,
    weights: &'a dyn Values,
    storages: &mut Vec<StorageOut<'a>>,
) -> Object {
    assert_eq!(weights.len(), layout.len, "`weights` has another layout");
    let mut tensors: Vec<(String, Object)> = Vec::new();
    for param in &layout.params {
        let tensor = tensor(param, weights, storages);
        tensors.push((param.name.clone(), tensor));
    }
    let embedding = tensors.first().map(|(_, tensor)| tensor.clone());
    tensors.extend(embedding.map(|embedding| (HEAD.to_owned(), embedding)));
    Object::dict(tensors)
}

fn tensor<'a>(
    param: &ParamSpec,
    values: &'a dyn Values,
    storages: &mut Vec<StorageOut<'a>>,
) -> Object {
    storages.push(StorageOut::Values(values, param.range()));
    Object::Tensor(storages.len() - 1, param.shape.clone())
}

/// The state dictionary of AdamW: parameters that decay are numbered first, as nanoGPT groups them.
fn optimizer<'a>(
    layout: &ParamLayout,
    moments: Option<[&'a dyn Values; 2]>,
    state: &NanoGptState,
    storages: &mut Vec<StorageOut<'a>>,
) -> Object {
    let (decaying, others): (Vec<&ParamSpec>, _) =
        layout.params.iter().partition(|param| param.decays());
    let mut of_params = Vec::new();
    if let Some([m, v]) = moments {
        assert_eq!(m.len(), layout.len, "`m` has another layout");
        assert_eq!(v.len(), layout.len, "`v` has another layout");
        for (number, param) in decaying.iter().chain(&others).enumerate() {
            storages.push(StorageOut::One(state.iter_num as f32));
            let step = Object::Tensor(storages.len() - 1, Vec::new());
            let of_param = Object::dict([
                ("step", step),
                ("exp_avg", tensor(param, m, storages)),
                ("exp_avg_sq", tensor(param, v, storages)),
            ]);
            of_params.push((Object::Int(number as i64), of_param));
        }
    }
    let count = decaying.len();
    let groups = vec![
        group(&state.optimizer, state.optimizer.weight_decay, 0..count),
        group(&state.optimizer, 0.0, count..count + others.len()),
    ];
    Object::dict([
        ("state", Object::Dict(of_params)),
        ("param_groups", Object::List(groups)),
    ])
}

/// A group of parameters, with the keys of `torch.optim.AdamW`.
fn group(rule: &AdamWState, weight_decay: f64, params: std::ops::Range<usize>) -> Object {
    let betas = [rule.beta1, rule.beta2].map(Object::Float);
    let params = params.map(|number| Object::Int(number as i64));
    Object::dict([
        ("weight_decay", Object::Float(weight_decay)),
        ("lr", Object::Float(rule.learning_rate)),
        ("betas", Object::Tuple(betas.into())),
        ("eps", Object::Float(rule.eps)),
        ("amsgrad", Object::Bool(false)),
        ("maximize", Object::Bool(false)),
        ("foreach", Object::None),
        ("capturable", Object::Bool(false)),
        ("differentiable", Object::Bool(false)),
        ("fused", Object::None),
        ("decoupled_weight_decay", Object::Bool(true)),
        ("params", Object::List(params.collect())),
    ])
}

fn model_args(dims: &ModelDims) -> Object {
    let size = |size: usize| Object::Int(size as i64);
    Object::dict([
        ("n_layer", size(dims.n_layer)),
        ("n_head", size(dims.n_head)),
        ("n_embd", size(dims.n_embd)),
        ("block_size", size(dims.block_size)),
        ("bias", Object::Bool(dims.bias)),
        ("vocab_size", size(dims.vocab_size)),
        ("dropout", Object::Float(dims.dropout)),
    ])
}

fn object(value: &Value) -> Object {
    match value {
        Value::Null => Object::None,
        Value::Bool(switch) => Object::Bool(*switch),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Object::Int(whole),
            None => Object::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Object::text(text),
        Value::Array(items) => Object::List(items.iter().map(object).collect()),
        Value::Object(items) => Object::dict(items.iter().map(|(key, value)| (key, object(value)))),
    }
}
