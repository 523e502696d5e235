//! Byte-pair encoding of GPT-2's pieces, for texts of which nothing is remembered yet.
//!
//! The tokenizers library encodes any piece, and takes ten times as long for a short one.

use std::collections::HashMap;

use regex::Regex;
use rustc_hash::FxHashMap;

/// GPT-2's pattern without its look-ahead, `\s+(?!\S)`, for which see [`Merges::pieces`]
/// (openai/gpt-2, `src/encoder.py`).
const PATTERN: &str = r"\A(?:'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+)";

/// Longest piece that is merged here, in bytes. Each merge looks at all pairs of a piece; the library's queue is better
/// for long ones.
const MAX_PIECE_BYTES: usize = 512;

/// The merges of a vocabulary whose ids are in the order in which they were made.
#[derive(Clone, Debug)]
pub(super) struct Merges {
    pattern: Regex,
    /// Ids of the 256 bytes.
    bytes: [u32; 256],
    /// The id that two neighbours become.
    merged: FxHashMap<(u32, u32), u32>,
}

impl Merges {
    /// `pieces` are the bytes of ids `0..`, of which the first 256 are single bytes; `pairs` are the two parts of each
    /// later one. `None` if a part has no id.
    pub(super) fn new(pieces: &[Vec<u8>], pairs: &[(&[u8], &[u8])]) -> Option<Merges> {
        let ids: HashMap<&[u8], u32> = pieces.iter().map(|piece| &piece[..]).zip(0..).collect();
        let mut bytes = [0; 256];
        for (byte, id) in (0..=u8::MAX).zip(&mut bytes) {
            *id = *ids.get(&[byte][..])?;
        }
        let merged = pairs
            .iter()
            .zip(256..)
            .map(|((left, right), id)| Some(((*ids.get(left)?, *ids.get(right)?), id)));
        Some(Merges {
            pattern: Regex::new(PATTERN).ok()?,
            bytes,
            merged: merged.collect::<Option<_>>()?,
        })
    }

    /// Appends the ids of `text`; false, and nothing, if it has a piece that is too long.
    pub(super) fn encode(&self, text: &str, parts: &mut Vec<Part>, ids: &mut Vec<u32>) -> bool {
        let start = ids.len();
        for piece in self.pieces(text) {
            if piece.len() > MAX_PIECE_BYTES {
                ids.truncate(start);
                return false;
            }
            self.merge(piece.as_bytes(), parts, ids);
        }
        true
    }

    /// The pieces of the pre-tokenizer. Whitespace before something else leaves its last character to that: the
    /// pattern's look-ahead.
    fn pieces<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        let mut rest = text;
        std::iter::from_fn(move || {
            let mut end = self.pattern.find(rest)?.end();
            let last = rest[..end].chars().next_back()?;
            let is_longer = last.len_utf8() < end;
            if last.is_whitespace() && is_longer && end < rest.len() {
                end -= last.len_utf8();
            }
            let (piece, tail) = rest.split_at(end);
            rest = tail;
            Some(piece)
        })
    }

    fn merge(&self, piece: &[u8], parts: &mut Vec<Part>, ids: &mut Vec<u32>) {
        parts.clear();
        parts.extend(piece.iter().map(|&byte| Part {
            id: self.bytes[usize::from(byte)],
            merged: NEVER,
        }));
        for at in 0..parts.len() {
            parts[at].merged = self.merged_at(parts, at);
        }
        while let Some(at) = first_merge(parts) {
            parts[at].id = parts[at].merged;
            parts.remove(at + 1);
            parts[at].merged = self.merged_at(parts, at);
            if let Some(before) = at.checked_sub(1) {
                parts[before].merged = self.merged_at(parts, before);
            }
        }
        ids.extend(parts.iter().map(|part| part.id));
    }

    /// The id that the part at `at` and the next one become.
    fn merged_at(&self, parts: &[Part], at: usize) -> u32 {
        let pair = parts.get(at + 1).map(|next| (parts[at].id, next.id));
        let merged = pair.and_then(|pair| self.merged.get(&pair));
        merged.copied().unwrap_or(NEVER)
    }
}

/// A part of a piece: its id, and the one that it and the next part become.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    id: u32,
    merged: u32,
}

/// No id: the two are not merged.
const NEVER: u32 = u32::MAX;

/// The place of the earliest merge of the vocabulary, and there of the leftmost.
fn first_merge(parts: &[Part]) -> Option<usize> {
    let (at, first) = parts
        .iter()
        .enumerate()
        .min_by_key(|(_, part)| part.merged)?;
    (first.merged != NEVER).then_some(at)
}
