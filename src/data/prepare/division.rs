//! Division of the input between train and val.

use std::io::Read;

use serde::{Deserialize, Serialize};

use super::PrepareError;
use super::encoding::MARK;
use super::input::InputFile;
use crate::data::Split;
use crate::rng::{Seed, Stream};

/// The least and the greatest draw of some documents.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Draws(Option<(f64, f64)>);

impl Draws {
    pub(super) fn add(&mut self, other: Draws) {
        self.0 = match (self.0, other.0) {
            (Some(ours), Some(theirs)) => Some((ours.0.min(theirs.0), ours.1.max(theirs.1))),
            (ours, theirs) => ours.or(theirs),
        };
    }

    pub(super) fn document(&mut self, document: u64) {
        let draw = draw(document);
        self.add(Draws(Some((draw, draw))));
    }

    /// Whether both splits get documents where a draw below `val_fraction` goes to val.
    pub(super) fn divide(self, val_fraction: f64) -> bool {
        self.0
            .is_some_and(|(least, most)| least < val_fraction && val_fraction <= most)
    }
}

/// Division of documents between the splits: a draw for each, a function of its number alone.
#[derive(Clone, Copy)]
pub(super) struct ByDocument {
    /// Documents with a draw below it go to val.
    below: f64,
}

impl ByDocument {
    /// About `val_fraction` of the documents (two or more), and at least one in each split.
    pub(super) fn new(draws: Draws, val_fraction: f64) -> ByDocument {
        let (least, most) = draws.0.unwrap_or((0.0, 1.0));
        ByDocument {
            below: val_fraction.max(least.next_up()).min(most),
        }
    }

    pub(super) fn split(self, document: u64) -> Split {
        if draw(document) < self.below {
            Split::Val
        } else {
            Split::Train
        }
    }
}

fn draw(document: u64) -> f64 {
    // A site of its own: 0 and 1 are the splits of `order::eval_window`.
    const SITE: u32 = 2;
    Seed(0).uniform(
        Stream::EvalOrder,
        SITE,
        (document >> 32) as u32,
        document as u32,
    )
}

/// The unpacked byte at which a text of `characters` divides so that val is the last fraction of them, as nanoGPT's
/// `data[int(n * 0.9):]`. CRLF is one character.
pub(super) fn byte_of_split(
    source: &InputFile,
    characters: u64,
    val_fraction: f64,
) -> Result<u64, PrepareError> {
    let mut left = (characters as f64 * (1.0 - val_fraction)) as u64;
    let mut bytes = if source.mark { MARK.len() as u64 } else { 0 };
    let mut contents = source.contents(bytes)?;
    let mut buffer = vec![0; 1 << 20];
    let mut before = 0;
    loop {
        let read = contents.read(&mut buffer);
        let read = read.map_err(|error| source.unreadable(error))?;
        if read == 0 {
            return Ok(bytes);
        }
        for &byte in &buffer[..read] {
            // Every byte but a continuation byte, 10xxxxxx, begins a character, and so does LF unless CR comes before.
            let begins = byte & 0xC0 != 0x80 && !(byte == b'\n' && before == b'\r');
            if begins && left == 0 {
                return Ok(bytes);
            }
            left -= u64::from(begins);
            before = byte;
            bytes += 1;
        }
    }
}
