//! Why a dataset cannot be used or made.

use std::path::{Path, PathBuf};

use crate::tokenizer::TokenizerError;

/// Why a dataset cannot be used or made. The files are named as the user would type them.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    // Token files.
    #[error("no token file: `{}` does not exist", path.display())]
    MissingFile { path: PathBuf, make: String },
    #[error("no token file matches `{pattern}`")]
    NoMatch { pattern: String },
    #[error("the token file `{}` is empty", path.display())]
    Empty { path: PathBuf },
    #[error(
        "the token file `{}` has {bytes} bytes, an odd number; u16 tokens take two bytes each",
        path.display()
    )]
    OddLength { path: PathBuf, bytes: u64 },
    #[error(
        "`{}` starts with a header whose magic number is {found}; expected llm.c's 20240520, \
         or nanoGPT's tokens without a header",
        path.display()
    )]
    WrongMagic { path: PathBuf, found: i32 },
    #[error(
        "`{}` is an llm.c shard of version {found}; expected version 1 (u16 tokens)",
        path.display()
    )]
    WrongVersion { path: PathBuf, found: i32 },
    #[error(
        "`{}` is truncated: its header promises {promised} tokens, {} of them are missing",
        path.display(), promised - found
    )]
    Truncated {
        path: PathBuf,
        promised: u64,
        found: u64,
    },
    #[error(
        "`{}` holds {found_bytes} bytes of tokens; its header promises {promised} tokens",
        path.display()
    )]
    WrongCount {
        path: PathBuf,
        promised: i64,
        found_bytes: u64,
    },
    #[error(
        "no file of `{source_name}` holds a window of {} tokens (block_size {block_size} + 1); \
         the longest has {longest} tokens",
        block_size + 1
    )]
    TooShort {
        source_name: String,
        longest: u64,
        block_size: usize,
    },
    #[error(
        "token {position} of `{}` is {id}; the vocabulary has {vocab_size} tokens, 0 to {}",
        path.display(), vocab_size - 1
    )]
    TokenOutOfRange {
        path: PathBuf,
        position: u64,
        id: u16,
        vocab_size: usize,
    },
    #[error("cannot read the vocabulary in `{}`: {why}", path.display())]
    Vocabulary { path: PathBuf, why: String },
    #[error(
        "`{}` was written for {promised} train and val tokens, but the files hold {found}",
        path.display()
    )]
    MixedDataset {
        path: PathBuf,
        promised: u64,
        found: u64,
    },

    // Sources of `prepare`.
    #[error("`{}` is not a regular file; `prepare` reads its input twice", path.display())]
    NotAFile { path: PathBuf },
    #[error("`{}` is not UTF-8 text: byte {offset} begins no character", path.display())]
    InvalidUtf8 { path: PathBuf, offset: u64 },
    #[error("`{}` has no line break or space in {bytes} bytes", path.display())]
    Unbroken { path: PathBuf, bytes: u64 },
    #[error("{}:{line}: not a JSON object", path.display())]
    BadJson {
        path: PathBuf,
        line: u64,
        source: serde_json::Error,
    },
    #[error("{}:{line}: no text in the field `{field}`", path.display())]
    MissingField {
        path: PathBuf,
        line: u64,
        field: String,
    },
    #[error("the input holds no text: {input}")]
    NoText { input: String },
    #[error("one document cannot be divided between train and val")]
    OneDocument,
    #[error("the {split} split is empty: {tokens} tokens are too few to divide")]
    EmptySplit { split: &'static str, tokens: u64 },
    #[error("`{}` changed while it was read: {first} bytes, then {second}", path.display())]
    Changed {
        path: PathBuf,
        first: u64,
        second: u64,
    },
    #[error("`{}` is not the text of `{dataset}`: sha256 {found}, expected {expected}", path.display())]
    WrongChecksum {
        path: PathBuf,
        dataset: &'static str,
        found: String,
        expected: &'static str,
    },
    #[error("cannot download `{url}`")]
    Download {
        url: &'static str,
        dataset: &'static str,
        source: Box<ureq::Error>,
    },
    #[error("another `taper prepare` is writing to `{}`", folder.display())]
    Busy { folder: PathBuf },
    #[error("interrupted; nothing was changed in `{}`", folder.display())]
    Interrupted { folder: PathBuf },

    #[error("cannot {action} `{}`", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}", place.as_ref().map_or("cannot tokenise the text".into(), |p| format!("cannot tokenise `{}`", p.display())))]
    Tokenizer {
        place: Option<PathBuf>,
        source: TokenizerError,
    },
}
