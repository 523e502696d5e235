//! Reading files of any size in blocks that can be encoded apart, on all cores, in order.
//!
//! Text is read as Python's `open(path, "r")` reads it, and with it nanoGPT: CR and CRLF become LF. A byte order mark at
//! the start of a file is no text.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Take};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::ProgressBar;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::PrepareError;
use super::encoding::{MARK, first_fault};
use super::input::{Format, InputFile};
use crate::data::Split;
use crate::tokenizer::last_boundary;

/// About the length of a block; a batch is two of them per core.
pub(super) const BLOCK_BYTES: usize = 1 << 20;
/// Longest line, or text without whitespace, that is held whole.
const LONGEST_BYTES: usize = 256 << 20;

/// A range of an input file; with a split, all of it belongs there.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub source: usize,
    pub range: Range<u64>,
    pub split: Option<Split>,
}

/// A section for each file, as a whole.
pub(super) fn whole_files(sources: &[InputFile]) -> Vec<Section> {
    let sections = sources.iter().enumerate().map(|(source, file)| Section {
        source,
        range: 0..file.bytes,
        split: None,
    });
    sections.collect()
}

/// Some text of one section: part of one document, or whole lines of JSON.
#[derive(Debug)]
pub(super) struct Block {
    pub source: usize,
    pub split: Option<Split>,
    pub text: String,
    /// The number of the document that `text` is in, or of its first one, over all sources.
    pub document: u64,
    /// The number of its first line in the file, from 1 (JSON lines only).
    pub line: u64,
    /// Whether its section ends here.
    pub ends: bool,
}

/// Facts of a file that was read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileRead {
    pub sha256: String,
    /// Whether it has line ends of CR or CRLF.
    pub line_ends: bool,
}

/// The blocks of some sections, in order. The sections of a file follow one another and leave nothing out.
pub(super) struct Blocks<'a> {
    sources: &'a [InputFile],
    sections: std::vec::IntoIter<Section>,
    open: Option<Open>,
    block_bytes: usize,
    progress: &'a ProgressBar,
    digest: Sha256,
    line_ends: bool,
    /// Documents begun in earlier sections and blocks; a blank line is none.
    documents: u64,
    /// Each file that was read to its end.
    pub files: Vec<FileRead>,
}

struct Open {
    section: Section,
    reader: Take<File>,
    /// Text read and not yet given out.
    pending: Vec<u8>,
    /// Whether the last byte read was CR.
    after_return: bool,
    line: u64,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(
        sources: &'a [InputFile],
        sections: Vec<Section>,
        block_bytes: usize,
        progress: &'a ProgressBar,
    ) -> Self {
        Blocks {
            sources,
            sections: sections.into_iter(),
            open: None,
            block_bytes,
            progress,
            digest: Sha256::new(),
            line_ends: false,
            documents: 0,
            files: Vec::new(),
        }
    }

    fn next_block(&mut self) -> Result<Option<Block>, PrepareError> {
        loop {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => match self.sections.next() {
                    Some(section) => self.begin(section)?,
                    None => return Ok(None),
                },
            };
            let source = &self.sources[open.section.source];
            let (text, ends) = self.next_text(&mut open, source)?;
            self.progress.inc(text.len() as u64);
            let block = Block {
                source: open.section.source,
                split: open.section.split,
                document: self.documents,
                line: open.line,
                text,
                ends,
            };
            if source.format == Format::JsonLines {
                open.line += block.text.lines().count() as u64;
            }
            if !ends {
                self.open = Some(open);
            } else if open.section.range.end == source.bytes {
                self.files.push(FileRead {
                    sha256: hex(&self.digest.finalize_reset()),
                    line_ends: std::mem::take(&mut self.line_ends),
                });
            }
            if block.text.is_empty() {
                continue; // An empty file is no document.
            }
            let lines = block.text.lines();
            self.documents += match source.format {
                Format::Text => u64::from(ends),
                Format::JsonLines => lines.filter(|line| !line.trim().is_empty()).count() as u64,
            };
            return Ok(Some(block));
        }
    }

    fn begin(&mut self, section: Section) -> Result<Open, PrepareError> {
        let source = &self.sources[section.source];
        let path = &source.path;
        let start = section.range.start;
        let mut file = File::open(path).map_err(PrepareError::io("open", path))?;
        file.seek(SeekFrom::Start(start))
            .map_err(PrepareError::io("read", path))?;
        let mut reader = file.take(section.range.end - start);
        if start == 0 && source.mark {
            let mut mark = [0; MARK.len()];
            let read = reader.read_exact(&mut mark);
            if read.is_err() || mark != MARK {
                return Err(PrepareError::Changed { path: path.clone() });
            }
            self.digest.update(mark);
        }
        Ok(Open {
            reader,
            pending: Vec::new(),
            after_return: false,
            line: 1,
            section,
        })
    }

    /// The next text, and whether it is the last one of the section; empty only if the section is.
    fn next_text(
        &mut self,
        open: &mut Open,
        source: &InputFile,
    ) -> Result<(String, bool), PrepareError> {
        let mut wanted = open.pending.len() + self.block_bytes;
        loop {
            let start = open.pending.len();
            let missing = (wanted - start) as u64;
            let read = (&mut open.reader)
                .take(missing)
                .read_to_end(&mut open.pending);
            let read = read.map_err(PrepareError::io("read", &source.path))? as u64;
            if read < missing && open.reader.limit() > 0 {
                return Err(PrepareError::Changed {
                    path: source.path.clone(),
                });
            }
            self.digest.update(&open.pending[start..]);
            self.line_ends |= translate(&mut open.pending, start, &mut open.after_return);
            let ends = open.reader.limit() == 0;
            let text = valid_text(&open.pending, source, ends)?;
            let cut = match source.format {
                _ if ends => Some(text.len()),
                Format::Text => last_boundary(text),
                Format::JsonLines => text.rfind('\n').map(|end| end + 1),
            };
            if let Some(cut) = cut {
                let text = text[..cut].to_owned();
                open.pending.drain(..cut);
                return Ok((text, ends));
            }
            if wanted >= LONGEST_BYTES {
                return Err(PrepareError::Unbroken {
                    path: source.path.clone(),
                    bytes: wanted,
                });
            }
            wanted *= 2;
        }
    }
}

impl Iterator for Blocks<'_> {
    type Item = Result<Block, PrepareError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_block().transpose()
    }
}

/// Makes LF of every CR and CRLF in `bytes[from..]`. `after_return` says whether CR came before it, and is left for the
/// bytes that follow. Returns whether there was a CR.
fn translate(bytes: &mut Vec<u8>, from: usize, after_return: &mut bool) -> bool {
    let found = bytes[from..].contains(&b'\r');
    if !found && !*after_return {
        return false;
    }
    let mut to = from;
    for at in from..bytes.len() {
        let byte = bytes[at];
        let of_pair = byte == b'\n' && *after_return;
        *after_return = byte == b'\r';
        if !of_pair {
            bytes[to] = if byte == b'\r' { b'\n' } else { byte };
            to += 1;
        }
    }
    bytes.truncate(to);
    found
}

/// The characters in `bytes`; more bytes may complete the last one unless the section ends.
fn valid_text<'a>(
    bytes: &'a [u8],
    source: &InputFile,
    ends: bool,
) -> Result<&'a str, PrepareError> {
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    let valid = std::str::from_utf8(&bytes[..error.valid_up_to()]);
    if let (None, Ok(text), false) = (error.error_len(), valid, ends) {
        return Ok(text);
    }
    let path = &source.path;
    let fault = first_fault(path).map_err(PrepareError::io("read", path))?;
    Err(match fault {
        Some(fault) => PrepareError::InvalidUtf8 {
            path: path.clone(),
            offset: fault.offset,
            line: fault.line,
            content: fault.content,
        },
        None => PrepareError::Changed { path: path.clone() },
    })
}

/// Does `work` on every block on all cores, and hands the results to `sink` in the order of the
/// blocks. Two batches are in memory: one is worked on while the next is read.
pub(super) fn in_order<T: Send>(
    blocks: &mut Blocks,
    interrupted: &AtomicBool,
    work: impl Fn(Block) -> Result<T, PrepareError> + Sync,
    mut sink: impl FnMut(T) -> Result<(), PrepareError>,
) -> Result<bool, PrepareError> {
    let width = 2 * rayon::current_num_threads();
    let mut read = || blocks.take(width).collect::<Result<Vec<Block>, _>>();
    let mut batch = read()?;
    while !batch.is_empty() {
        if interrupted.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let (results, next) = rayon::join(
            || batch.into_par_iter().map(&work).collect::<Vec<_>>(),
            &mut read,
        );
        for result in results {
            sink(result?)?;
        }
        batch = next?;
    }
    Ok(true)
}

pub(super) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
