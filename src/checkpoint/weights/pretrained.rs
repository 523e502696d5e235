//! A model's weights in files of any format; a Hugging Face GPT-2 folder, as which a checkpoint's own are read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::foreign::{ForeignError, weights_of_others};
use super::tensor_file::{Limit, TensorFile};
use super::tensor_names::{TensorNames, check_all, few};
use super::{gpt2_config, huggingface, safetensors, torch};
use crate::checkpoint::manifest::{Manifest, is_plain};
use crate::checkpoint::{CheckpointError, Difference, MANIFEST, MODEL, MODEL_CONFIG};
use crate::model::{ParamLayout, ParamRole, ParamSpec};
use crate::ops::backend::ValuesMut;
use crate::terms::{ModelDims, Precision};

/// Lists the files of a model that is stored in several.
pub(in crate::checkpoint) const INDEX: &str = "model.safetensors.index.json";

/// PyTorch's file of transformers, and the list of its shards.
pub(in crate::checkpoint) const PYTORCH: &str = "pytorch_model.bin";
pub(in crate::checkpoint) const PYTORCH_INDEX: &str = "pytorch_model.bin.index.json";

/// transformers' settings for generating text.
const GENERATION_CONFIG: &str = "generation_config.json";

/// A model whose files are open and whose architecture is known.
#[derive(Debug)]
pub struct Pretrained {
    pub path: PathBuf,
    /// `dropout` is the folder's `resid_pdrop`: replace it with the run's own.
    pub dims: ModelDims,
    /// Ids that end a text, where the folder says so.
    pub end_of_text: Vec<u32>,
    /// Name of the dataset that the model was trained on, where a checkpoint of nanoGPT says so.
    pub dataset: Option<String>,
    /// Sentences about what the files hold and taper leaves out.
    pub(in crate::checkpoint) told: Vec<String>,
    files: Vec<TensorFile>,
    names: TensorNames,
    matrices: Matrices,
}

/// The layout of the four matrices of a block in the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::checkpoint) enum Matrices {
    /// (in, out): transformers' `Conv1D`.
    InOut,
    /// (out, in): PyTorch's `Linear`, as in nanoGPT and llm.c; taper's own.
    OutIn,
}

impl Matrices {
    /// The shape of a parameter in the files.
    pub(in crate::checkpoint) fn shape(self, param: &ParamSpec) -> Vec<usize> {
        match self {
            Self::InOut => huggingface::shape(param),
            Self::OutIn => param.shape.clone(),
        }
    }
}

/// Opens a folder with `config.json` and `model.safetensors`, or else `pytorch_model.bin` (or the shards that the index
/// of one lists). A taper checkpoint is one; its checksums are verified first.
///
/// Every tensor is there and has the shape that the config says; their values are not read yet.
///
/// # Errors
/// `Damaged`, `UnsupportedModel` (another architecture, or a GPT-2 with options that taper does not
/// have), `Foreign` (weights in another format), `Torch`, `Tensor`, `Unreadable`, `Io`.
pub fn open_pretrained(folder: &Path) -> Result<Pretrained, CheckpointError> {
    if folder.join(MANIFEST).exists() {
        Manifest::verify(folder).map_err(|damage| CheckpointError::Damaged {
            path: folder.to_owned(),
            damage,
        })?;
    }
    open_verified(folder)
}

/// Opens a folder whose checksums are known to be right, as [`open_pretrained`] does.
pub(in crate::checkpoint) fn open_verified(folder: &Path) -> Result<Pretrained, CheckpointError> {
    let path = folder.join(MODEL_CONFIG);
    let config = read_text(&path)?;
    let dims = gpt2_config::parse_config(&path, &config)?;
    let generation = fs::read_to_string(folder.join(GENERATION_CONFIG)).ok();
    let end_of_text = generation.as_deref().and_then(gpt2_config::end_of_text_ids);
    let files = weight_files(folder)?;
    let mut told = Vec::new();
    let files = files.iter().map(|path| open_file(path, &mut told));
    let files = files.collect::<Result<Vec<TensorFile>, _>>()?;
    let end_of_text = end_of_text.or_else(|| gpt2_config::end_of_text_ids(&config));
    let mut pretrained = Pretrained::new(folder, dims, files, Matrices::InOut)?;
    pretrained.end_of_text = end_of_text.unwrap_or_default();
    pretrained.told = told;
    Ok(pretrained)
}

/// Opens a file of weights by its extension: PyTorch's `.bin`, or safetensors.
fn open_file(path: &Path, told: &mut Vec<String>) -> Result<TensorFile, CheckpointError> {
    if path.extension().is_none_or(|extension| extension != "bin") {
        return safetensors::open(path);
    }
    let (file, left_out) = torch::tensors::open_state(path)?;
    if !left_out.is_empty() {
        told.push(format!(
            "what is no tensor is left out: {}",
            few(left_out.iter())
        ));
    }
    Ok(file)
}

/// The files of a folder's weights: safetensors, else PyTorch's; one, else the shards that an index lists.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    for (single, index) in [(MODEL, INDEX), (PYTORCH, PYTORCH_INDEX)] {
        if folder.join(single).exists() {
            return Ok(vec![folder.join(single)]);
        }
        if folder.join(index).exists() {
            return shards(folder, &folder.join(index));
        }
    }
    match weights_of_others(folder) {
        Some(error) => Err(error.into()),
        None => Ok(vec![folder.join(MODEL)]),
    }
}

/// The files that an index lists, all of which are there.
fn shards(folder: &Path, index_path: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let unreadable = |reason| CheckpointError::Unreadable {
        path: index_path.to_owned(),
        reason,
    };
    let index: Index = serde_json::from_str(&read_text(index_path)?)
        .map_err(|error| unreadable(error.to_string()))?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    if let Some(name) = names.iter().find(|name| !is_plain(name)) {
        return Err(unreadable(format!("it lists `{name}`")));
    }
    match names.iter().find(|name| !folder.join(name).exists()) {
        Some(shard) => Err(ForeignError::MissingShard {
            index: index_path.to_owned(),
            shard: shard.clone(),
        }
        .into()),
        None => Ok(names.iter().map(|name| folder.join(name)).collect()),
    }
}

fn read_text(path: &Path) -> Result<String, CheckpointError> {
    fs::read_to_string(path).map_err(CheckpointError::io("read", path))
}

impl Pretrained {
    /// The model of sizes `dims` whose tensors are in `files`; `path` is what a user would call it.
    ///
    /// # Errors
    /// `Tensor` for a parameter that is absent or of another shape, `Foreign` for one that is there twice.
    pub(in crate::checkpoint) fn new(
        path: &Path,
        dims: ModelDims,
        files: Vec<TensorFile>,
        matrices: Matrices,
    ) -> Result<Self, CheckpointError> {
        let names = TensorNames::of(&files)?;
        check_all(&files, &names, path, &dims, matrices)?;
        Ok(Self {
            path: path.to_owned(),
            dims,
            end_of_text: Vec::new(),
            dataset: None,
            told: Vec::new(),
            files,
            names,
            matrices,
        })
    }

    /// Fills `weights`, flat in the layout of `target`, from the folder's tensors.
    ///
    /// `target` must be the folder's architecture, dropout aside, with two exceptions: a shorter
    /// `block_size` takes the first position embeddings (nanoGPT's `crop_block_size`), and a
    /// vocabulary padded to the next multiple of 64 gets zero rows for the ids that do not exist.
    ///
    /// # Errors
    /// `OtherModel` lists every key that differs; `Tensor` names a tensor that is absent or has
    /// another shape or type than the folder's own config says; `Io`, also when a device does not take
    /// the values.
    ///
    /// # Panics
    /// When `weights` is not as long as the layout of `target`: a defect of the caller.
    pub fn load_weights(
        &self,
        target: &ModelDims,
        weights: &mut dyn ValuesMut,
    ) -> Result<(), CheckpointError> {
        self.load(target, weights, Limit::NONE)
    }

    /// [`Pretrained::load_weights`] for sampling, evaluation and training in `precision`, none of which can use NaN,
    /// infinities, or numbers that the precision does not have.
    ///
    /// # Errors
    /// `Foreign` with the first such number, else those of [`Pretrained::load_weights`].
    ///
    /// # Panics
    /// As [`Pretrained::load_weights`].
    pub fn load_usable_weights(
        &self,
        target: &ModelDims,
        precision: Precision,
        weights: &mut dyn ValuesMut,
    ) -> Result<(), CheckpointError> {
        self.load(target, weights, Limit::of(precision.largest()))
    }

    /// The folder with the files that belong to the weights, such as a tokenizer: `path`, or the folder that it is in.
    pub fn folder(&self) -> &Path {
        match self.path.parent() {
            _ if self.path.is_dir() => &self.path,
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => &self.path,
        }
    }

    /// Sentences about names that are read in another way than written, and about tensors that are not read.
    pub fn notes(&self) -> Vec<String> {
        let notes = self.names.notes(&self.dims).into_iter();
        notes
            .chain(self.told.iter().cloned())
            .map(|note| format!("`{}`: {note}", self.path.display()))
            .collect()
    }

    fn load(
        &self,
        target: &ModelDims,
        weights: &mut dyn ValuesMut,
        limit: Limit,
    ) -> Result<(), CheckpointError> {
        let differences = differences(&self.dims, target, Fit::CropOrPad);
        if !differences.is_empty() {
            return Err(CheckpointError::OtherModel {
                path: self.path.clone(),
                differences,
            });
        }
        let stored = ParamLayout::new(&self.dims);
        let wanted = ParamLayout::new(target);
        assert_eq!(weights.len(), wanted.len, "`weights` has another layout");
        let mut copy = Vec::new();
        for (stored, wanted) in stored.params.iter().zip(&wanted.params) {
            self.load_tensor(stored, weights, wanted.range(), &mut copy, limit)?;
        }
        self.check_left_out()
    }

    /// Refuses values that are not read, and without which the model would be another: a head of its own, and biases
    /// of a model that has none.
    pub(in crate::checkpoint) fn check_left_out(&self) -> Result<(), CheckpointError> {
        if !self.dims.bias {
            for param in &ParamLayout::new(&self.dims).params {
                self.check_bias_is_zero(param)?;
            }
        }
        self.check_head_is_tied()
    }

    /// Fills `range` of `to` with a parameter of this model, and what the file has no elements for with zeros.
    pub(in crate::checkpoint) fn load_tensor(
        &self,
        param: &ParamSpec,
        to: &mut dyn ValuesMut,
        range: Range<usize>,
        copy: &mut Vec<f32>,
        limit: Limit,
    ) -> Result<(), CheckpointError> {
        let expected = self.matrices.shape(param);
        // Opening has found every parameter.
        let Some((name, file)) = self.find(&param.name) else {
            return Ok(());
        };
        match expected[..] {
            [rows, cols] if param.role == ParamRole::Linear && self.matrices == Matrices::InOut => {
                file.read_transposed(name, [rows, cols], to, range, copy, limit)
            }
            _ => {
                let filled = range.start..range.end.min(range.start + param.len);
                file.pad(to, filled.end..range.end)?;
                file.read(name, to, filled, limit)
            }
        }
    }

    /// Refuses a head of its own. transformers computes with it, even where the config ties it to the embedding.
    fn check_head_is_tied(&self) -> Result<(), CheckpointError> {
        let Some([head, embedding]) = self.names.head_and_embedding() else {
            return Ok(());
        };
        let (head_file, embedding_file) = (&self.files[head.0], &self.files[embedding.0]);
        head_file.expect_shape(head.1, &[self.dims.vocab_size, self.dims.n_embd])?;
        let difference = head_file.first_difference(head.1, (embedding_file, embedding.1))?;
        difference.map_or(Ok(()), |at| {
            Err(ForeignError::UntiedHead {
                path: head_file.path.clone(),
                head: head.1.to_owned(),
                embedding: embedding.1.to_owned(),
                at,
            }
            .into())
        })
    }

    /// Refuses biases other than zero. A bias-free model that was trained on elsewhere has grown biases, and its config
    /// still says `taper.bias = false`; without them it would silently be another model.
    fn check_bias_is_zero(&self, weight: &ParamSpec) -> Result<(), CheckpointError> {
        let bias = huggingface::bias_owner(weight).map(|module| format!("{module}.bias"));
        let Some((name, file)) = bias.as_deref().and_then(|bias| self.find(bias)) else {
            return Ok(());
        };
        file.expect_shape(name, &weight.shape[..1])?;
        let mut values = vec![0.0; weight.shape[0]];
        file.read(name, &mut values, 0..weight.shape[0], Limit::NONE)?;
        if values.iter().all(|&value| value == 0.0) {
            return Ok(());
        }
        Err(CheckpointError::Tensor {
            path: file.path.clone(),
            name: name.to_owned(),
            found: "not zero".into(),
            expected: match self.matrices {
                Matrices::InOut => "zeros, because `config.json` says that `taper.bias` is false",
                Matrices::OutIn => "zeros, because the model says that it has no biases",
            }
            .into(),
        })
    }

    /// The name of a parameter in the files, and the file that holds it.
    fn find(&self, name: &str) -> Option<(&str, &TensorFile)> {
        let (file, name) = self.names.find(name)?;
        Some((name, &self.files[file]))
    }
}

/// Required likeness of a model to the stored one.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::checkpoint) enum Fit {
    Exact,
    /// A shorter `block_size` and a padded vocabulary are fine.
    CropOrPad,
}

/// Every key of `current` that a model of dims `stored` cannot satisfy.
pub(in crate::checkpoint) fn differences(
    stored: &ModelDims,
    current: &ModelDims,
    fit: Fit,
) -> Vec<Difference> {
    let loose = fit == Fit::CropOrPad;
    let block_fits =
        stored.block_size == current.block_size || loose && current.block_size < stored.block_size;
    let vocab_fits = stored.vocab_size == current.vocab_size
        || loose && current.vocab_size == stored.vocab_size.next_multiple_of(64);
    let gelu = |dims: &ModelDims| format!("{:?}", dims.gelu).to_lowercase();
    let number = |key, stored: usize, current: usize, fits| {
        (key, stored.to_string(), current.to_string(), fits)
    };
    let same = |key, stored, current| number(key, stored, current, stored == current);
    let keys = [
        same("n_layer", stored.n_layer, current.n_layer),
        same("n_head", stored.n_head, current.n_head),
        same("n_embd", stored.n_embd, current.n_embd),
        number(
            "block_size",
            stored.block_size,
            current.block_size,
            block_fits,
        ),
        number(
            "vocab_size",
            stored.vocab_size,
            current.vocab_size,
            vocab_fits,
        ),
        (
            "bias",
            stored.bias.to_string(),
            current.bias.to_string(),
            stored.bias == current.bias,
        ),
        (
            "gelu",
            gelu(stored),
            gelu(current),
            stored.gelu == current.gelu,
        ),
    ];
    let differing = keys.into_iter().filter(|(.., fits)| !fits);
    let described = differing.map(|(key, stored, current, _)| Difference {
        key: format!("model.{key}"),
        edit: format!("`--set model.{key}={stored}`"),
        stored: Some(stored),
        current: Some(current),
    });
    described.collect()
}
