//! The vocabulary of token files, from files that `prepare` or nanoGPT wrote beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::pickle::{self, Value};
use super::{DataError, DataWarning, SplitTokens};
use crate::terms::Choice;
use crate::tokenizer::{MAX_VOCAB_SIZE, Tokenizer, TokenizerKind};

/// `meta.json`, which `prepare` writes last: with it a dataset is complete.
///
/// Format 1 had no `format`, checksums, `field` and `origin`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Meta {
    #[serde(default = "first_format")]
    pub format: u32,
    pub tokenizer: TokenizerKind,
    pub vocab_size: usize,
    pub train_tokens: u64,
    pub val_tokens: u64,
    /// Checksum of `train.bin`, in lower-case hex.
    #[serde(default)]
    pub train_sha256: Option<String>,
    /// Checksum of `val.bin`, in lower-case hex.
    #[serde(default)]
    pub val_sha256: Option<String>,
    pub documents: u64,
    pub val_fraction: f64,
    /// The field of JSON lines, or the column of tables, that held the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    pub sources: Vec<SourceMeta>,
}

/// The format of `meta.json` that is written.
pub(super) const META_FORMAT: u32 = 2;

fn first_format() -> u32 {
    1
}

/// The dataset of a hub that files were downloaded from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Such as `HuggingFaceFW/fineweb-edu`.
    pub repository: String,
    /// The commit.
    pub revision: String,
    pub subset: Option<String>,
    pub split: String,
}

/// One input of `prepare`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SourceMeta {
    pub path: String,
    pub bytes: u64,
    pub sha256: String,
}

pub(super) const META_FILE: &str = "meta.json";
const TOKENIZER_FILE: &str = "tokenizer.json";
const META_PICKLE: &str = "meta.pkl";

/// Longest `meta.json` and `meta.pkl` that are read. A pickle of 65,536 characters takes 2.3 MB.
const LONGEST_META_BYTES: u64 = 16 << 20;

/// The vocabulary that token files were made with.
pub(super) struct DatasetVocabulary {
    pub size: Choice<usize>,
    pub tokenizer: Option<Tokenizer>,
    /// Whether `prepare`'s `meta.json` counts exactly these tokens.
    pub counted: bool,
}

/// The vocabulary in the folder of the train split. With none there the tokens are taken for GPT-2's, as nanoGPT does.
///
/// # Errors
/// When it cannot be read, or the val split lies in another folder with another vocabulary.
pub(super) fn find(
    train: &SplitTokens,
    val: &SplitTokens,
    warnings: &mut Vec<DataWarning>,
) -> Result<DatasetVocabulary, DataError> {
    let train_folder = train.folder();
    let found = match beside(train_folder, train, val, warnings)? {
        Some(found) => found,
        None => DatasetVocabulary::of(
            Tokenizer::gpt2()?,
            "GPT-2's: no meta.json, tokenizer.json or meta.pkl beside the tokens".into(),
        ),
    };
    let val_folder = val.folder();
    if val_folder != train_folder
        && let Some(other) = beside(val_folder, train, val, &mut Vec::new())?
        && !found.agrees_with(&other)
    {
        return Err(DataError::TwoVocabularies {
            train: (train_folder.to_owned(), found.size.value),
            val: (val_folder.to_owned(), other.size.value),
        });
    }
    Ok(found)
}

/// The vocabulary in `folder`: of taper's `meta.json`, a `tokenizer.json`, or nanoGPT's `meta.pkl`.
fn beside(
    folder: &Path,
    train: &SplitTokens,
    val: &SplitTokens,
    warnings: &mut Vec<DataWarning>,
) -> Result<Option<DatasetVocabulary>, DataError> {
    let path = |name| Some(folder.join(name)).filter(|path: &PathBuf| path.exists());
    let meta_pkl = path(META_PICKLE);
    let (used, found) = if let Some(meta_json) = path(META_FILE) {
        let mut files = train.paths().chain(val.paths());
        let belongs = files.all(|path| path.parent() == Some(folder));
        let counts = belongs.then_some([train.len(), val.len()]);
        let found = read_meta(folder, &meta_json, counts)?;
        (meta_json, found)
    } else if let Some(tokenizer_json) = path(TOKENIZER_FILE) {
        let because = format!("`{}`", tokenizer_json.display());
        let found = DatasetVocabulary::of(Tokenizer::load(folder)?, because);
        (tokenizer_json, found)
    } else if let Some(meta_pkl) = meta_pkl {
        let found = read_pickle(&meta_pkl)?;
        if found.tokenizer.is_none() {
            warnings.push(DataWarning::NoTokenizer { path: meta_pkl });
        }
        return Ok(Some(found));
    } else {
        return Ok(None);
    };
    // One that cannot be read was not going to be used either.
    if let Some(ignored) = meta_pkl
        && read_pickle(&ignored).is_ok_and(|other| !found.agrees_with(&other))
    {
        warnings.push(DataWarning::TwoVocabularies { used, ignored });
    }
    Ok(Some(found))
}

/// The tokenizer in the folder of a token file that is looked at by itself, if there is one.
///
/// # Errors
/// When it cannot be read.
pub(super) fn of_folder(folder: &Path) -> Result<Option<Tokenizer>, DataError> {
    let path = |name| Some(folder.join(name)).filter(|path: &PathBuf| path.exists());
    if let Some(meta_json) = path(META_FILE) {
        Ok(read_meta(folder, &meta_json, None)?.tokenizer)
    } else if path(TOKENIZER_FILE).is_some() {
        Ok(Some(Tokenizer::load(folder)?))
    } else if let Some(meta_pkl) = path(META_PICKLE) {
        Ok(read_pickle(&meta_pkl)?.tokenizer)
    } else {
        Ok(None)
    }
}

impl DatasetVocabulary {
    fn of(tokenizer: Tokenizer, because: String) -> Self {
        Self {
            size: Choice {
                value: tokenizer.vocab_size(),
                because,
            },
            tokenizer: Some(tokenizer),
            counted: false,
        }
    }

    /// Whether an id means the same in both, as far as that is known.
    fn agrees_with(&self, other: &Self) -> bool {
        match (&self.tokenizer, &other.tokenizer) {
            (Some(a), Some(b)) => a.is_same_as(b),
            _ => self.size.value == other.size.value,
        }
    }
}

/// The text or bytes of a file beside the tokens, read up to the longest that makes sense.
fn read_short(path: &Path) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(DataError::io("open", path))?;
    let mut file = file.take(LONGEST_META_BYTES + 1);
    file.read_to_end(&mut bytes)
        .map_err(DataError::io("read", path))?;
    if bytes.len() as u64 > LONGEST_META_BYTES {
        return Err(unreadable(path, "it is longer than 16 MiB".into()));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, why: String) -> DataError {
    DataError::Vocabulary {
        path: path.to_owned(),
        why,
    }
}

fn read_meta(
    folder: &Path,
    path: &Path,
    found: Option<[u64; 2]>,
) -> Result<DatasetVocabulary, DataError> {
    let meta: Meta = serde_json::from_slice(&read_short(path)?)
        .map_err(|error| unreadable(path, error.to_string()))?;
    let promised = [meta.train_tokens, meta.val_tokens];
    if let Some(found) = found.filter(|found| *found != promised) {
        return Err(DataError::Mixed {
            path: path.to_owned(),
            promised,
            found,
        });
    }
    let tokenizer = match meta.tokenizer {
        TokenizerKind::Gpt2 => Tokenizer::gpt2()?,
        TokenizerKind::Char => Tokenizer::load(folder)?,
    };
    let size = tokenizer.vocab_size();
    if size != meta.vocab_size {
        let why = format!(
            "its vocab_size is {}, the tokenizer beside it has {size} tokens",
            meta.vocab_size
        );
        return Err(unreadable(path, why));
    }
    Ok(DatasetVocabulary {
        counted: found.is_some(),
        ..DatasetVocabulary::of(tokenizer, format!("`{}`", path.display()))
    })
}

/// The characters of nanoGPT's `meta.pkl`; `None` if it says only how many there are.
///
/// # Errors
/// When it cannot be read, or is another pickle.
pub fn tokenizer_of_meta_pickle(path: &Path) -> Result<Option<Tokenizer>, DataError> {
    Ok(read_pickle(path)?.tokenizer)
}

/// nanoGPT's `meta.pkl`: `vocab_size`, `itos` (id to character) and `stoi`.
fn read_pickle(path: &Path) -> Result<DatasetVocabulary, DataError> {
    let fail = |why: String| unreadable(path, why);
    let meta = pickle::read(&read_short(path)?).map_err(|why| {
        fail(format!(
            "not nanoGPT's pickle of `vocab_size` and `itos`: {why}"
        ))
    })?;
    let Some(&Value::Int(vocab_size)) = meta.get("vocab_size") else {
        return Err(fail(
            "not nanoGPT's pickle of `vocab_size` and `itos`: it holds no number `vocab_size`"
                .into(),
        ));
    };
    let value = usize::try_from(vocab_size).ok();
    let value = value.filter(|size| (1..=MAX_VOCAB_SIZE).contains(size));
    let Some(value) = value else {
        return Err(fail(format!(
            "vocab_size is {vocab_size}; expected 1 to {MAX_VOCAB_SIZE}"
        )));
    };
    let because = format!("nanoGPT's `{}`", path.display());
    let Some(itos) = meta.get("itos") else {
        return Ok(DatasetVocabulary {
            size: Choice { value, because },
            tokenizer: None,
            counted: false,
        });
    };
    let characters = characters(itos).filter(|characters| characters.len() == value);
    let characters = characters.ok_or_else(|| {
        fail(format!(
            "`itos` does not give a character of its own to each of the ids 0 to {}",
            value - 1
        ))
    })?;
    Ok(DatasetVocabulary::of(
        Tokenizer::char(&characters)?,
        because,
    ))
}

/// The characters of ids from 0 on; `None` if an id has none of its own.
fn characters(itos: &Value) -> Option<Vec<char>> {
    let Value::Dict(items) = itos else {
        return None;
    };
    let mut by_id = BTreeMap::new();
    for (id, text) in items {
        let (Value::Int(id), Value::Text(text)) = (id, text) else {
            return None;
        };
        let mut characters = text.chars();
        let character = characters.next()?;
        if characters.next().is_some() {
            return None;
        }
        by_id.insert(*id, character);
    }
    let gapless = (0..).zip(by_id.keys()).all(|(n, &id)| n == id);
    let different: BTreeSet<&char> = by_id.values().collect();
    let good = gapless && different.len() == by_id.len();
    good.then(|| by_id.into_values().collect())
}
