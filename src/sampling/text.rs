//! Texts made of tokens, and their ends.

use std::collections::BTreeMap;

use super::{Generator, Request, SamplingError, SamplingSettings};
use crate::tokenizer::{DecodeStream, Tokenizer};

/// The reason why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// It has as many new tokens as were asked for.
    Length,
    /// A stop string came next.
    Stop,
    /// The model ended it.
    EndOfText,
}

/// The end of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Tokens that were generated, those of a stop string included. A token that ends the text is not.
    pub tokens: usize,
    pub finish: Finish,
}

/// Text from tokens, as far as no stop string may have begun in it.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    decode: DecodeStream<'a>,
    stop: &'a [String],
    /// Text that is the beginning of a stop string, unless another text follows.
    held: String,
    is_stopped: bool,
}

impl<'a> TextStream<'a> {
    /// A text that ends before the first of the strings of `stop`, none of which is empty.
    pub fn new(tokenizer: &'a Tokenizer, stop: &'a [String]) -> Self {
        Self {
            tokenizer,
            decode: tokenizer.decode_stream(),
            stop,
            held: String::new(),
            is_stopped: false,
        }
    }

    /// The text that `token` completes. Special tokens are no text, as in transformers.
    pub fn push(&mut self, token: u32) -> String {
        if self.tokenizer.is_special(token) {
            return String::new();
        }
        let text = self.decode.push(token);
        self.append(&text)
    }

    /// Whether a stop string was found: nothing follows.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// The rest of a text that has no more tokens.
    pub fn finish(mut self) -> String {
        let unfinished = std::mem::replace(&mut self.decode, self.tokenizer.decode_stream());
        let mut rest = self.append(&unfinished.finish());
        if !self.is_stopped {
            rest.push_str(&self.held);
        }
        rest
    }

    fn append(&mut self, text: &str) -> String {
        if self.is_stopped || text.is_empty() {
            return String::new();
        }
        self.held.push_str(text);
        if let Some(start) = self.first_stop() {
            self.held.truncate(start);
            self.is_stopped = true;
            return std::mem::take(&mut self.held);
        }
        let kept = self.stop.iter().map(|stop| begun(&self.held, stop)).max();
        let rest = self.held.split_off(self.held.len() - kept.unwrap_or(0));
        std::mem::replace(&mut self.held, rest)
    }

    /// The beginning of the stop string that ends first.
    fn first_stop(&self) -> Option<usize> {
        let found = self.stop.iter().filter_map(|stop| {
            let start = self.held.find(&**stop)?;
            Some((start + stop.len(), start))
        });
        found.min().map(|(_, start)| start)
    }
}

/// Bytes at the end of `text` that are a beginning of `stop`.
fn begun(text: &str, stop: &str) -> usize {
    let ends = stop.char_indices().map(|(at, _)| at).rev();
    let mut begun = ends.filter(|&len| text.ends_with(&stop[..len]));
    begun.next().unwrap_or(0)
}

/// All that makes a text of tokens.
#[derive(Clone, Copy)]
pub struct Writing<'a> {
    pub tokenizer: &'a Tokenizer,
    pub settings: &'a SamplingSettings,
    /// A text ends before the first of them.
    pub stop: &'a [String],
    /// Whether a token ends a text.
    pub is_end: &'a (dyn Fn(u32) -> bool + Sync),
}

/// Writes the text of every request. `emit` gets the number of a request, the text that it goes on with, and its end with
/// the last of it. Texts come in pieces, many at a time.
///
/// # Errors
/// Settings out of their ranges, those of [`Generator::generate`], and what `emit` returns.
pub fn write_texts<'a, E: From<SamplingError>>(
    generator: &mut Generator,
    requests: impl IntoIterator<Item = Request<'a>>,
    writing: Writing,
    mut emit: impl FnMut(usize, &str, Option<Ended>) -> Result<(), E>,
) -> Result<(), E> {
    let Writing {
        tokenizer,
        settings,
        stop,
        is_end,
    } = writing;
    settings.check()?;
    if stop.iter().any(String::is_empty) {
        return Err(SamplingError::EmptyStop.into());
    }
    let mut texts: BTreeMap<usize, (TextStream, usize)> = BTreeMap::new();
    generator.generate(requests, settings, |number, token| {
        let begin = || (TextStream::new(tokenizer, stop), 0);
        let (text, tokens) = texts.entry(number).or_insert_with(begin);
        let mut piece = String::new();
        let finish = match token {
            None => Some(Finish::Length),
            Some(token) if is_end(token) => Some(Finish::EndOfText),
            Some(token) => {
                *tokens += 1;
                piece = text.push(token);
                text.is_stopped().then_some(Finish::Stop)
            }
        };
        let Some(finish) = finish else {
            emit(number, &piece, None)?;
            return Ok(true);
        };
        let ended = Ended {
            tokens: *tokens,
            finish,
        };
        if let Some((text, _)) = texts.remove(&number) {
            piece.push_str(&text.finish());
        }
        emit(number, &piece, Some(ended))?;
        Ok(false)
    })
}
