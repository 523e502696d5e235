//! Text to token ids and back: GPT-2's byte-level BPE and character-level vocabularies.
//!
//! The vocabularies are those of the tokenizers crate, so that the files beside the data and in a
//! checkpoint load in Hugging Face as they are.

mod bpe;
mod characters;
mod encoder;
mod files;
mod gpt2;
mod identity;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use bpe::Merges;

pub use encoder::{Encoder, is_boundary, last_boundary};
pub use files::ModelTokenizer;
pub use stream::DecodeStream;

/// GPT-2's document separator.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// Ids are stored as `u16`, so no vocabulary is larger.
pub const MAX_VOCAB_SIZE: usize = 1 << 16;

/// The two kinds of vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerKind {
    /// GPT-2's byte-pair encoding: any text, 50,257 tokens
    Gpt2,
    /// One token per distinct character of the text
    Char,
}

/// A vocabulary, with the ids of text and the text of ids.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    /// The tokenizer that is saved as `tokenizer.json`; for BPE it also encodes.
    inner: tokenizers::Tokenizer,
    /// The bytes of each id; one token may hold part of a UTF-8 character.
    pieces: Vec<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Vocabulary {
    Gpt2 {
        end_of_text: Option<u32>,
        /// Those of GPT-2 itself; the library has those of other vocabularies.
        merges: Option<Arc<Merges>>,
    },
    Char(characters::Ids),
}

impl Tokenizer {
    pub fn kind(&self) -> TokenizerKind {
        match self.vocabulary {
            Vocabulary::Gpt2 { .. } => TokenizerKind::Gpt2,
            Vocabulary::Char(_) => TokenizerKind::Char,
        }
    }

    /// The number of tokens; ids are `0..vocab_size()`.
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// The id of [`END_OF_TEXT`], where the vocabulary has one.
    pub fn end_of_text(&self) -> Option<u32> {
        match self.vocabulary {
            Vocabulary::Gpt2 { end_of_text, .. } => end_of_text,
            Vocabulary::Char(_) => None,
        }
    }

    /// The ids of `text`, in which `<|endoftext|>` is text like any other (tiktoken's
    /// `encode_ordinary`). A character outside a character-level vocabulary is an error.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        self.encoder().encode(text, &mut ids)?;
        Ok(ids)
    }

    /// The ids of a prompt as transformers' `tokenizer(text)` gives them: special tokens such as `<|endoftext|>` are one
    /// token each, and a tokenizer that puts some around every text does so here.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        if self.kind() == TokenizerKind::Char {
            return self.encode(text);
        }
        let mut inner = self.inner.clone();
        inner.set_encode_special_tokens(false);
        let encoding = inner.encode_fast(text, true);
        Ok(encoding.map_err(TokenizerError::Library)?.get_ids().into())
    }

    /// Whether `id` is a special token, such as `<|endoftext|>`: a sign for the model, and no text.
    pub fn is_special(&self, id: u32) -> bool {
        let added = self.inner.get_added_vocabulary();
        let token = added.get_added_tokens_decoder().get(&id);
        token.is_some_and(|token| token.special)
    }

    /// An encoder that remembers the words it has seen; for long texts, one per thread.
    pub fn encoder(&self) -> Encoder<'_> {
        Encoder::new(self)
    }

    /// The text of `ids`. Bytes that are not UTF-8, and ids outside the vocabulary (a model may
    /// have padded rows), become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.piece(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Decodes one id at a time, printing no half characters.
    pub fn decode_stream(&self) -> DecodeStream<'_> {
        DecodeStream::new(self)
    }

    /// Bytes of the text that `id` stands for.
    pub fn byte_len(&self, id: u32) -> usize {
        self.piece(id).len()
    }

    fn piece(&self, id: u32) -> &[u8] {
        const UNKNOWN: &[u8] = "\u{FFFD}".as_bytes();
        self.pieces.get(id as usize).map_or(UNKNOWN, Vec::as_slice)
    }
}

/// A failure to make, load, save or use a tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error(
        "the character {character:?} (U+{:04X}) is not in the vocabulary of {vocab_size} characters",
        *character as u32
    )]
    UnknownCharacter { character: char, vocab_size: usize },
    #[error("the text has {found} distinct characters; a vocabulary holds at most 65536")]
    TooManyCharacters { found: usize },
    #[error("no tokenizer: `{}` does not exist", path.display())]
    Missing { path: PathBuf },
    #[error(
        "`{}` has no tokenizer.json, and its vocabulary of {vocab_size} tokens is not GPT-2's of 50257", folder.display()
    )]
    NoneOfModel { folder: PathBuf, vocab_size: usize },
    #[error("cannot {action} `{}`", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("`{}` is not a tokenizer taper can use: {found}", path.display())]
    Unsupported { path: PathBuf, found: String },
    /// The tokenizers crate refused a vocabulary that taper made; a defect of taper.
    #[error("the tokenizers library refused the vocabulary")]
    Library(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl TokenizerError {
    /// A literal edit or command that would help, where there is one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            TokenizerError::UnknownCharacter { .. } => {
                "leave the character out, or prepare the data and train with `--tokenizer gpt2`, \
                 which encodes any text"
                    .into()
            }
            TokenizerError::TooManyCharacters { .. } => {
                "use `--tokenizer gpt2`, which encodes any text with 50,257 tokens".into()
            }
            TokenizerError::Missing { .. } => {
                "`taper prepare` and every checkpoint of taper write one; give a folder that has it"
                    .into()
            }
            TokenizerError::NoneOfModel { folder, .. } => format!(
                "copy the `tokenizer.json` that the model was trained with into `{}`",
                folder.display()
            ),
            TokenizerError::Io { path, .. } => {
                format!("check the permissions of `{}`", path.display())
            }
            TokenizerError::Unsupported { .. } => {
                "use GPT-2's `tokenizer.json` (byte-level BPE) or one written by `taper prepare`"
                    .into()
            }
            TokenizerError::Library(_) => "please report this with the command you ran".into(),
        })
    }
}
