//! Probes of the folders that a run reads from and writes to; they leave no trace.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::config::{CheckpointConfig, Config, DataConfig};
use crate::data::Dataset;
use crate::model::ParamLayout;
use crate::terms::{ModelDims, free_bytes, nearest_existing};

/// GPT-2's vocabulary as nanoGPT pads it, for a dataset that is not there to ask.
const GPT2_ROWS: usize = 50_304;

/// The folder of token files.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DataFolder {
    #[serde(serialize_with = "path_as_text")]
    pub folder: PathBuf,
    /// Free space of the file system, for more datasets.
    pub free_bytes: Option<u64>,
    pub contents: DataContents,
}

/// Contents of a data folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum DataContents {
    /// Datasets that are there; no config selects one.
    Listed { datasets: Vec<String> },
    /// The dataset is in the binary.
    Embedded,
    Ready {
        dataset: String,
        train_tokens: u64,
        val_tokens: u64,
    },
    Unusable {
        dataset: String,
        reason: String,
        suggestion: String,
    },
}

/// The folder that checkpoints are written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckpointFolder {
    #[serde(serialize_with = "path_as_text")]
    pub folder: PathBuf,
    /// Free space of the file system.
    pub free_bytes: Option<u64>,
    /// Reason that nothing can be written there, if there is one.
    pub obstacle: Option<String>,
    /// Size of the checkpoints in it now.
    pub held_bytes: u64,
    /// Size of one checkpoint of the config's model: weights and two moments in fp32.
    pub checkpoint_bytes: Option<u64>,
    /// Most checkpoints that exist at a time, which is while one is being written.
    pub at_most: u64,
}

impl DataFolder {
    pub(super) fn probe(config: Option<&Config>) -> Self {
        let defaults = DataConfig::default();
        let data = config.map_or(&defaults, |config| &config.data);
        let folder = data.data_dir.clone();
        let contents = match config {
            None => DataContents::Listed {
                datasets: datasets(&folder),
            },
            Some(_) if is_embedded(data) => DataContents::Embedded,
            Some(_) => open(data),
        };
        Self {
            free_bytes: free_bytes(&folder),
            folder,
            contents,
        }
    }
}

fn is_embedded(data: &DataConfig) -> bool {
    data.dataset == "quickstart" && data.train_bin.is_none() && data.val_bin.is_none()
}

fn open(data: &DataConfig) -> DataContents {
    let dataset = data.dataset.clone();
    match Dataset::open(data) {
        Ok(opened) => DataContents::Ready {
            dataset,
            train_tokens: opened.info.train_tokens,
            val_tokens: opened.info.val_tokens,
        },
        Err(error) => DataContents::Unusable {
            dataset,
            reason: with_causes(&error),
            suggestion: error
                .hint()
                .unwrap_or_else(|| "check the path and the permissions of its files".into()),
        },
    }
}

/// Names of the folders with both splits, sorted.
fn datasets(folder: &Path) -> Vec<String> {
    let complete = |path: &Path| {
        ["train.bin", "val.bin"]
            .iter()
            .all(|f| path.join(f).is_file())
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| complete(&entry.path()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        // Hidden ones are being prepared.
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    names
}

impl CheckpointFolder {
    pub(super) fn probe(config: Option<&Config>) -> Self {
        let defaults = CheckpointConfig::default();
        let checkpoint = config.map_or(&defaults, |config| &config.checkpoint);
        let folder = checkpoint.out_dir.clone();
        Self {
            free_bytes: free_bytes(&folder),
            obstacle: obstacle(&folder),
            held_bytes: held_bytes(&folder),
            checkpoint_bytes: config.and_then(checkpoint_bytes),
            // The newest ones, the best one, and the one being written.
            at_most: (checkpoint.keep as u64).saturating_add(2),
            folder,
        }
    }
}

/// Size of one checkpoint: 3 x 4 bytes per parameter. `None` for sizes that are no model's.
fn checkpoint_bytes(config: &Config) -> Option<u64> {
    let model = &config.model;
    let rows = match model.vocab_size {
        Some(rows) => rows,
        // Padded as far as a plan would pad it at most.
        None => Dataset::open(&config.data).map_or(GPT2_ROWS, |dataset| {
            dataset.info.vocab_size.value.next_multiple_of(64)
        }),
    };
    let largest = rows.max(model.n_embd).max(model.block_size);
    if largest > 1 << 24 {
        return None;
    }
    let parameters = |n_layer| {
        let dims = ModelDims {
            n_layer,
            n_head: model.n_head,
            n_embd: model.n_embd,
            block_size: model.block_size,
            vocab_size: rows,
            bias: model.bias,
            dropout: model.dropout,
            gelu: model.gelu,
        };
        ParamLayout::new(&dims).len as u64
    };
    let (none, one) = (parameters(0), parameters(1));
    let layers = (one - none).checked_mul(model.n_layer as u64)?;
    layers.checked_add(none)?.checked_mul(12)
}

/// Tries to write to the folder, or to the one that it would be made in; the reason of a failure.
fn obstacle(folder: &Path) -> Option<String> {
    let existing = nearest_existing(folder);
    if existing.exists() && !existing.is_dir() {
        return Some(format!("`{}` is a file", existing.display()));
    }
    let attempt = tempfile::tempfile_in(existing);
    attempt.err().map(|error| describe(&error))
}

/// The message without Rust's wrapping: `Permission denied (os error 13)`.
fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code).to_string(),
        None => error.to_string(),
    }
}

/// Size of the checkpoints in a run's folder, which the next ones replace.
fn held_bytes(folder: &Path) -> u64 {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    entries(folder)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("ckpt-"))
        .flat_map(|checkpoint| entries(&checkpoint.path()).collect::<Vec<_>>())
        .filter_map(|file| file.metadata().ok())
        .fold(0, |sum: u64, file| sum.saturating_add(file.len()))
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text += &format!(": {inner}");
        cause = inner.source();
    }
    text
}

fn path_as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}
