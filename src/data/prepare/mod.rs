//! Text files to token files: two passes, bounded memory, every core, all or nothing.
//!
//! The first pass checks the input and collects the characters and the number of documents for
//! the second. The second encodes into a hidden folder, whose files then replace the old ones.

mod blocks;
mod error;
mod shakespeare;
mod staging;
mod survey;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;

use self::blocks::{Block, Blocks, Format, InputFile, Section, in_order, whole_files};
use self::staging::Staging;
use self::survey::{ByDocument, Survey, byte_of_split, survey};
use super::Split;
use super::vocabulary::{META_FILE, Meta, SourceMeta};
use crate::tokenizer::{Encoder, Tokenizer, TokenizerKind};

pub use error::PrepareError;
pub use shakespeare::{ExpectedText, fetch};

/// The input, the tokenizer and the output of a preparation.
#[derive(Clone, Debug)]
pub struct PrepareRequest {
    /// `.jsonl` files hold one document per line, in `field`; any other file is one document.
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
}

/// Writes `train.bin`, `val.bin`, the tokenizer's files and `meta.json` to `request.out`.
///
/// With GPT-2's BPE and more than one document, `<|endoftext|>` follows each (nanoGPT's
/// openwebtext). `progress` counts bytes; when `interrupted` becomes true the work is undone.
pub fn prepare(
    request: &PrepareRequest,
    progress: &ProgressBar,
    interrupted: &AtomicBool,
) -> Result<Prepared, PrepareError> {
    let stopped = || PrepareError::Interrupted {
        folder: request.out.clone(),
    };
    let sources = request.files.iter().map(|path| InputFile::new(path));
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    let bytes = sources.iter().map(|source| source.bytes).sum();
    progress.set_length(bytes);
    progress.set_message("reading");
    let found = survey(&sources, &request.field, progress, interrupted)?.ok_or_else(stopped)?;
    check(request, &found)?;

    let division = divide(request, &sources, &found)?;
    let tokenizer = match request.tokenizer {
        TokenizerKind::Gpt2 => Tokenizer::gpt2()?,
        TokenizerKind::Char => Tokenizer::char(&found.characters.sorted())?,
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
        separator: tokenizer.end_of_text().filter(|_| found.documents > 1),
        by_document: division.by_document,
    };
    let mut blocks = Blocks::new(&sources, division.sections, progress);
    let [train_tokens, val_tokens] = encode
        .blocks(&mut blocks, &staging.folder, interrupted)?
        .ok_or_else(stopped)?;
    let prepared = Prepared {
        train_tokens,
        val_tokens,
        vocab_size: tokenizer.vocab_size(),
        documents: found.documents,
        bytes,
    };
    tokenizer.save(&staging.folder)?;
    write_meta(&staging.folder, request, &sources, found.digests, &prepared)?;
    // meta.json last: it counts the tokens, so that a crash between two renames is noticed.
    staging.commit(&[
        "train.bin",
        "val.bin",
        "tokenizer.json",
        "tokenizer_config.json",
        META_FILE,
    ])?;
    progress.finish_and_clear();
    Ok(prepared)
}

fn check(request: &PrepareRequest, found: &Survey) -> Result<(), PrepareError> {
    if found.documents == 0 || found.characters.sorted().is_empty() {
        return Err(PrepareError::NoText {
            paths: request.files.clone(),
        });
    }
    match (&request.expected, &request.files[..], &found.digests[..]) {
        (Some(expected), [path], [digest]) => expected.check(&path.display().to_string(), digest),
        _ => Ok(()),
    }
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
        let middle = byte_of_split(source, request.val_fraction)?;
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
    if found.documents == 1 {
        return Err(PrepareError::OneDocument);
    }
    Ok(Division {
        sections: whole_files(sources),
        by_document: Some(ByDocument::new(found.documents, request.val_fraction)),
    })
}

/// The second pass.
struct Encode<'a> {
    sources: &'a [InputFile],
    field: &'a str,
    /// One per thread of the pool.
    encoders: Vec<Mutex<Encoder<'a>>>,
    separator: Option<u32>,
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
            ids.clear();
            encoder.encode(&part.text, &mut ids)?;
            ids.extend(self.separator.filter(|_| part.ends));
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
    digests: Vec<String>,
    prepared: &Prepared,
) -> Result<(), PrepareError> {
    let filled = sources.iter().filter(|source| source.bytes > 0);
    let meta = Meta {
        tokenizer: request.tokenizer,
        vocab_size: prepared.vocab_size,
        train_tokens: prepared.train_tokens,
        val_tokens: prepared.val_tokens,
        documents: prepared.documents,
        val_fraction: request.val_fraction,
        sources: filled
            .zip(digests)
            .map(|(source, sha256)| SourceMeta {
                path: source.path.display().to_string(),
                bytes: source.bytes,
                sha256,
            })
            .collect(),
    };
    let path = folder.join(META_FILE);
    let io = PrepareError::io("write", &path);
    let text = serde_json::to_string_pretty(&meta).map_err(std::io::Error::from);
    text.and_then(|text| std::fs::write(&path, text + "\n"))
        .map_err(io)
}
