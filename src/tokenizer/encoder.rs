//! Encoding long texts quickly: words are encoded once and remembered.
//!
//! GPT-2's pre-tokenizer is the pattern
//! `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`. In no alternative
//! does whitespace follow something else, nor do letters, digits and other characters follow one
//! another, but for the apostrophe and letters: where they do, a piece surely starts, and text cut
//! there encodes to the same ids. That one rule is used twice: to cut files into blocks, and to
//! cut blocks into words whose ids are looked up.

use std::ops::Range;

use rustc_hash::FxHashMap;

use super::bpe::{Merges, Scratch};
use super::{Tokenizer, TokenizerError, Vocabulary};

/// Longest word that is remembered, in bytes; longer ones seldom come back.
const MEMORY_WORD_BYTES: usize = 32;
/// Most words in the memory of one encoder, about 10 MB; then it starts anew.
const MEMORY_WORDS: usize = 1 << 16;

/// True if GPT-2's pre-tokenizer surely starts a piece between these two characters. It may be false for
/// other characters than whitespace and ASCII although a piece starts there.
pub fn is_boundary(before: char, after: char) -> bool {
    if before.is_whitespace() || after.is_whitespace() {
        return !before.is_whitespace();
    }
    let kind = |c: char| (c.is_ascii_alphabetic(), c.is_ascii_digit());
    before.is_ascii() && after.is_ascii() && before != '\'' && kind(before) != kind(after)
}

/// The byte offset of the last boundary in `text`, if it has one.
pub fn last_boundary(text: &str) -> Option<usize> {
    let mut after = text.chars().next_back()?;
    for (start, before) in text.char_indices().rev().skip(1) {
        if is_boundary(before, after) {
            return Some(start + before.len_utf8());
        }
        after = before;
    }
    None
}

/// Encodes texts one after the other, remembering words.
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    /// Range of a word's ids in `remembered`.
    words: FxHashMap<Box<str>, Range<usize>>,
    remembered: Vec<u32>,
    scratch: Scratch,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Encoder {
            tokenizer,
            words: FxHashMap::default(),
            remembered: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    /// Appends the ids of `text` to `ids`.
    pub fn encode(&mut self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        match &self.tokenizer.vocabulary {
            Vocabulary::Char(characters) => characters.encode(text, ids),
            Vocabulary::Gpt2 { merges, .. } => {
                words(text).try_for_each(|word| self.encode_word(word, merges.as_deref(), ids))
            }
        }
    }

    fn encode_word(
        &mut self,
        word: &str,
        merges: Option<&Merges>,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        if let Some(known) = self.words.get(word) {
            ids.extend_from_slice(&self.remembered[known.clone()]);
            return Ok(());
        }
        let first = ids.len();
        match merges {
            Some(merges) => merges.encode(word, &mut self.scratch, ids),
            None => {
                let encoding = self.tokenizer.inner.encode_fast(word, false);
                let encoding = encoding.map_err(TokenizerError::Library)?;
                ids.extend_from_slice(encoding.get_ids());
            }
        }
        if word.len() <= MEMORY_WORD_BYTES {
            if self.words.len() == MEMORY_WORDS {
                self.words.clear();
                self.remembered.clear();
            }
            let start = self.remembered.len();
            self.remembered.extend_from_slice(&ids[first..]);
            self.words.insert(word.into(), start..self.remembered.len());
        }
        Ok(())
    }
}

/// `text` cut at every boundary.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut before = rest.chars().next()?;
        let cut = rest.char_indices().skip(1).find_map(|(start, after)| {
            let found = is_boundary(before, after).then_some(start);
            before = after;
            found
        });
        let (word, tail) = rest.split_at(cut.unwrap_or(rest.len()));
        rest = tail;
        Some(word)
    })
}
