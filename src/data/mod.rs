//! Token files, the sample order, and `prepare`.
//!
//! A dataset is two splits of u16 tokens and the vocabulary they were made with. It is opened from
//! files that stay on disk and are read window by window, or, for `quickstart`, made from text in
//! the binary.

mod error;
pub mod order;
pub mod prepare;
mod tokens;
mod vocabulary;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use error::DataError;
pub use order::Split;
pub use tokens::SplitTokens;

use crate::config::DataConfig;
use crate::terms::Choice;
use crate::tokenizer::{MAX_VOCAB_SIZE, Tokenizer};

/// taper's own source: a corpus that needs no network and no file. Made by build.rs.
pub const QUICKSTART_CORPUS: &str = include_str!(concat!(env!("OUT_DIR"), "/quickstart.txt"));

/// Two splits and their vocabulary.
#[derive(Debug)]
pub struct Dataset {
    pub train: SplitTokens,
    pub val: SplitTokens,
    /// Absent if only the size of the vocabulary is known.
    pub tokenizer: Option<Tokenizer>,
    pub info: DatasetInfo,
}

/// Facts of a dataset that the plan needs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DatasetInfo {
    /// Name in the config.
    pub name: String,
    /// The number of token ids, and the file that tells it.
    pub vocab_size: Choice<usize>,
    pub train_tokens: u64,
    pub val_tokens: u64,
}

impl Dataset {
    /// Opens the dataset of a config: `data_dir/dataset/{train,val}.bin`, or the files named
    /// instead, or `quickstart`.
    pub fn open(config: &DataConfig) -> Result<Dataset, DataError> {
        if config.dataset == "quickstart" && config.train_bin.is_none() && config.val_bin.is_none()
        {
            return quickstart();
        }
        let open = |split: Split, named: &Option<String>| {
            let folder = config.data_dir.join(&config.dataset);
            let default = folder.join(format!("{}.bin", split.name()));
            let pattern = named.as_ref().map_or(default, PathBuf::from);
            let paths = find_files(split, &pattern, &config.dataset)?;
            SplitTokens::open(split.name(), paths)
        };
        let train = open(Split::Train, &config.train_bin)?;
        let val = open(Split::Val, &config.val_bin)?;
        let folder = train.paths().next().and_then(Path::parent);
        let vocabulary = vocabulary::find(folder.unwrap_or(Path::new("")), &train, &val)?;
        Ok(Dataset {
            info: DatasetInfo {
                name: config.dataset.clone(),
                vocab_size: vocabulary.size,
                train_tokens: train.len(),
                val_tokens: val.len(),
            },
            tokenizer: vocabulary.tokenizer,
            train,
            val,
        })
    }

    /// Checks a model's needs of both splits: a window of `block_size` + 1 tokens fits, and every id
    /// is below `vocab_size` (see [`SplitTokens::check_vocab`]).
    pub fn require(&mut self, block_size: usize, vocab_size: usize) -> Result<(), DataError> {
        for tokens in [&mut self.train, &mut self.val] {
            tokens.require(block_size)?;
            tokens.check_vocab(vocab_size)?;
        }
        Ok(())
    }

    pub fn split(&self, split: Split) -> &SplitTokens {
        match split {
            Split::Train => &self.train,
            Split::Val => &self.val,
        }
    }
}

/// The embedded corpus at character level: its first nine tenths to train, the rest to evaluate.
fn quickstart() -> Result<Dataset, DataError> {
    let characters: BTreeSet<char> = QUICKSTART_CORPUS.chars().collect();
    let tokenizer = Tokenizer::char(&Vec::from_iter(characters))?;
    let ids = tokenizer.encode(QUICKSTART_CORPUS)?;
    let (train, val) = ids.split_at(ids.len() / 10 * 9);
    let name = "quickstart (embedded)";
    Ok(Dataset {
        info: DatasetInfo {
            name: "quickstart".into(),
            vocab_size: Choice {
                value: tokenizer.vocab_size(),
                because: "the distinct characters of the embedded corpus".into(),
            },
            train_tokens: train.len() as u64,
            val_tokens: val.len() as u64,
        },
        train: SplitTokens::in_memory(Split::Train.name(), name, train),
        val: SplitTokens::in_memory(Split::Val.name(), name, val),
        tokenizer: Some(tokenizer),
    })
}

/// The file at `pattern`, or the files that match a `*` in its file name, sorted by name.
fn find_files(split: Split, pattern: &Path, dataset: &str) -> Result<Vec<PathBuf>, DataError> {
    let name = pattern.file_name().and_then(|name| name.to_str());
    let Some(name) = name.filter(|name| name.contains('*')) else {
        if pattern.is_file() {
            return Ok(vec![pattern.to_owned()]);
        }
        return Err(DataError::Missing {
            split: split.name(),
            path: pattern.to_owned(),
            dataset: dataset.to_owned(),
        });
    };
    let folder = match pattern.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .filter(|e| {
            e.file_name()
                .to_str()
                .is_some_and(|found| matches(name, found))
        })
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    if paths.is_empty() {
        return Err(DataError::NoMatch {
            split: split.name(),
            pattern: pattern.to_owned(),
        });
    }
    Ok(paths)
}

/// True if `name` is `pattern` with every `*` replaced by some text.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(tail) = name.strip_prefix(start) else {
        return false;
    };
    let mut tails = tail.char_indices().map(|(i, _)| &tail[i..]).chain([""]);
    tails.any(|tail| matches(rest, tail))
}
