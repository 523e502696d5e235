//! Token files, the sample order, and `prepare`.
//!
//! A dataset is two splits of u16 tokens and the vocabulary they were made with. It is opened from
//! files that stay on disk and are read window by window, or, for `quickstart`, made from text in
//! the binary.

mod error;
mod find;
mod identity;
mod known;
mod layout;
mod numbers;
pub mod order;
mod pickle;
pub mod prepare;
mod tokens;
mod vocabulary;
mod warning;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use error::DataError;
pub use identity::{DatasetIdentity, SplitIdentity};
pub use known::{KNOWN, KnownDataset, KnownOrigin};
pub use order::Split;
pub use tokens::{OpenedTokens, SplitTokens, open_tokens};
pub use vocabulary::tokenizer_of_meta_pickle;
pub use warning::DataWarning;

use find::find_files;

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
    pub identity: DatasetIdentity,
    /// Oddities that do not stop a run; to be shown.
    pub warnings: Vec<DataWarning>,
}

/// Facts of a dataset that the plan needs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DatasetInfo {
    /// Name in the config; of token files named by path, the last folder and the file's name.
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
        let mut warnings = Vec::new();
        let mut open = |split: Split, named: &Option<String>| {
            let folder = config.data_dir.join(&config.dataset);
            let default = folder.join(format!("{}.bin", split.name()));
            let pattern = named.as_ref().map_or(default, PathBuf::from);
            let paths = find_files(split, &pattern, &config.dataset, &mut warnings)?;
            SplitTokens::open(split.name(), paths)
        };
        let train = open(Split::Train, &config.train_bin)?;
        let val = open(Split::Val, &config.val_bin)?;
        let vocabulary = vocabulary::find(&train, &val, &mut warnings)?;
        if !vocabulary.counted {
            train.check_numbers(&mut warnings)?;
            val.check_numbers(&mut warnings)?;
        }
        let tokenizer = vocabulary.tokenizer;
        Ok(Dataset {
            info: DatasetInfo {
                name: name(config),
                vocab_size: vocabulary.size,
                train_tokens: train.len(),
                val_tokens: val.len(),
            },
            identity: DatasetIdentity::of(&train, &val, tokenizer.as_ref(), &mut warnings)?,
            tokenizer,
            train,
            val,
            warnings,
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

/// The name in the config, or of token files named by path, the last folder and the file's name.
fn name(config: &DataConfig) -> String {
    let Some(train) = config.train_bin.as_ref().map(Path::new) else {
        return config.dataset.clone();
    };
    let folder = train.parent().and_then(Path::file_name);
    let (folder, file) = (folder.map(Path::new), train.file_name().unwrap_or_default());
    folder
        .unwrap_or(Path::new(""))
        .join(file)
        .display()
        .to_string()
}

/// The embedded corpus at character level: its first nine tenths to train, the rest to evaluate.
fn quickstart() -> Result<Dataset, DataError> {
    let characters: BTreeSet<char> = QUICKSTART_CORPUS.chars().collect();
    let tokenizer = Tokenizer::char(&Vec::from_iter(characters))?;
    let ids = tokenizer.encode(QUICKSTART_CORPUS)?;
    let (train, val) = ids.split_at(ids.len() / 10 * 9);
    let name = "quickstart (embedded)";
    let train = SplitTokens::in_memory(Split::Train.name(), name, train);
    let val = SplitTokens::in_memory(Split::Val.name(), name, val);
    let mut warnings = Vec::new();
    Ok(Dataset {
        info: DatasetInfo {
            name: "quickstart".into(),
            vocab_size: Choice {
                value: tokenizer.vocab_size(),
                because: "the distinct characters of the embedded corpus".into(),
            },
            train_tokens: train.len(),
            val_tokens: val.len(),
        },
        identity: DatasetIdentity::of(&train, &val, Some(&tokenizer), &mut warnings)?,
        train,
        val,
        tokenizer: Some(tokenizer),
        warnings,
    })
}
