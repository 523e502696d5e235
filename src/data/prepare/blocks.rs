//! Reading files of any size in blocks that can be encoded apart, on all cores, in order.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Take};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::ProgressBar;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::PrepareError;
use crate::data::Split;
use crate::tokenizer::last_boundary;

/// About the length of a block; a batch is two of them per core.
const BLOCK_BYTES: usize = 1 << 20;
/// Longest line, or text without whitespace, that is held whole.
const LONGEST_BYTES: usize = 256 << 20;

/// Division of a file into documents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Format {
    /// The file is one document.
    Text,
    /// Each line is a JSON object with one document in a field.
    JsonLines,
}

/// One input file.
#[derive(Clone, Debug)]
pub(super) struct InputFile {
    pub path: PathBuf,
    pub format: Format,
    pub bytes: u64,
}

impl InputFile {
    pub(super) fn new(path: &Path) -> Result<InputFile, PrepareError> {
        let metadata = std::fs::metadata(path).map_err(PrepareError::io("read", path))?;
        if !metadata.is_file() {
            return Err(PrepareError::NotAFile { path: path.into() });
        }
        let extension = path.extension().and_then(|e| e.to_str());
        Ok(InputFile {
            path: path.to_owned(),
            format: match extension {
                Some("jsonl" | "ndjson") => Format::JsonLines,
                _ => Format::Text,
            },
            bytes: metadata.len(),
        })
    }
}

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

/// The blocks of some sections, in order.
pub(super) struct Blocks<'a> {
    sources: &'a [InputFile],
    sections: std::vec::IntoIter<Section>,
    open: Option<Open>,
    progress: &'a ProgressBar,
    /// Documents begun in earlier sections and blocks.
    pub documents: u64,
    /// The sha256 of each section read to its end.
    pub digests: Vec<String>,
}

struct Open {
    section: Section,
    reader: Take<File>,
    /// Bytes read and not yet given out.
    pending: Vec<u8>,
    /// Position of `pending` in the file.
    offset: u64,
    line: u64,
    digest: Sha256,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(
        sources: &'a [InputFile],
        sections: Vec<Section>,
        progress: &'a ProgressBar,
    ) -> Self {
        Blocks {
            sources,
            sections: sections.into_iter(),
            open: None,
            progress,
            documents: 0,
            digests: Vec::new(),
        }
    }

    fn next_block(&mut self) -> Result<Option<Block>, PrepareError> {
        loop {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => match self.sections.next() {
                    Some(section) => Open::new(&self.sources[section.source], section)?,
                    None => return Ok(None),
                },
            };
            let source = &self.sources[open.section.source];
            let Some((text, ends)) = open.next_text(source)? else {
                continue; // An empty file is no document.
            };
            self.progress.inc(text.len() as u64);
            open.digest.update(text.as_bytes());
            let block = Block {
                source: open.section.source,
                split: open.section.split,
                document: self.documents,
                line: open.line,
                text,
                ends,
            };
            self.documents += match source.format {
                Format::Text => u64::from(ends),
                Format::JsonLines => {
                    open.line += block.text.lines().count() as u64;
                    block
                        .text
                        .lines()
                        .filter(|line| !line.trim().is_empty())
                        .count() as u64
                }
            };
            if ends {
                self.digests.push(hex(&open.digest.finalize()));
            } else {
                self.open = Some(open);
            }
            return Ok(Some(block));
        }
    }
}

impl Iterator for Blocks<'_> {
    type Item = Result<Block, PrepareError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_block().transpose()
    }
}

impl Open {
    fn new(source: &InputFile, section: Section) -> Result<Open, PrepareError> {
        let path = &source.path;
        let mut file = File::open(path).map_err(PrepareError::io("open", path))?;
        let start = section.range.start;
        file.seek(SeekFrom::Start(start))
            .map_err(PrepareError::io("read", path))?;
        Ok(Open {
            reader: file.take(section.range.end - start),
            pending: Vec::new(),
            offset: start,
            line: 1,
            digest: Sha256::new(),
            section,
        })
    }

    /// The next text, and whether it is the last one of the section.
    fn next_text(&mut self, source: &InputFile) -> Result<Option<(String, bool)>, PrepareError> {
        let mut wanted = BLOCK_BYTES;
        loop {
            let missing = (wanted - self.pending.len()) as u64;
            let read = (&mut self.reader)
                .take(missing)
                .read_to_end(&mut self.pending);
            let read = read.map_err(PrepareError::io("read", &source.path))? as u64;
            if read < missing && self.reader.limit() > 0 {
                return Err(PrepareError::Changed {
                    path: source.path.clone(),
                });
            }
            if self.pending.is_empty() {
                return Ok(None);
            }
            let ends = self.reader.limit() == 0;
            let text = self.valid_text(source, ends)?;
            let cut = match source.format {
                _ if ends => Some(text.len()),
                Format::Text => last_boundary(text),
                Format::JsonLines => text.rfind('\n').map(|end| end + 1),
            };
            if let Some(cut) = cut {
                let text = text[..cut].to_owned();
                self.pending.drain(..cut);
                self.offset += cut as u64;
                return Ok(Some((text, ends)));
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

    /// The characters in `pending`; more bytes may complete the last one unless the section ends.
    fn valid_text(&self, source: &InputFile, ends: bool) -> Result<&str, PrepareError> {
        let error = match std::str::from_utf8(&self.pending) {
            Ok(text) => return Ok(text),
            Err(error) => error,
        };
        let valid = &self.pending[..error.valid_up_to()];
        match (error.error_len(), std::str::from_utf8(valid)) {
            (None, Ok(text)) if !ends => Ok(text),
            _ => Err(PrepareError::InvalidUtf8 {
                path: source.path.clone(),
                offset: self.offset + valid.len() as u64,
            }),
        }
    }
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
