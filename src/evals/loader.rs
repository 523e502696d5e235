//! Files as tasks, in the tokens of a model.

use std::path::Path;

use super::perplexity::Windows;
use super::task::{Task, Work};
use super::{Benchmark, EvalsError, TaskRequest, hellaswag, lambada};
use crate::data::{DataWarning, open_tokens};
use crate::tokenizer::{Encoder, Tokenizer, TokenizerError};

/// Reads tasks for one model.
pub struct Loader<'a> {
    pub tokenizer: &'a Tokenizer,
    /// Token ids of the model.
    pub vocab_size: usize,
    pub block_size: usize,
    /// The most examples of a benchmark, or windows of a file.
    pub limit: Option<usize>,
}

impl Loader<'_> {
    /// Reads the task in the file at `path`. `.bin` files hold tokens, all others text.
    ///
    /// # Errors
    /// When the file cannot be read, has nothing to score, or has what the model's vocabulary does not.
    pub fn load(&self, request: &TaskRequest, path: &Path) -> Result<Task, EvalsError> {
        let mut encoding = Encoding {
            tokenizer: self.tokenizer,
            encoder: self.tokenizer.encoder(),
            task: &request.name,
            path,
            vocab_size: self.vocab_size,
            block_size: self.block_size,
        };
        let encoding = &mut encoding;
        let is_tokens = path.extension().is_some_and(|is| is == "bin");
        let mut warnings = Vec::new();
        let (work, all) = match request.benchmark {
            Some(Benchmark::HellaSwag) => {
                let (examples, labels, all) = hellaswag::load(path, encoding, self.limit)?;
                (Work::HellaSwag { examples, labels }, all)
            }
            Some(Benchmark::Lambada) => {
                let (examples, all) = lambada::load(path, encoding, self.limit)?;
                (Work::Lambada(examples), all)
            }
            None => {
                let windows = if is_tokens {
                    self.token_windows(path, &mut warnings)?
                } else {
                    Windows::of_text(path, encoding, self.tokenizer, self.limit)?
                };
                let all = windows.all;
                (Work::Perplexity(windows), all)
            }
        };
        Ok(Task {
            name: request.name.clone(),
            work,
            all,
            block_size: self.block_size,
            warnings,
        })
    }

    fn token_windows(
        &self,
        path: &Path,
        warnings: &mut Vec<DataWarning>,
    ) -> Result<Windows, EvalsError> {
        let opened = open_tokens(path, self.vocab_size, warnings)?;
        if let Some(there) = opened.tokenizer
            && let Some(id) = self.tokenizer.first_other_id(&there)
        {
            let shown = |tokenizer: &Tokenizer| match (id as usize) < tokenizer.vocab_size() {
                true => format!("{:?}", tokenizer.decode(&[id])),
                false => "nothing".into(),
            };
            return Err(EvalsError::OtherVocabulary {
                path: path.to_owned(),
                id,
                there: shown(&there),
                here: shown(self.tokenizer),
            });
        }
        Windows::of_tokens(opened.tokens, self.block_size, path, self.limit)
    }
}

/// Text to the tokens of a model, for one task.
pub(super) struct Encoding<'a> {
    tokenizer: &'a Tokenizer,
    encoder: Encoder<'a>,
    task: &'a str,
    path: &'a Path,
    vocab_size: usize,
    pub block_size: usize,
}

impl Encoding<'_> {
    /// Appends the tokens of a text in line `line` of the file.
    ///
    /// # Errors
    /// `Unwritable` and `UnknownToken`.
    pub fn encode(
        &mut self,
        text: &str,
        line: usize,
        ids: &mut Vec<u32>,
    ) -> Result<(), EvalsError> {
        self.encode_from(text, ids, |_| line)
    }

    /// Appends the tokens of all lines of the file.
    ///
    /// # Errors
    /// Those of [`Encoding::encode`].
    pub fn encode_lines(&mut self, text: &str, ids: &mut Vec<u32>) -> Result<(), EvalsError> {
        self.encode_from(text, ids, |error| {
            let before = match error {
                Some(TokenizerError::UnknownCharacter { character, .. }) => {
                    text.split(*character).next()
                }
                _ => None,
            };
            1 + before.unwrap_or_default().matches('\n').count()
        })
    }

    fn encode_from(
        &mut self,
        text: &str,
        ids: &mut Vec<u32>,
        line: impl Fn(Option<&TokenizerError>) -> usize,
    ) -> Result<(), EvalsError> {
        let first = ids.len();
        let encoded = self.encoder.encode(text, ids);
        let unwritable = |source: Option<TokenizerError>| EvalsError::Unwritable {
            task: self.task.to_owned(),
            path: self.path.to_owned(),
            line: line(source.as_ref()),
            source,
        };
        encoded.map_err(|source| unwritable(Some(source)))?;
        let new = &ids[first..];
        // A byte-level vocabulary that lacks bytes leaves them out without a word.
        let bytes = new.iter().map(|&id| self.tokenizer.byte_len(id));
        if bytes.sum::<usize>() != text.len() {
            return Err(unwritable(None));
        }
        match new.iter().find(|&&id| id as usize >= self.vocab_size) {
            None => Ok(()),
            Some(&id) => Err(EvalsError::UnknownToken {
                task: self.task.to_owned(),
                id,
                vocab_size: self.vocab_size,
            }),
        }
    }
}
