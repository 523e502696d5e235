//! Oddities of a dataset that can be used all the same.

use std::path::PathBuf;

/// A fact about a dataset that its user should know of before training on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataWarning {
    /// A pattern matched something else than a file.
    #[error("`{}` matches the pattern of the {split} split and is no file: passed over", path.display())]
    NoFile { split: &'static str, path: PathBuf },
    /// Two files of one split have the same tokens, or are the same file.
    #[error(
        "`{}` has the tokens of `{}`: the {split} split holds them twice",
        path.display(), first.display()
    )]
    Twice {
        split: &'static str,
        path: PathBuf,
        first: PathBuf,
    },
    /// A validation file is trained on.
    #[error(
        "the val split is trained on: `{}` has the tokens of `{}`, so the validation loss shows nothing of text that the \
         model has not seen",
        val.display(), train.display()
    )]
    ValInTrain { val: PathBuf, train: PathBuf },
    /// Every second token is 0 and the others fit a byte: 4-byte ids, or a file in which that is so.
    #[error(
        "every second token of `{}` is 0: if its ids take 4 bytes (u32), taper reads each as two tokens; convert it with \
         `{convert}`",
        path.display()
    )]
    HalfZeros { path: PathBuf, convert: String },
    /// Only the size of the vocabulary is known.
    #[error(
        "`{}` gives a vocab_size and no characters: checkpoints will hold no tokenizer, and `taper sample` cannot turn \
         their tokens into text",
        path.display()
    )]
    NoTokenizer { path: PathBuf },
    /// Two files tell vocabularies that differ.
    #[error(
        "`{}` tells another vocabulary than `{}`, which is used; remove the one that is out of date",
        ignored.display(), used.display()
    )]
    TwoVocabularies { used: PathBuf, ignored: PathBuf },
}
