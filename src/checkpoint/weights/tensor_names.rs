//! Names of tensors in files of others: wrappers around the model, and what is no weight of GPT-2.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;

use super::foreign::ForeignError;
use super::huggingface::bias_owner;
use super::pretrained::Matrices;
use super::tensor_file::TensorFile;
use crate::checkpoint::CheckpointError;
use crate::model::{ParamLayout, ParamSpec};
use crate::terms::ModelDims;

/// Modules that are put around a model, or around a part of it, and then stand in the names: `torch.compile`, DDP,
/// FSDP, activation checkpointing, and the attribute that trainers keep the model in.
const WRAPPERS: [&str; 5] = [
    "_orig_mod",
    "module",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "model",
];

/// The token embedding, and the head that is tied to it.
pub(in crate::checkpoint) const EMBEDDING: &str = "wte.weight";
pub(in crate::checkpoint) const HEAD: &str = "lm_head.weight";

/// The tensors of a model's files by their bare names, such as `h.0.ln_1.weight`.
#[derive(Debug)]
pub(in crate::checkpoint) struct TensorNames {
    by_name: HashMap<String, (usize, String)>,
    /// Wrappers that are in the names.
    wrappers: BTreeSet<&'static str>,
}

impl TensorNames {
    /// # Errors
    /// When two tensors are the same weight.
    pub(in crate::checkpoint) fn of(files: &[TensorFile]) -> Result<Self, CheckpointError> {
        let mut names = Self {
            by_name: HashMap::new(),
            wrappers: BTreeSet::new(),
        };
        for (index, file) in files.iter().enumerate() {
            for name in file.names() {
                let bare = names.bare(name);
                if let Some((_, first)) = names.by_name.get(&bare) {
                    return Err(ForeignError::TwoTensors {
                        path: file.path.clone(),
                        one: first.clone(),
                        other: name.to_owned(),
                    }
                    .into());
                }
                names.by_name.insert(bare, (index, name.to_owned()));
            }
        }
        Ok(names)
    }

    /// `name` without wrappers, and without the `transformer.` that `GPT2LMHeadModel` has and `GPT2Model` has not.
    fn bare(&mut self, name: &str) -> String {
        let mut parts = Vec::new();
        for part in name.split('.') {
            match WRAPPERS.into_iter().find(|wrapper| *wrapper == part) {
                Some(wrapper) => {
                    self.wrappers.insert(wrapper);
                }
                None => parts.push(part),
            }
        }
        let bare = parts.join(".");
        bare.strip_prefix("transformer.")
            .unwrap_or(&bare)
            .to_owned()
    }

    /// The number of the file that holds a parameter, and its name there. A file may hold the tied matrix as the head
    /// alone: `save_model` of safetensors keeps one name of two.
    pub(in crate::checkpoint) fn find(&self, name: &str) -> Option<(usize, &str)> {
        let bare = name.strip_prefix("transformer.").unwrap_or(name);
        let tied = (bare == EMBEDDING).then_some(HEAD);
        [Some(bare), tied]
            .into_iter()
            .flatten()
            .find_map(|name| self.by_name.get(name))
            .map(|(file, name)| (*file, name.as_str()))
    }

    /// The head and the embedding that it is tied to, where the files hold both.
    pub(in crate::checkpoint) fn head_and_embedding(&self) -> Option<[(usize, &str); 2]> {
        let stored = |name| {
            let (file, name) = self.by_name.get(name)?;
            Some((*file, name.as_str()))
        };
        Some([stored(HEAD)?, stored(EMBEDDING)?])
    }

    /// Sentences about names that are read in another way than they are written, and tensors that are not read.
    pub(in crate::checkpoint) fn notes(&self, dims: &ModelDims) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.wrappers.is_empty() {
            let wrappers: Vec<String> = self.wrappers.iter().map(|w| format!("`{w}.`")).collect();
            notes.push(format!(
                "the names of the tensors are read without {}",
                wrappers.join(", ")
            ));
        }
        let layout = ParamLayout::new(dims);
        let known = known(&layout);
        let ignored: BTreeMap<&str, &str> = self
            .by_name
            .iter()
            .filter(|(bare, _)| !known.contains(bare.as_str()) && !is_buffer(bare))
            .map(|(bare, (_, name))| (bare.as_str(), name.as_str()))
            .collect();
        if !ignored.is_empty() {
            notes.push(format!(
                "GPT-2 of {} layers has no such tensors, they are left out: {}",
                dims.n_layer,
                few(ignored.values())
            ));
        }
        notes
    }
}

/// The bare names of all parameters, of the head, and of the biases that a model without them may be stored with.
fn known(layout: &ParamLayout) -> BTreeSet<String> {
    let bare = |name: &str| name.strip_prefix("transformer.").unwrap_or(name).to_owned();
    let bias = |param: &ParamSpec| Some(bare(&format!("{}.bias", bias_owner(param)?)));
    let params = layout.params.iter();
    let mut known: BTreeSet<String> = params.clone().map(|param| bare(&param.name)).collect();
    known.extend(params.filter_map(bias));
    known.insert(HEAD.into());
    known
}

/// Whether a tensor is a causal mask, which old files hold.
pub(in crate::checkpoint) fn is_buffer(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    matches!(parts[..], [.., "h", _, "attn", "bias" | "masked_bias"])
}

/// The first few names, and how many more there are.
pub(in crate::checkpoint) fn few(names: impl ExactSizeIterator<Item = impl Display>) -> String {
    const SHOWN: usize = 3;
    let more = names.len().saturating_sub(SHOWN);
    let shown: Vec<String> = names.take(SHOWN).map(|name| format!("`{name}`")).collect();
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Refuses files that lack a parameter of `dims`, or have one of another shape.
pub(in crate::checkpoint) fn check_all(
    files: &[TensorFile],
    names: &TensorNames,
    folder: &std::path::Path,
    dims: &ModelDims,
    matrices: Matrices,
) -> Result<(), CheckpointError> {
    for param in &ParamLayout::new(dims).params {
        let expected = matrices.shape(param);
        let Some((file, name)) = names.find(&param.name) else {
            return Err(CheckpointError::Tensor {
                path: folder.to_owned(),
                name: param.name.clone(),
                found: "absent".into(),
                expected: format!("shape {expected:?}"),
            });
        };
        files[file].expect_shape(name, &expected)?;
    }
    Ok(())
}
