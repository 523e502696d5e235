//! Byte-pair encoding of GPT-2's pieces, for texts of which nothing is remembered yet.
//!
//! The tokenizers library encodes any piece, too, and takes several times as long.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use regex::Regex;
use rustc_hash::FxHashMap;

/// GPT-2's pattern without its look-ahead, `\s+(?!\S)`, for which see [`Merges::pieces`]
/// (openai/gpt-2, `src/encoder.py`).
const PATTERN: &str = r"\A(?:'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+)";

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

    /// Appends the ids of `text`.
    pub(super) fn encode(&self, text: &str, scratch: &mut Scratch, ids: &mut Vec<u32>) {
        for piece in self.pieces(text) {
            self.merge(piece.as_bytes(), scratch, ids);
        }
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

    /// Joins neighbours, those with the earliest merge first and of these the leftmost, until no two have a merge.
    fn merge(&self, piece: &[u8], scratch: &mut Scratch, ids: &mut Vec<u32>) {
        let Scratch { parts, queue } = scratch;
        parts.clear();
        parts.extend((1..).zip(piece).map(|(next, &byte)| Part {
            id: self.bytes[usize::from(byte)],
            next,
            before: next.wrapping_sub(2),
        }));
        queue.clear();
        for at in 0..parts.len() {
            queue.extend(self.due(parts, at));
        }
        while let Some(Reverse(due)) = queue.pop() {
            let (merged, at) = ((due >> 32) as u32, due as u32 as usize);
            // One of the two may be part of another by now.
            if self.due(parts, at) != Some(Reverse(due)) {
                continue;
            }
            let joined = parts[at].next as usize;
            let after = parts[joined].next;
            parts[joined].id = GONE;
            parts[at].id = merged;
            parts[at].next = after;
            if let Some(after) = parts.get_mut(after as usize) {
                after.before = at as u32;
            }
            queue.extend(self.due(parts, at));
            queue.extend(self.due(parts, parts[at].before as usize));
        }
        let mut at = 0;
        while let Some(part) = parts.get(at) {
            ids.push(part.id);
            at = part.next as usize;
        }
    }

    /// The merge of the part at `at` and the next one, as the queue has it.
    fn due(&self, parts: &[Part], at: usize) -> Option<Reverse<u64>> {
        let part = parts.get(at)?;
        let next = parts.get(part.next as usize)?;
        let merged = *self.merged.get(&(part.id, next.id))?;
        Some(Reverse(u64::from(merged) << 32 | at as u64))
    }
}

/// Memory for the parts of one piece after the other.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    parts: Vec<Part>,
    /// Merges that may be due: the id in the upper half, the place of the left part in the lower.
    queue: BinaryHeap<Reverse<u64>>,
}

/// A part of a piece, and the places of its neighbours; beyond the last place for none.
#[derive(Clone, Copy, Debug)]
struct Part {
    id: u32,
    next: u32,
    before: u32,
}

/// The id of a part that was joined to the one before it: no merge has it.
const GONE: u32 = u32::MAX;
