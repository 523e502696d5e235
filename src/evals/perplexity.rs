//! The perplexity of a file: windows of block_size tokens one after the other, the last of which may be shorter. Each
//! predicts the token behind every position, so that all tokens of the file but its first are scored once, by at most
//! block_size tokens before them in their window.

use std::ops::Range;
use std::path::Path;

use super::jsonl::LARGEST;
use super::loader::Encoding;
use super::{EvalsError, Metrics};
use crate::data::SplitTokens;
use crate::step::scoring::SequenceScore;
use crate::terms::read_text;
use crate::tokenizer::Tokenizer;

/// Windows of a file, and the sum of their losses.
pub(super) struct Windows {
    tokens: Tokens,
    block_size: usize,
    /// Scored tokens, from the second of the file on.
    scored: u64,
    /// Windows of the whole file.
    pub all: usize,
    /// Bytes of the scored tokens' text.
    bytes: Option<u64>,
    loss: f64,
}

enum Tokens {
    File(SplitTokens),
    Text(Vec<u32>),
}

impl Tokens {
    fn count(&self) -> u64 {
        match self {
            Self::File(tokens) => tokens.len(),
            Self::Text(ids) => ids.len() as u64,
        }
    }
}

impl Windows {
    fn new(
        tokens: Tokens,
        block_size: usize,
        path: &Path,
        limit: Option<usize>,
    ) -> Result<Self, EvalsError> {
        let most = tokens.count().saturating_sub(1);
        if most == 0 {
            return Err(EvalsError::Empty {
                path: path.to_owned(),
                reason: "it has fewer than two tokens, and the first is not scored",
            });
        }
        let within = limit.map_or(most, |windows| {
            (windows as u64).saturating_mul(block_size as u64)
        });
        Ok(Self {
            tokens,
            block_size,
            scored: most.min(within),
            all: most.div_ceil(block_size as u64) as usize,
            bytes: None,
            loss: 0.0,
        })
    }

    /// The first `limit` windows of a token file.
    ///
    /// # Errors
    /// `Empty`.
    pub fn of_tokens(
        tokens: SplitTokens,
        block_size: usize,
        path: &Path,
        limit: Option<usize>,
    ) -> Result<Self, EvalsError> {
        Self::new(Tokens::File(tokens), block_size, path, limit)
    }

    /// The first `limit` windows of a text, which is read as `taper prepare` reads one: without a byte order mark, and
    /// with `\n` at the end of every line.
    ///
    /// # Errors
    /// `File`, `Empty`, and those of `encoding`.
    pub fn of_text(
        path: &Path,
        encoding: &mut Encoding,
        tokenizer: &Tokenizer,
        limit: Option<usize>,
    ) -> Result<Self, EvalsError> {
        let text = read_text("read", path, LARGEST)?;
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut ids = Vec::new();
        encoding.encode_lines(&text, &mut ids)?;
        let mut windows = Self::new(Tokens::Text(ids), encoding.block_size, path, limit)?;
        if let Tokens::Text(ids) = &windows.tokens {
            let scored = &ids[1..=windows.scored as usize];
            let bytes = scored.iter().map(|&id| tokenizer.byte_len(id));
            windows.bytes = Some(bytes.sum::<usize>() as u64);
        }
        Ok(windows)
    }

    pub fn count(&self) -> usize {
        self.scored.div_ceil(self.block_size as u64) as usize
    }

    pub fn positions(&self, index: usize) -> usize {
        (self.scored - self.start(index)).min(self.block_size as u64) as usize
    }

    fn start(&self, index: usize) -> u64 {
        index as u64 * self.block_size as u64
    }

    pub fn scored(&self, index: usize) -> Range<usize> {
        0..self.positions(index)
    }

    /// # Errors
    /// `Data` when the file cannot be read any more.
    pub fn read(
        &self,
        index: usize,
        inputs: &mut [u32],
        targets: &mut [u32],
    ) -> Result<(), EvalsError> {
        let start = self.start(index);
        match &self.tokens {
            Tokens::File(tokens) => Ok(tokens.copy_window(start, inputs, targets)?),
            Tokens::Text(ids) => {
                let ids = &ids[start as usize..];
                inputs.copy_from_slice(&ids[..inputs.len()]);
                targets.copy_from_slice(&ids[1..=targets.len()]);
                Ok(())
            }
        }
    }

    pub fn reset(&mut self) {
        self.loss = 0.0;
    }

    pub fn record(&mut self, score: SequenceScore) {
        self.loss += score.loss;
    }

    pub fn metrics(&self) -> Metrics {
        let loss = self.loss / self.scored as f64;
        Metrics::Perplexity {
            loss,
            perplexity: loss.exp(),
            bits_per_byte: self
                .bytes
                .map(|bytes| self.loss / std::f64::consts::LN_2 / bytes as f64),
            tokens: self.scored,
        }
    }
}
