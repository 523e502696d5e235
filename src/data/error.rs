//! Failures to open and to read a dataset.

use std::io;
use std::path::{Path, PathBuf};

use super::known::make_dataset;
use super::numbers::Numbers;
use crate::tokenizer::{MAX_VOCAB_SIZE, TokenizerError};

/// EMFILE on Linux, macOS and the BSDs: the process has as many open files as it may.
const TOO_MANY_OPEN_FILES: i32 = 24;

/// A dataset that cannot be used. Files are named as the user would type them.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("the {split} split is missing: `{}` does not exist", path.display())]
    Missing {
        split: &'static str,
        path: PathBuf,
        dataset: String,
    },
    #[error("the {split} split is missing: no file matches `{}`{why}", pattern.display())]
    NoMatch {
        split: &'static str,
        pattern: PathBuf,
        /// The cause in brackets, where more is known.
        why: String,
    },
    #[error(
        "the {split} split is missing: `{}` is {}", path.display(),
        if *is_folder { "a folder" } else { "no regular file" }
    )]
    NotAFile {
        split: &'static str,
        path: PathBuf,
        is_folder: bool,
    },
    #[error("`{}` holds no u16 tokens: it seems to be {seems}", path.display())]
    NotTokens {
        path: PathBuf,
        seems: String,
        hint: String,
    },
    #[error("the token file `{}` is empty", path.display())]
    Empty { path: PathBuf },
    #[error(
        "the token file `{}` has {bytes} bytes, an odd number; expected 2 bytes (u16) per token",
        path.display()
    )]
    OddLength { path: PathBuf, bytes: u64 },
    #[error(
        "`{}` starts with a header of magic number {found}; expected llm.c's 20240520, or \
         nanoGPT's u16 tokens without a header",
        path.display()
    )]
    WrongMagic { path: PathBuf, found: i32 },
    #[error(
        "`{}` is an llm.c shard of version {found}; expected version 1 (u16 tokens)",
        path.display()
    )]
    WrongVersion { path: PathBuf, found: i32 },
    #[error(
        "the llm.c shard `{}` is truncated: it has {bytes} bytes, its header alone takes 1024",
        path.display()
    )]
    ShortHeader { path: PathBuf, bytes: u64 },
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
        "`{}` holds {found_bytes} bytes after its header, which promises {promised} tokens of 2 bytes",
        path.display()
    )]
    WrongCount {
        path: PathBuf,
        promised: i32,
        found_bytes: u64,
    },
    #[error(
        "the {split} split is too short: `{}` has {longest} tokens, a window takes {} \
         (block_size {block_size} + 1)",
        path.display(), block_size + 1
    )]
    TooShort {
        split: &'static str,
        /// The longest file of the split.
        path: PathBuf,
        longest: u64,
        block_size: usize,
    },
    #[error(
        "token {position} of `{}` is {id}; the vocabulary has {vocab_size} tokens (0 to {})",
        path.display(), vocab_size.saturating_sub(1)
    )]
    TokenOutOfRange {
        path: PathBuf,
        position: u64,
        id: u16,
        vocab_size: usize,
    },
    #[error(
        "cannot read the token file `{}` any more: expected {bytes} bytes at offset {offset}",
        path.display()
    )]
    Unreadable {
        path: PathBuf,
        offset: u64,
        bytes: usize,
        source: io::Error,
    },
    #[error("cannot read the vocabulary in `{}`: {why}", path.display())]
    Vocabulary { path: PathBuf, why: String },
    #[error(
        "`{}` belongs to {} train and {} val tokens; the files beside it hold {} and {}",
        path.display(), promised[0], promised[1], found[0], found[1]
    )]
    Mixed {
        path: PathBuf,
        promised: [u64; 2],
        found: [u64; 2],
    },
    #[error(
        "the splits have two vocabularies: `{}` tells {} tokens, `{}` tells {}{}",
        train.0.display(), train.1, val.0.display(), val.1,
        if train.1 == val.1 { " others" } else { "" }
    )]
    TwoVocabularies {
        /// Folder of the train split, and its number of tokens.
        train: (PathBuf, usize),
        val: (PathBuf, usize),
    },
    #[error("cannot {action} `{}`", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

impl DataError {
    /// For `map_err`: names the file and the operation.
    pub(super) fn io(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> DataError + use<> {
        let path = path.to_owned();
        move |source| DataError::Io {
            action,
            path,
            source,
        }
    }

    /// A file of other numbers than u16 tokens; `bytes` is a sample.
    pub(super) fn numbers(path: &Path, numbers: Numbers, bytes: &[u8]) -> DataError {
        let highest = numbers.highest(bytes);
        DataError::NotTokens {
            path: path.to_owned(),
            seems: numbers.words().into(),
            hint: if highest < MAX_VOCAB_SIZE as u64 {
                format!(
                    "convert it in Python, and put the new file in its place: `{}`",
                    numbers.conversion(path)
                )
            } else {
                format!(
                    "its ids go up to {highest}, and no vocabulary of more than {MAX_VOCAB_SIZE} tokens fits: \
                     make the tokens with GPT-2's, by `taper prepare`"
                )
            },
        }
    }

    /// A token file that was opened well and cannot be read at `offset` now.
    pub(super) fn unreadable(
        path: &Path,
        offset: u64,
        bytes: usize,
        source: io::Error,
    ) -> DataError {
        let source = match source.kind() {
            kind @ io::ErrorKind::UnexpectedEof => {
                io::Error::new(kind, "the file is shorter than when it was opened")
            }
            _ => source,
        };
        DataError::Unreadable {
            path: path.to_owned(),
            offset,
            bytes,
            source,
        }
    }

    /// A literal edit or command that would help, where there is one.
    pub fn hint(&self) -> Option<String> {
        use DataError::*;
        Some(match self {
            Missing { path, dataset, .. } => make_dataset(dataset, path),
            NoMatch { split, .. } => format!(
                "`data.{split}_bin` is a path, or a pattern as shells have them: `*` for any part of a name that does not \
                 begin with a dot, `?`, `[0-9]`, `**` for any folders"
            ),
            NotAFile {
                split,
                path,
                is_folder: true,
            } => format!(
                "name its files: `--set data.{split}_bin={}`",
                path.join(format!("*{split}*.bin")).display()
            ),
            NotAFile { split, .. } => {
                format!("copy its tokens to a file and name that in `data.{split}_bin`")
            }
            NotTokens { hint, .. } => hint.clone(),
            TwoVocabularies { .. } => "take both splits from one dataset, or remove the vocabulary's files (meta.json, \
                 tokenizer.json, meta.pkl) that do not belong"
                .into(),
            Empty { .. } => "run `taper prepare` again, or remove the file".into(),
            OddLength { .. } => "the file was cut short or holds something else than u16 tokens; \
                 copy it or run `taper prepare` again"
                .into(),
            WrongMagic { .. } | WrongVersion { .. } => {
                "write the shard with llm.c's GPT-2 tokenizer, or the text with `taper prepare`"
                    .into()
            }
            WrongCount {
                promised,
                found_bytes,
                ..
            } if *promised > 0 && 4 * *promised as u64 == *found_bytes => {
                "its tokens take 4 bytes each (u32); write the shard with u16 tokens, as llm.c does for GPT-2".into()
            }
            ShortHeader { .. } | Truncated { .. } | WrongCount { .. } => {
                "copy or download the file again; this copy is not complete".into()
            }
            TooShort { longest, .. } if *longest < 2 => "prepare more text".into(),
            TooShort { longest, .. } => format!(
                "use more text or `--set model.block_size={}`",
                (longest - 1).min(1 << 20)
            ),
            TokenOutOfRange { id, .. } => format!(
                "set `model.vocab_size` to {} or more, or prepare the text with the model's tokenizer",
                u32::from(*id) + 1
            ),
            Unreadable { .. } => {
                "restore the file, then run the same command with `--resume`".into()
            }
            Vocabulary { path, .. } => format!(
                "run `taper prepare` again, or remove `{}` to use GPT-2's vocabulary",
                path.display()
            ),
            Mixed { .. } => "run `taper prepare` again: the folder mixes two datasets".into(),
            Io { source, .. }
                if cfg!(unix) && source.raw_os_error() == Some(TOO_MANY_OPEN_FILES) =>
            {
                "every token file stays open: run `ulimit -n 4096`, then the same command".into()
            }
            Io { path, .. } => format!("check the permissions of `{}`", path.display()),
            Tokenizer(e) => return e.hint(),
        })
    }
}
