//! Decoding while sampling: a GPT-2 token may end in the middle of a character.

use super::Tokenizer;

/// Turns ids into text as they come. The texts, joined, are [`Tokenizer::decode`] of all ids.
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    /// The bytes of a character whose end has not come yet; at most three.
    pending: Vec<u8>,
}

impl<'a> DecodeStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        DecodeStream {
            tokenizer,
            pending: Vec::new(),
        }
    }

    /// The text that `id` completes; empty while a character is incomplete.
    pub fn push(&mut self, id: u32) -> String {
        self.pending.extend_from_slice(self.tokenizer.piece(id));
        let kept = incomplete_suffix(&self.pending);
        let complete = self.pending.len() - kept;
        let text = String::from_utf8_lossy(&self.pending[..complete]).into_owned();
        self.pending.drain(..complete);
        text
    }

    /// The rest when no more ids come: U+FFFD for an incomplete character, else nothing.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

/// Number of bytes at the end of `bytes` that begin a character that may still be completed.
fn incomplete_suffix(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last().map_or(&[][..], |c| c.invalid());
    match std::str::from_utf8(last) {
        Err(e) if e.error_len().is_none() => last.len(),
        _ => 0,
    }
}
