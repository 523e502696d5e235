//! Reading files of any size in blocks that can be encoded apart, in order.
//!
//! Text is read as Python's `open(path, "r")` reads it, and with it nanoGPT: CR and CRLF become LF. A byte order mark at
//! the start of a file is no text.

mod lines;

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

use self::lines::OpenText;
use super::PrepareError;
use super::input::{Format, InputFile};
use super::pipeline::Weight;
use super::table::Rows;
use crate::data::Split;

/// About the length of a block.
pub(super) const BLOCK_BYTES: usize = 1 << 20;
/// Longest line, or text without whitespace, that is held whole.
const LONGEST_BYTES: usize = 256 << 20;
/// Most rows of a table in one block.
const MOST_ROWS: usize = 1 << 14;

/// A place between two blocks, at which reading can begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub source: usize,
    /// Unpacked bytes before it in the file; in a table, rows.
    pub at: u64,
    /// Lines before it in the file (JSON lines only).
    pub lines: u64,
    /// Documents before it, over all sources; a blank line is none, a null is one.
    pub documents: u64,
}

/// The texts of a block.
#[derive(Debug)]
pub(super) enum Body {
    /// Part of one document, or all of it.
    Part(String),
    /// Whole lines of JSON.
    Lines(String),
    /// Whole rows: their bytes, and the end of each; `None` for a null.
    Rows {
        bytes: Vec<u8>,
        ends: Vec<Option<usize>>,
    },
}

/// Some text of one file.
#[derive(Debug)]
pub(super) struct Block {
    pub source: usize,
    /// The split to which all of it belongs, where it is divided by place.
    pub split: Option<Split>,
    pub body: Body,
    /// The place before it.
    pub start: Position,
    /// The place after it.
    pub end: Position,
    /// Whether a document ends with it, where it is a part of one.
    pub ends: bool,
    /// Facts of its file, if it is the last block of a file that was read from its start.
    pub file: Option<FileRead>,
}

impl Weight for Block {
    fn bytes(&self) -> usize {
        /// A block's own share.
        const SELF: usize = 1 << 10;
        SELF + match &self.body {
            Body::Part(text) | Body::Lines(text) => text.len(),
            Body::Rows { bytes, ends } => bytes.len() + size_of_val(&ends[..]),
        }
    }
}

/// Facts of a file that was read to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileRead {
    /// `None` for a table, of which one column is read.
    pub sha256: Option<String>,
    /// Whether it has line ends of CR or CRLF.
    pub line_ends: bool,
}

/// The blocks of all files, in order.
pub(super) struct Blocks<'a> {
    sources: &'a [InputFile],
    /// Documents of files that are passed over.
    passed: Vec<Option<u64>>,
    next: Position,
    open: Option<Open>,
    block_bytes: usize,
    /// Unpacked byte at which a single text is divided.
    middle: Option<u64>,
    progress: &'a ProgressBar,
}

enum Open {
    Text(OpenText),
    Table(Box<Rows>),
}

impl<'a> Blocks<'a> {
    pub(super) fn new(
        sources: &'a [InputFile],
        block_bytes: usize,
        progress: &'a ProgressBar,
    ) -> Self {
        Blocks {
            sources,
            passed: vec![None; sources.len()],
            next: Position::default(),
            open: None,
            block_bytes,
            middle: None,
            progress,
        }
    }

    /// Passes over the files whose number of documents is given.
    pub(super) fn passing(mut self, passed: Vec<Option<u64>>) -> Self {
        self.passed = passed;
        self
    }

    /// Begins at `position`, which is the end of a block.
    pub(super) fn from(mut self, position: Position) -> Self {
        let before = self.sources.iter().take(position.source);
        self.progress.inc(before.map(|source| source.bytes).sum());
        self.next = position;
        self
    }

    /// Cuts at unpacked byte `middle` of a single text: train before it, val after it.
    pub(super) fn divided(mut self, middle: Option<u64>) -> Self {
        self.middle = middle;
        self
    }

    fn next_block(&mut self) -> Result<Option<Block>, PrepareError> {
        if self.open.is_none() {
            while let Some(&Some(documents)) = self.passed.get(self.next.source) {
                self.progress.inc(self.sources[self.next.source].bytes);
                self.next.documents += documents;
                self.next_file();
            }
        }
        let Some(source) = self.sources.get(self.next.source) else {
            return Ok(None);
        };
        let open = match self.open.take() {
            Some(open) => open,
            None => match &source.table {
                Some(table) => {
                    self.progress.inc(share(source, self.next.at));
                    Open::Table(Box::new(table.rows(&source.path, self.next.at)?))
                }
                None => {
                    let text = OpenText::begin(source, self.next.at, self.middle)?;
                    self.progress.inc(text.bytes_read());
                    Open::Text(text)
                }
            },
        };
        let block = match open {
            Open::Text(text) => self.next_text(source, text)?,
            Open::Table(rows) => self.next_rows(source, rows)?,
        };
        Ok(Some(block))
    }

    fn next_file(&mut self) {
        self.next = Position {
            source: self.next.source + 1,
            at: 0,
            lines: 0,
            documents: self.next.documents,
        };
    }

    fn next_text(&mut self, source: &InputFile, mut open: OpenText) -> Result<Block, PrepareError> {
        let start = self.next;
        let before = open.bytes_read();
        let split = open.split(self.middle);
        let text = open.next(source, self.block_bytes)?;
        self.progress.inc(open.bytes_read() - before);
        self.next.at = open.at;
        let (is_last, ends) = (open.is_last(), open.part_ends());
        let body = if source.format == Format::Text {
            self.next.documents += u64::from(is_last && open.at > open.start_of_text);
            Body::Part(text)
        } else {
            self.next.lines += text.lines().count() as u64;
            let filled = text.lines().filter(|line| !line.trim().is_empty());
            self.next.documents += filled.count() as u64;
            Body::Lines(text)
        };
        let file = open.finished();
        if is_last {
            self.next_file();
        } else {
            self.open = Some(Open::Text(open));
        }
        Ok(Block {
            source: start.source,
            split,
            body,
            start,
            end: self.next,
            ends,
            file,
        })
    }

    fn next_rows(
        &mut self,
        source: &InputFile,
        mut rows: Box<Rows>,
    ) -> Result<Block, PrepareError> {
        let start = self.next;
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        let mut is_last = false;
        while bytes.len() < self.block_bytes && ends.len() < MOST_ROWS {
            let Some(row) = rows.next(&source.path)? else {
                is_last = true;
                break;
            };
            ends.push(row.map(|row| {
                bytes.extend_from_slice(row.data());
                bytes.len()
            }));
        }
        self.next.at += ends.len() as u64;
        self.next.documents += ends.len() as u64;
        self.progress
            .inc(share(source, self.next.at) - share(source, start.at));
        if is_last {
            self.next_file();
        } else {
            self.open = Some(Open::Table(rows));
        }
        Ok(Block {
            source: start.source,
            split: None,
            body: Body::Rows { bytes, ends },
            start,
            end: self.next,
            ends: true,
            file: is_last.then(|| FileRead {
                sha256: source.sha256.clone(),
                line_ends: false,
            }),
        })
    }
}

/// Bytes of a table that its first `rows` rows stand for, of which one column is read.
fn share(source: &InputFile, rows: u64) -> u64 {
    let total = source.table.as_ref().map_or(0, |table| table.rows).max(1);
    (u128::from(source.bytes) * u128::from(rows) / u128::from(total)) as u64
}

impl Iterator for Blocks<'_> {
    type Item = Result<Block, PrepareError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_block().transpose()
    }
}

#[cfg(test)]
mod tests;
