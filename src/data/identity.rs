//! The identity of a dataset: by its tokens and its vocabulary, wherever its files are and whatever they are called.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{DataError, DataWarning, SplitTokens};
use crate::tokenizer::Tokenizer;

/// Two datasets of one identity have the same windows in the same order, and the same text for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetIdentity {
    pub train: SplitIdentity,
    pub val: SplitIdentity,
    /// [`Tokenizer::sha256`] in hexadecimal digits; absent where only the size of the vocabulary is known.
    pub tokenizer: Option<String>,
}

/// The tokens of a split, with the borders between its files, which no window crosses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitIdentity {
    pub tokens: u64,
    /// SHA-256, in hexadecimal digits, of the number of tokens and a sample of the tokens of every file.
    pub sha256: String,
}

impl DatasetIdentity {
    /// Reads a sample of both splits, and warns of files that hold the same tokens.
    pub(super) fn of(
        train: &SplitTokens,
        val: &SplitTokens,
        tokenizer: Option<&Tokenizer>,
        warnings: &mut Vec<DataWarning>,
    ) -> Result<Self, DataError> {
        let (train_files, val_files) = (train.digests()?, val.digests()?);
        warn_of_repetitions([(train, &train_files), (val, &val_files)], warnings);
        let split = |tokens: &SplitTokens, files: &[FileDigest]| SplitIdentity {
            tokens: tokens.len(),
            sha256: hex(&Sha256::digest(files.as_flattened())),
        };
        Ok(Self {
            train: split(train, &train_files),
            val: split(val, &val_files),
            tokenizer: tokenizer.map(|tokenizer| hex(&tokenizer.sha256())),
        })
    }

    /// The parts of this dataset that are not as `before`. A tokenizer that was not known before is no difference.
    pub fn differences_from(&self, before: &Self) -> Vec<String> {
        let split = |name, before: &SplitIdentity, now: &SplitIdentity| {
            let differs = if before.tokens != now.tokens {
                format!("{} tokens now, {} then", now.tokens, before.tokens)
            } else {
                format!("other tokens, as many as then ({})", now.tokens)
            };
            (before != now).then(|| format!("the {name} split: {differs}"))
        };
        let tokenizer = match (&before.tokenizer, &self.tokenizer) {
            (Some(before), Some(now)) if before != now => {
                Some("the tokenizer: its ids stand for other text now".into())
            }
            (Some(_), None) => Some("the tokenizer: there is none now".into()),
            _ => None,
        };
        let splits = [
            split("train", &before.train, &self.train),
            split("val", &before.val, &self.val),
        ];
        splits.into_iter().chain([tokenizer]).flatten().collect()
    }
}

/// SHA-256 of the length of a token file and of a sample of its tokens.
pub(super) type FileDigest = [u8; 32];

/// Warns of a val file whose tokens are a train file's, and of a file that a split holds twice.
fn warn_of_repetitions(
    splits: [(&SplitTokens, &[FileDigest]); 2],
    warnings: &mut Vec<DataWarning>,
) {
    let [(train, train_files), (val, val_files)] = splits;
    for (path, digest) in val.paths().zip(val_files) {
        let mut files = train.paths().zip(train_files);
        if let Some((same, _)) = files.find(|(_, other)| *other == digest) {
            warnings.push(DataWarning::ValInTrain {
                val: path.to_owned(),
                train: same.to_owned(),
            });
        }
    }
    for (tokens, digests) in splits {
        for (n, (path, digest)) in tokens.paths().zip(digests).enumerate() {
            let mut earlier = tokens.paths().zip(&digests[..n]);
            if let Some((first, _)) = earlier.find(|(_, other)| *other == digest) {
                warnings.push(DataWarning::Twice {
                    split: tokens.split(),
                    path: path.to_owned(),
                    first: first.to_owned(),
                });
            }
        }
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
