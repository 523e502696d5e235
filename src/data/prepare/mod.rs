//! Text files to token files: two passes, bounded memory, every core, all or nothing.
//!
//! The first pass checks the input and collects the characters and the number of documents for
//! the second. The second encodes into a hidden folder, which then takes the place of the old one.

mod blocks;
mod encoding;
mod error;
mod input;
mod json;
mod note;
mod shakespeare;
mod staging;
mod survey;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;

use self::blocks::{BLOCK_BYTES, Block, Blocks, FileRead, Section, in_order, whole_files};
use self::input::{Format, InputFile};
use self::staging::Staging;
use self::survey::{ByDocument, Survey, byte_of_split, survey};
use super::Split;
use super::vocabulary::{META_FILE, Meta, SourceMeta};
use crate::tokenizer::{Encoder, Tokenizer, TokenizerKind};

pub use encoding::Content;
pub use error::PrepareError;
pub use json::JsonError;
pub use note::{Lines, Note};
pub use shakespeare::{ExpectedText, fetch};

/// The input, the tokenizer and the output of a preparation.
#[derive(Clone, Debug)]
pub struct PrepareRequest {
    /// `.jsonl` files, and `.json` files of JSON lines, hold one document per line, in `field`; any other file is one
    /// document.
    pub files: Vec<PathBuf>,
    pub field: String,
    pub tokenizer: TokenizerKind,
    pub out: PathBuf,
    /// Fraction for val, in (0, 1): of the characters of a single text file, else of the documents.
    pub val_fraction: f64,
    /// The text that a single file must be.
    pub expected: Option<ExpectedText>,
}

/// Figures of the dataset that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    pub train_tokens: u64,
    pub val_tokens: u64,
    pub vocab_size: usize,
    pub documents: u64,
    pub bytes: u64,
    /// Things that were guessed, changed, left out or replaced.
    pub notes: Vec<Note>,
}

/// Writes `train.bin`, `val.bin`, the tokenizer's files and `meta.json` to `request.out`.
///
/// With more than one document, each is set apart: `<|endoftext|>` follows it with GPT-2's BPE (nanoGPT's openwebtext),
/// and with characters a line feed does, unless it ends in one. `progress` counts bytes; when `interrupted` becomes
/// true the work is undone. A dataset that is there is replaced as a whole, and other files in the folder stay.
pub fn prepare(
    request: &PrepareRequest,
    progress: &ProgressBar,
    interrupted: &AtomicBool,
) -> Result<Prepared, PrepareError> {
    let stopped = || PrepareError::Interrupted {
        folder: request.out.clone(),
    };
    let sources = input::open(&request.files)?;
    let bytes = sources.iter().map(|source| source.bytes).sum();
    progress.set_length(bytes);
    progress.set_message("reading");
    let found = survey(&sources, &request.field, progress, interrupted)?;
    let mut found = found.ok_or_else(stopped)?;
    check(request, &found)?;

    let documents = found.counts.documents;
    let division = divide(request, &sources, &found)?;
    let tokenizer = match request.tokenizer {
        TokenizerKind::Gpt2 => Tokenizer::gpt2()?,
        TokenizerKind::Char => {
            if documents > 1 {
                found.characters.insert('\n');
            }
            Tokenizer::char(&found.characters.sorted())?
        }
    };
    progress.reset();
    progress.set_message("encoding");
    let staging = Staging::begin(&request.out)?;
    let encode = Encode {
        sources: &sources,
        field: &request.field,
        encoders: (0..rayon::current_num_threads())
            .map(|_| Mutex::new(tokenizer.encoder()))
            .collect(),
        separator: separator(&tokenizer, documents)?,
        by_document: division.by_document,
    };
    let mut blocks = Blocks::new(&sources, division.sections, BLOCK_BYTES, progress);
    let [train_tokens, val_tokens] = encode
        .blocks(&mut blocks, &staging.folder, interrupted)?
        .ok_or_else(stopped)?;
    check_unchanged(&sources, &found.files, &blocks.files)?;
    let mut notes = input::notes(&sources);
    notes.extend(found.notes(&sources, &request.field));
    if !staging.replaced().is_empty() {
        notes.push(Note::Replaced {
            folder: request.out.clone(),
            files: staging.replaced().to_vec(),
        });
    }
    let prepared = Prepared {
        train_tokens,
        val_tokens,
        vocab_size: tokenizer.vocab_size(),
        documents,
        bytes,
        notes,
    };
    tokenizer.save(&staging.folder)?;
    write_meta(&staging.folder, request, &sources, found.files, &prepared)?;
    staging.commit()?;
    progress.finish_and_clear();
    Ok(prepared)
}

fn check(request: &PrepareRequest, found: &Survey) -> Result<(), PrepareError> {
    if found.counts.documents == 0 || found.counts.characters == 0 {
        return Err(PrepareError::NoText {
            paths: request.files.clone(),
        });
    }
    match (&request.expected, &request.files[..], &found.files[..]) {
        (Some(expected), [path], [file]) => {
            expected.check(&path.display().to_string(), &file.sha256)
        }
        _ => Ok(()),
    }
}

/// Compares what the two passes have read.
fn check_unchanged(
    sources: &[InputFile],
    first: &[FileRead],
    second: &[FileRead],
) -> Result<(), PrepareError> {
    for (source, (first, second)) in sources.iter().zip(first.iter().zip(second)) {
        let path = &source.path;
        let metadata = std::fs::metadata(path).map_err(PrepareError::io("read", path))?;
        if first != second || metadata.len() != source.bytes {
            return Err(PrepareError::Changed { path: path.clone() });
        }
    }
    Ok(())
}

/// The end of each of several documents.
#[derive(Clone, Copy)]
enum Separator {
    /// `<|endoftext|>` follows.
    EndOfText(u32),
    /// A line feed follows, unless one is there.
    LineFeed(u32),
}

impl Separator {
    fn after(self, text: &str) -> Option<u32> {
        match self {
            Separator::EndOfText(id) => Some(id),
            Separator::LineFeed(id) => (!text.ends_with('\n')).then_some(id),
        }
    }
}

fn separator(tokenizer: &Tokenizer, documents: u64) -> Result<Option<Separator>, PrepareError> {
    if documents < 2 {
        return Ok(None);
    }
    if let Some(id) = tokenizer.end_of_text() {
        return Ok(Some(Separator::EndOfText(id)));
    }
    let ids = tokenizer.encode("\n")?;
    Ok(ids.first().map(|&id| Separator::LineFeed(id)))
}

/// The sections to encode, and the division of documents between the splits where sections belong to none.
struct Division {
    sections: Vec<Section>,
    by_document: Option<ByDocument>,
}

fn divide(
    request: &PrepareRequest,
    sources: &[InputFile],
    found: &Survey,
) -> Result<Division, PrepareError> {
    if let [source] = sources
        && source.format == Format::Text
    {
        let middle = byte_of_split(source, found.counts.characters, request.val_fraction)?;
        let section = |range, split| Section {
            source: 0,
            range,
            split: Some(split),
        };
        let train = section(0..middle, Split::Train);
        let val = section(middle..source.bytes, Split::Val);
        return Ok(Division {
            sections: vec![train, val],
            by_document: None,
        });
    }
    if found.counts.documents == 1 {
        return Err(PrepareError::OneDocument);
    }
    Ok(Division {
        sections: whole_files(sources),
        by_document: Some(ByDocument::new(&found.counts, request.val_fraction)),
    })
}

/// The second pass.
struct Encode<'a> {
    sources: &'a [InputFile],
    field: &'a str,
    /// One per thread of the pool.
    encoders: Vec<Mutex<Encoder<'a>>>,
    separator: Option<Separator>,
    by_document: Option<ByDocument>,
}

/// Little-endian u16 tokens for train and val.
type SplitBytes = [Vec<u8>; 2];

impl Encode<'_> {
    /// Writes `train.bin` and `val.bin` to `folder`, and returns their numbers of tokens; `None` when interrupted.
    fn blocks(
        &self,
        blocks: &mut Blocks,
        folder: &Path,
        interrupted: &AtomicBool,
    ) -> Result<Option<[u64; 2]>, PrepareError> {
        let mut files = SplitFiles::create(folder)?;
        let complete = in_order(
            blocks,
            interrupted,
            |block| self.block(block),
            |ids| files.append(&ids),
        )?;
        if !complete {
            return Ok(None);
        }
        files.finish().map(Some)
    }

    fn block(&self, block: Block) -> Result<SplitBytes, PrepareError> {
        let encoder = &self.encoders[rayon::current_thread_index().unwrap_or(0)];
        let mut encoder = encoder.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = SplitBytes::default();
        let mut ids = Vec::new();
        for part in block.documents(&self.sources[block.source], self.field) {
            let part = part?;
            let Some(text) = part.text else { continue };
            ids.clear();
            encoder.encode(&text, &mut ids)?;
            let separator = self.separator.filter(|_| part.ends);
            ids.extend(separator.and_then(|separator| separator.after(&text)));
            let drawn = self.by_document.map(|by| by.split(part.document));
            let split = block.split.or(drawn).unwrap_or(Split::Train);
            // Ids fit: no vocabulary is larger than `MAX_VOCAB_SIZE`.
            bytes[split as usize].extend(ids.iter().flat_map(|&id| (id as u16).to_le_bytes()));
        }
        Ok(bytes)
    }
}

/// `train.bin` and `val.bin` as they are written.
struct SplitFiles {
    files: [(PathBuf, BufWriter<File>); 2],
    bytes: [u64; 2],
}

impl SplitFiles {
    fn create(folder: &Path) -> Result<SplitFiles, PrepareError> {
        let create = |split: Split| {
            let path = folder.join(format!("{}.bin", split.name()));
            let file = File::create(&path).map_err(PrepareError::io("create", &path))?;
            Ok::<_, PrepareError>((path, BufWriter::new(file)))
        };
        Ok(SplitFiles {
            files: [create(Split::Train)?, create(Split::Val)?],
            bytes: [0; 2],
        })
    }

    fn append(&mut self, bytes: &SplitBytes) -> Result<(), PrepareError> {
        for (i, (path, file)) in self.files.iter_mut().enumerate() {
            file.write_all(&bytes[i])
                .map_err(PrepareError::io("write", path))?;
            self.bytes[i] += bytes[i].len() as u64;
        }
        Ok(())
    }

    /// The number of tokens in each file; both must have some.
    fn finish(mut self) -> Result<[u64; 2], PrepareError> {
        for (path, file) in &mut self.files {
            file.flush().map_err(PrepareError::io("write", path))?;
        }
        for split in [Split::Train, Split::Val] {
            if self.bytes[split as usize] == 0 {
                return Err(PrepareError::EmptySplit {
                    split: split.name(),
                });
            }
        }
        Ok(self.bytes.map(|bytes| bytes / 2))
    }
}

fn write_meta(
    folder: &Path,
    request: &PrepareRequest,
    sources: &[InputFile],
    files: Vec<FileRead>,
    prepared: &Prepared,
) -> Result<(), PrepareError> {
    let meta = Meta {
        tokenizer: request.tokenizer,
        vocab_size: prepared.vocab_size,
        train_tokens: prepared.train_tokens,
        val_tokens: prepared.val_tokens,
        documents: prepared.documents,
        val_fraction: request.val_fraction,
        sources: sources
            .iter()
            .zip(files)
            .filter(|(source, _)| source.bytes > 0)
            .map(|(source, file)| SourceMeta {
                path: source.path.display().to_string(),
                bytes: source.bytes,
                sha256: file.sha256,
            })
            .collect(),
    };
    let path = folder.join(META_FILE);
    let io = PrepareError::io("write", &path);
    let text = serde_json::to_string_pretty(&meta).map_err(std::io::Error::from);
    text.and_then(|text| std::fs::write(&path, text + "\n"))
        .map_err(io)
}
