//! The first pass: a survey of the input, before anything is written.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use indicatif::ProgressBar;
use serde_json::Value;

use super::PrepareError;
use super::blocks::{Block, Blocks, Format, InputFile, in_order, whole_files};
use crate::data::Split;
use crate::rng::{Seed, Stream};

/// Result of the first pass.
pub(super) struct Survey {
    pub documents: u64,
    pub characters: Characters,
    /// The sha256 of each input file that is not empty.
    pub digests: Vec<String>,
}

/// The distinct characters of a text, one bit per code point.
pub(super) struct Characters(Vec<u64>);

impl Characters {
    fn new() -> Self {
        Characters(vec![0; (char::MAX as usize + 1) / 64])
    }

    fn insert_all(&mut self, text: &str) {
        for c in text.chars() {
            self.0[c as usize / 64] |= 1 << (c as usize % 64);
        }
    }

    fn union(&mut self, other: &Characters) {
        for (bits, more) in self.0.iter_mut().zip(&other.0) {
            *bits |= more;
        }
    }

    /// The characters in nanoGPT's order, which is sorted.
    pub(super) fn sorted(&self) -> Vec<char> {
        let contains = |&c: &char| self.0[c as usize / 64] >> (c as usize % 64) & 1 == 1;
        ('\0'..=char::MAX).filter(contains).collect()
    }
}

/// Reads everything once; `None` when interrupted.
pub(super) fn survey(
    sources: &[InputFile],
    field: &str,
    progress: &ProgressBar,
    interrupted: &AtomicBool,
) -> Result<Option<Survey>, PrepareError> {
    let mut blocks = Blocks::new(sources, whole_files(sources), progress);
    let mut characters = Characters::new();
    let complete = in_order(
        &mut blocks,
        interrupted,
        |block| {
            let mut found = Characters::new();
            for document in block.documents(&sources[block.source], field) {
                found.insert_all(&document?.text);
            }
            Ok(found)
        },
        |found| {
            characters.union(&found);
            Ok(())
        },
    )?;
    Ok(complete.then_some(Survey {
        documents: blocks.documents,
        characters,
        digests: blocks.digests,
    }))
}

/// A document or a part of one.
pub(super) struct DocumentPart<'a> {
    pub document: u64,
    pub text: Cow<'a, str>,
    /// Whether the document ends here.
    pub ends: bool,
}

impl Block {
    /// The documents in a block; for a text file, the part that the block holds.
    pub(super) fn documents<'a>(
        &'a self,
        source: &'a InputFile,
        field: &'a str,
    ) -> Box<dyn Iterator<Item = Result<DocumentPart<'a>, PrepareError>> + 'a> {
        if source.format == Format::Text {
            return Box::new(std::iter::once(Ok(DocumentPart {
                document: self.document,
                text: Cow::Borrowed(&self.text),
                ends: self.ends,
            })));
        }
        let lines = (self.line..).zip(self.text.lines());
        let filled = lines.filter(|(_, line)| !line.trim().is_empty());
        Box::new(
            (self.document..)
                .zip(filled)
                .map(move |(document, (number, line))| {
                    let text = Cow::Owned(text_of(line, number, &source.path, field)?);
                    Ok(DocumentPart {
                        document,
                        text,
                        ends: true,
                    })
                }),
        )
    }
}

fn text_of(json: &str, line: u64, path: &Path, field: &str) -> Result<String, PrepareError> {
    let mut object: Value = serde_json::from_str(json).map_err(|source| PrepareError::BadJson {
        path: path.to_owned(),
        line,
        source,
    })?;
    match object.get_mut(field).map(Value::take) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(PrepareError::MissingField {
            path: path.to_owned(),
            line,
            field: field.to_owned(),
        }),
    }
}

/// Division of documents between the splits: a draw for each, a function of its number alone.
#[derive(Clone, Copy)]
pub(super) struct ByDocument {
    /// Documents with a draw below it go to val.
    below: f64,
}

impl ByDocument {
    /// About `val_fraction` of `documents` (two or more), and at least one in each split.
    pub(super) fn new(documents: u64, val_fraction: f64) -> ByDocument {
        let draws = (0..documents).map(draw);
        let (least, most) = draws.fold((f64::MAX, 0.0), |(least, most), draw| {
            (draw.min(least), draw.max(most))
        });
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

/// The byte at which a text divides so that val is the last fraction of its characters, as
/// nanoGPT's `data[int(n * 0.9):]`.
pub(super) fn byte_of_split(source: &InputFile, val_fraction: f64) -> Result<u64, PrepareError> {
    let path = &source.path;
    let mut file = File::open(path).map_err(PrepareError::io("open", path))?;
    let characters = scan(&mut file, path, u64::MAX)?.characters;
    let train_characters = (characters as f64 * (1.0 - val_fraction)) as u64;
    file.seek(SeekFrom::Start(0))
        .map_err(PrepareError::io("read", path))?;
    Ok(scan(&mut file, path, train_characters)?.bytes)
}

struct Scanned {
    characters: u64,
    bytes: u64,
}

/// Passes over UTF-8 text up to the start of character number `stop`.
fn scan(file: &mut File, path: &Path, stop: u64) -> Result<Scanned, PrepareError> {
    let mut buffer = vec![0; 1 << 20];
    let mut at = Scanned {
        characters: 0,
        bytes: 0,
    };
    loop {
        let read = file
            .read(&mut buffer)
            .map_err(PrepareError::io("read", path))?;
        if read == 0 {
            return Ok(at);
        }
        // Every byte but a continuation byte, 10xxxxxx, starts a character.
        let starts = |byte: &&u8| **byte & 0xC0 != 0x80;
        let begun = buffer[..read].iter().filter(starts).count() as u64;
        if at.characters + begun > stop {
            let mut left = stop - at.characters;
            let found = buffer[..read].iter().position(|byte| {
                let found = starts(&byte) && left == 0;
                left -= u64::from(starts(&byte) && left > 0);
                found
            });
            at.bytes += found.unwrap_or(read) as u64;
            at.characters = stop;
            return Ok(at);
        }
        at.characters += begun;
        at.bytes += read as u64;
    }
}
