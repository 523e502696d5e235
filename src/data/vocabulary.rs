//! The vocabulary of token files, from files that `prepare` or nanoGPT wrote beside them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{DataError, SplitTokens};
use crate::terms::Choice;
use crate::tokenizer::{MAX_VOCAB_SIZE, Tokenizer, TokenizerKind};

/// `meta.json`, which `prepare` writes last: with it a dataset is complete.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Meta {
    pub tokenizer: TokenizerKind,
    pub vocab_size: usize,
    pub train_tokens: u64,
    pub val_tokens: u64,
    pub documents: u64,
    pub val_fraction: f64,
    pub sources: Vec<SourceMeta>,
}

/// One input of `prepare`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SourceMeta {
    pub path: String,
    pub bytes: u64,
    pub sha256: String,
}

pub(super) const META_FILE: &str = "meta.json";

/// The vocabulary that token files were made with.
pub(super) struct DatasetVocabulary {
    pub size: Choice<usize>,
    pub tokenizer: Option<Tokenizer>,
}

/// Looks in `folder` for taper's `meta.json`, a `tokenizer.json`, nanoGPT's `meta.pkl`; with none
/// of them the tokens are taken for GPT-2's, as nanoGPT does.
pub(super) fn find(
    folder: &Path,
    train: &SplitTokens,
    val: &SplitTokens,
) -> Result<DatasetVocabulary, DataError> {
    let meta_json = folder.join(META_FILE);
    let tokenizer_json = folder.join("tokenizer.json");
    let meta_pkl = folder.join("meta.pkl");
    let (tokenizer, because) = if meta_json.exists() {
        let belongs = train
            .paths()
            .chain(val.paths())
            .all(|path| path.parent() == Some(folder));
        let meta = read_meta(&meta_json, belongs.then_some([train.len(), val.len()]))?;
        let tokenizer = match meta.tokenizer {
            TokenizerKind::Gpt2 => Tokenizer::gpt2()?,
            TokenizerKind::Char => Tokenizer::load(folder)?,
        };
        (tokenizer, format!("`{}`", meta_json.display()))
    } else if tokenizer_json.exists() {
        (
            Tokenizer::load(folder)?,
            format!("`{}`", tokenizer_json.display()),
        )
    } else if meta_pkl.exists() {
        match read_pickle(&meta_pkl)? {
            (_, Some(tokenizer)) => (tokenizer, format!("nanoGPT's `{}`", meta_pkl.display())),
            (value, None) => {
                let because = format!("nanoGPT's `{}`", meta_pkl.display());
                let size = Choice { value, because };
                return Ok(DatasetVocabulary {
                    size,
                    tokenizer: None,
                });
            }
        }
    } else {
        (
            Tokenizer::gpt2()?,
            "GPT-2's: no meta.json, tokenizer.json or meta.pkl beside the tokens".into(),
        )
    };
    Ok(DatasetVocabulary {
        size: Choice {
            value: tokenizer.vocab_size(),
            because,
        },
        tokenizer: Some(tokenizer),
    })
}

fn read_meta(path: &Path, found: Option<[u64; 2]>) -> Result<Meta, DataError> {
    let text = std::fs::read_to_string(path).map_err(DataError::io("read", path))?;
    let meta: Meta = serde_json::from_str(&text).map_err(|e| DataError::Vocabulary {
        path: path.to_owned(),
        why: e.to_string(),
    })?;
    let promised = [meta.train_tokens, meta.val_tokens];
    match found {
        Some(found) if found != promised => Err(DataError::Mixed {
            path: path.to_owned(),
            promised,
            found,
        }),
        _ => Ok(meta),
    }
}

/// nanoGPT's `meta.pkl`: `vocab_size`, `itos` (id to character) and `stoi`.
fn read_pickle(path: &Path) -> Result<(usize, Option<Tokenizer>), DataError> {
    #[derive(Deserialize)]
    struct MetaPickle {
        vocab_size: usize,
        itos: Option<BTreeMap<usize, String>>,
    }
    let fail = |why: String| DataError::Vocabulary {
        path: path.to_owned(),
        why,
    };
    let bytes = std::fs::read(path).map_err(DataError::io("read", path))?;
    let meta: MetaPickle = serde_pickle::from_slice(&bytes, serde_pickle::DeOptions::new())
        .map_err(|e| {
            fail(format!(
                "not nanoGPT's pickle of `vocab_size` and `itos` ({e})"
            ))
        })?;
    if !(1..=MAX_VOCAB_SIZE).contains(&meta.vocab_size) {
        return Err(fail(format!(
            "vocab_size is {}; expected 1 to {MAX_VOCAB_SIZE}",
            meta.vocab_size
        )));
    }
    let Some(itos) = meta.itos else {
        return Ok((meta.vocab_size, None));
    };
    let in_order = itos
        .iter()
        .enumerate()
        .all(|(n, (&id, token))| n == id && token.chars().count() == 1);
    if !in_order || itos.len() != meta.vocab_size {
        return Err(fail(format!(
            "`itos` does not give one character to each of the ids 0 to {}",
            meta.vocab_size - 1
        )));
    }
    let characters: Vec<char> = itos.values().flat_map(|token| token.chars()).collect();
    Ok((meta.vocab_size, Some(Tokenizer::char(&characters)?)))
}
