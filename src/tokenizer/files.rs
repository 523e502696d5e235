//! `tokenizer.json` and `tokenizer_config.json`, as Hugging Face's AutoTokenizer reads them.

use std::collections::HashMap;
use std::path::Path;

use serde_json::json;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, ModelWrapper, PreTokenizerWrapper, Tokenizer as Inner};

use super::gpt2::byte_to_char;
use super::{END_OF_TEXT, MAX_VOCAB_SIZE, Tokenizer, TokenizerError, Vocabulary};

/// A vocabulary in two files, from before there was `tokenizer.json`.
const VOCAB_FILE: &str = "vocab.json";
const MERGES_FILE: &str = "merges.txt";

/// The file that holds the whole vocabulary.
pub(super) const TOKENIZER_FILE: &str = "tokenizer.json";
const CONFIG_FILE: &str = "tokenizer_config.json";

/// GPT-2's tokens, and the same padded to a multiple of 64, as nanoGPT and llm.c do.
const GPT2_SIZES: std::ops::RangeInclusive<usize> = 50_257..=50_304;

/// The tokenizer of a model.
pub struct ModelTokenizer {
    pub tokenizer: Tokenizer,
    /// Whether it is GPT-2's for the number of tokens alone.
    pub is_assumed: bool,
}

impl Tokenizer {
    /// The tokenizer of the model in `folder`, which has `vocab_size` token embeddings: that of its `tokenizer.json`, or of
    /// `vocab.json` and `merges.txt`; else GPT-2's if it may be that by its size.
    ///
    /// # Errors
    /// `NoneOfModel`, or as [`Tokenizer::load`].
    pub fn of_model(folder: &Path, vocab_size: usize) -> Result<ModelTokenizer, TokenizerError> {
        let has = |name| folder.join(name).exists();
        let known = |tokenizer| ModelTokenizer {
            tokenizer,
            is_assumed: false,
        };
        if has(TOKENIZER_FILE) {
            Tokenizer::load(folder).map(known)
        } else if has(VOCAB_FILE) && has(MERGES_FILE) {
            from_two_files(folder).map(known)
        } else if GPT2_SIZES.contains(&vocab_size) {
            Ok(ModelTokenizer {
                tokenizer: Tokenizer::gpt2()?,
                is_assumed: true,
            })
        } else {
            let folder = folder.to_owned();
            Err(TokenizerError::NoneOfModel { folder, vocab_size })
        }
    }

    /// `tokenizer.json` and `tokenizer_config.json`: names and contents.
    pub fn files(&self) -> Result<Vec<(String, Vec<u8>)>, TokenizerError> {
        let vocabulary = self
            .inner
            .to_string(false)
            .map_err(TokenizerError::Library)?;
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": false,
        });
        if self.end_of_text().is_some() {
            for role in ["bos_token", "eos_token", "unk_token"] {
                config[role] = END_OF_TEXT.into();
            }
        }
        Ok(vec![
            (TOKENIZER_FILE.into(), vocabulary.into_bytes()),
            (CONFIG_FILE.into(), format!("{config:#}\n").into_bytes()),
        ])
    }

    /// Writes [`Tokenizer::files`] into `folder`.
    pub fn save(&self, folder: &Path) -> Result<(), TokenizerError> {
        for (name, bytes) in self.files()? {
            let path = folder.join(name);
            std::fs::write(&path, bytes).map_err(|source| TokenizerError::Io {
                action: "write",
                path: path.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Reads `tokenizer.json` from `folder`: one that [`Tokenizer::save`] wrote, or any GPT-2
    /// byte-level BPE.
    pub fn load(folder: &Path) -> Result<Tokenizer, TokenizerError> {
        let path = folder.join(TOKENIZER_FILE);
        let bytes = std::fs::read(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => TokenizerError::Missing { path: path.clone() },
            _ => TokenizerError::Io {
                action: "read",
                path: path.clone(),
                source,
            },
        })?;
        Inner::from_bytes(bytes)
            .map_err(|e| e.to_string())
            .and_then(from_inner)
            .map_err(|found| TokenizerError::Unsupported { path, found })
    }
}

/// GPT-2's byte-level BPE of `vocab.json` and `merges.txt`.
fn from_two_files(folder: &Path) -> Result<Tokenizer, TokenizerError> {
    let path = |name| folder.join(name).to_string_lossy().into_owned();
    let bpe = BPE::from_file(&path(VOCAB_FILE), &path(MERGES_FILE)).build();
    let inner = bpe.map_err(|error| error.to_string()).map(|bpe| {
        let mut inner = Inner::new(bpe);
        inner
            .with_pre_tokenizer(Some(ByteLevel::new(false, true, true)))
            .with_decoder(Some(ByteLevel::new(true, true, true)));
        inner
    });
    inner
        .and_then(from_inner)
        .map_err(|found| TokenizerError::Unsupported {
            path: folder.join(VOCAB_FILE),
            found,
        })
}

/// Recognises the two kinds; the error describes any other.
fn from_inner(mut inner: Inner) -> Result<Tokenizer, String> {
    let tokens = tokens_by_id(&inner)?;
    match (inner.get_model(), inner.get_pre_tokenizer()) {
        (ModelWrapper::WordLevel(_), _) => {
            let characters = tokens.iter().map(|token| single_character(token));
            Tokenizer::char(&characters.collect::<Result<Vec<_>, _>>()?).map_err(|e| e.to_string())
        }
        (ModelWrapper::BPE(_), Some(PreTokenizerWrapper::ByteLevel(split)))
            if split.use_regex && !split.add_prefix_space && inner.get_normalizer().is_none() =>
        {
            let end_of_text = inner.token_to_id(END_OF_TEXT);
            if end_of_text.is_some() {
                inner
                    .add_special_tokens([AddedToken::from(END_OF_TEXT, true)])
                    .map_err(|error| error.to_string())?;
            }
            let pieces = bytes_of(&tokens);
            inner.set_encode_special_tokens(true);
            // Texts are cut and filled up elsewhere; transformers leaves both out, too, unless it is asked to.
            inner.with_padding(None);
            inner
                .with_truncation(None)
                .map_err(|error| error.to_string())?;
            Ok(Tokenizer {
                vocabulary: Vocabulary::Gpt2 {
                    end_of_text,
                    merges: None,
                },
                inner,
                pieces,
            })
        }
        _ => Err("neither GPT-2's byte-level BPE nor a character vocabulary".into()),
    }
}

fn tokens_by_id(inner: &Inner) -> Result<Vec<String>, String> {
    let vocab = inner.get_vocab(true);
    if vocab.len() > MAX_VOCAB_SIZE {
        return Err(format!("{} tokens, at most 65536 fit", vocab.len()));
    }
    let mut tokens = vec![None; vocab.len()];
    for (token, id) in vocab {
        match tokens.get_mut(id as usize) {
            Some(slot) => *slot = Some(token),
            None => return Err(format!("the id {id} leaves a gap in the ids")),
        }
    }
    let complete: Option<Vec<String>> = tokens.into_iter().collect();
    complete.ok_or_else(|| "two tokens share an id".into())
}

fn single_character(token: &str) -> Result<char, String> {
    let mut characters = token.chars();
    match (characters.next(), characters.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(format!("a vocabulary of words, such as {token:?}")),
    }
}

/// The bytes of each token from GPT-2's printable spelling; an added token is spelled as it is.
fn bytes_of(tokens: &[String]) -> Vec<Vec<u8>> {
    let byte_of: HashMap<char, u8> = byte_to_char().into_iter().zip(0..=255).collect();
    let unspell = |token: &String| -> Option<Vec<u8>> {
        token.chars().map(|c| byte_of.get(&c).copied()).collect()
    };
    let bytes = |token| unspell(token).unwrap_or_else(|| token.as_bytes().to_vec());
    tokens.iter().map(bytes).collect()
}
