//! Text files and tables to token files: bounded memory, every core, all or nothing.
//!
//! The first pass checks the input and collects the characters and the number of documents for
//! the second. The second encodes into a hidden folder, which then takes the place of the old one. Tables need no first
//! pass where GPT-2's BPE encodes them. A journal in the hidden folder lets a preparation that was killed go on.

mod blocks;
mod division;
mod encode;
mod encoding;
mod error;
mod find;
mod input;
mod journal;
mod json;
mod note;
mod packed;
mod pipeline;
mod shakespeare;
mod staging;
mod survey;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use indicatif::ProgressBar;

use self::blocks::{BLOCK_BYTES, Blocks, FileRead};
use self::division::{ByDocument, byte_of_split};
use self::encode::{Encode, Tokens};
use self::input::{Format, InputFile};
use self::journal::{Done, Found, Identity, Journal, Progress};
use self::staging::{Staging, change};
use self::survey::{Characters, Counts, Surveyed, notes_on_files, survey};
use super::vocabulary::{META_FILE, META_FORMAT, Meta, SourceMeta};
use crate::tokenizer::{Tokenizer, TokenizerKind};

pub use super::vocabulary::Origin;
pub use encoding::Content;
pub use error::PrepareError;
pub use find::{FoundInputs, find_inputs};
pub use input::RequestedFile;
pub use json::JsonError;
pub use note::{Lines, Note};
pub use shakespeare::{ExpectedText, fetch};

/// The input, the tokenizer and the output of a preparation.
#[derive(Clone, Debug)]
pub struct PrepareRequest {
    /// `.jsonl` files, and `.json` files of JSON lines, hold one document per line, in `field`; Parquet tables one per row,
    /// in the column `field`. Any other file is one document. All but tables may be compressed with gzip or zstd.
    pub files: Vec<RequestedFile>,
    pub field: String,
    pub tokenizer: TokenizerKind,
    pub out: PathBuf,
    /// Fraction for val, in (0, 1): of the characters of a single text file, else of the documents.
    pub val_fraction: f64,
    /// The text that a single file must be.
    pub expected: Option<ExpectedText>,
    /// The place that the files were downloaded from, for `meta.json`.
    pub origin: Option<Origin>,
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

/// Steps in which the work is done; they change nothing of its result.
#[derive(Clone, Copy)]
struct Pace {
    /// About the length of a block.
    block_bytes: usize,
    /// Time between two records of what is done.
    record_every: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            block_bytes: BLOCK_BYTES,
            record_every: Duration::from_secs(5),
        }
    }
}

/// Writes `train.bin`, `val.bin`, the tokenizer's files and `meta.json` to `request.out`.
///
/// With more than one document, each is set apart: `<|endoftext|>` follows it with GPT-2's BPE (nanoGPT's openwebtext),
/// and with characters a line feed does, unless it ends in one. `progress` counts bytes; when `interrupted` becomes
/// true the work stops, and is kept for the next call with the same request, as it is when a file cannot be read or
/// written. Another error undoes it. A dataset that is there is replaced as a whole, and other files in the folder stay.
pub fn prepare(
    request: &PrepareRequest,
    progress: &ProgressBar,
    interrupted: &AtomicBool,
) -> Result<Prepared, PrepareError> {
    prepare_at(Pace::default(), request, progress, interrupted)
}

fn prepare_at(
    pace: Pace,
    request: &PrepareRequest,
    progress: &ProgressBar,
    interrupted: &AtomicBool,
) -> Result<Prepared, PrepareError> {
    let sources = input::open(&request.files, &request.field)?;
    let identity = Identity::of(request, &sources)?;
    let mut staging = Staging::begin(&request.out)?;
    let mut notes = input::notes(&sources);
    let done = match journal::read(&staging.folder, &identity)? {
        Found::Same(done) => {
            notes.push(Note::Resumed {
                documents: done.progress.position.documents,
                tokens: done.progress.bytes.iter().sum::<u64>() / 2,
            });
            *done
        }
        Found::None => Done::default(),
        Found::Other(why) => {
            staging.restart()?;
            notes.push(Note::StartedOver { why });
            Done::default()
        }
    };
    let mut preparation = Preparation {
        pace,
        request,
        sources: &sources,
        folder: &staging.folder,
        journal: Journal::begin(&staging.folder, identity.clone(), &done)?,
        surveyed: done.surveyed,
        progress,
        interrupted,
    };
    let made = preparation.run(done.progress, done.checksums);
    let kept = preparation.journal.has_work;
    let made = made.transpose().unwrap_or_else(|| {
        let folder = request.out.clone();
        Err(PrepareError::Interrupted { folder, kept })
    });
    // An error of the input undoes the work; a full disk does not.
    let is_of_place = matches!(
        made,
        Err(PrepareError::Interrupted { .. } | PrepareError::Io { .. })
    );
    if kept && is_of_place {
        staging.keep();
    }
    let mut prepared = made?;
    if let Some(path) = identity.changed(&sources)? {
        return Err(PrepareError::Changed { path });
    }
    notes.append(&mut prepared.notes);
    if !staging.replaced().is_empty() {
        notes.push(Note::Replaced {
            folder: request.out.clone(),
            files: staging.replaced().to_vec(),
        });
    }
    staging.commit()?;
    progress.finish_and_clear();
    Ok(Prepared { notes, ..prepared })
}

/// The work on a request, in a staging folder.
struct Preparation<'a> {
    pace: Pace,
    request: &'a PrepareRequest,
    sources: &'a [InputFile],
    folder: &'a Path,
    journal: Journal,
    surveyed: BTreeMap<usize, Surveyed>,
    progress: &'a ProgressBar,
    interrupted: &'a AtomicBool,
}

impl Preparation<'_> {
    /// Writes all files of the dataset to the staging folder; `None` when interrupted.
    fn run(
        &mut self,
        done: Progress,
        checksums: BTreeMap<usize, String>,
    ) -> Result<Option<Prepared>, PrepareError> {
        let bytes = self.sources.iter().map(|source| source.bytes).sum();
        self.progress.set_length(bytes);
        self.progress.set_message("reading");
        let Some(found) = self.survey_needed()? else {
            return Ok(None);
        };
        self.check(&found)?;
        let tokenizer = self.tokenizer(found.documents)?;
        let middle = self.middle(&found)?;
        if middle.is_none() && found.documents == 1 {
            return Err(PrepareError::OneDocument);
        }
        self.progress.reset();
        self.progress.set_message("encoding");
        let files = (0..self.sources.len())
            .map(|source| Some(self.surveyed.get(&source)?.file.clone()))
            .collect::<Vec<Option<FileRead>>>();
        let mut checksums: Vec<Option<String>> = (0..self.sources.len())
            .map(|source| {
                let found = files[source].as_ref().and_then(|file| file.sha256.clone());
                let given = self.sources[source].sha256.clone();
                found.or(given).or(checksums.get(&source).cloned())
            })
            .collect();
        let encode = Encode {
            sources: self.sources,
            field: &self.request.field,
            tokenizer: &tokenizer,
            documents: found.documents,
            by_document: match middle {
                Some(_) => None,
                None => Some(ByDocument::new(found.draws, self.request.val_fraction)),
            },
            surveyed: files.clone(),
            record_every: self.pace.record_every,
        };
        let blocks = Blocks::new(self.sources, self.pace.block_bytes, self.progress)
            .divided(middle)
            .from(done.position);
        let tokens = encode.run(
            blocks,
            self.folder,
            done,
            &mut self.journal,
            &mut checksums,
            self.interrupted,
        )?;
        match tokens {
            Some(tokens) => self.finish(&tokenizer, tokens, files, checksums).map(Some),
            None => Ok(None),
        }
    }

    /// Makes the first pass over the files that need one, and returns facts of all documents; `None` when interrupted.
    ///
    /// The rows of a table are known without, unless their characters are wanted, or so few documents were drawn that
    /// nulls among them could leave a split empty.
    fn survey_needed(&mut self) -> Result<Option<Counts>, PrepareError> {
        let of_characters = self.request.tokenizer == TokenizerKind::Char;
        for tables_too in [of_characters, true] {
            let passed: Vec<Option<u64>> = (0..self.sources.len())
                .map(|source| match self.surveyed.get(&source) {
                    Some(surveyed) => Some(surveyed.counts.numbered),
                    None if tables_too => None,
                    None => Some(self.sources[source].table.as_ref()?.rows),
                })
                .collect();
            if !self.survey(passed, of_characters)? {
                return Ok(None);
            }
            let found = self.facts();
            let are_known = self.surveyed.len() == self.sources.len();
            if are_known || found.documents > 1 && found.draws.divide(self.request.val_fraction) {
                return Ok(Some(found));
            }
        }
        Ok(Some(self.facts()))
    }

    /// Makes the first pass over the files that are not passed over; false when interrupted.
    fn survey(
        &mut self,
        passed: Vec<Option<u64>>,
        of_characters: bool,
    ) -> Result<bool, PrepareError> {
        if passed.iter().all(Option::is_some) {
            return Ok(true);
        }
        let (journal, surveyed) = (&mut self.journal, &mut self.surveyed);
        let blocks = Blocks::new(self.sources, self.pace.block_bytes, self.progress);
        survey(
            self.sources,
            &self.request.field,
            blocks.passing(passed),
            of_characters,
            self.interrupted,
            |source, one| {
                journal.surveyed(source, &one)?;
                surveyed.insert(source, one);
                Ok(())
            },
        )
    }

    /// Facts of all documents. Rows of tables without a first pass are taken for documents, and as many of them drawn as
    /// it takes to divide.
    fn facts(&self) -> Counts {
        let mut found = Counts::default();
        for (index, source) in self.sources.iter().enumerate() {
            if let Some(surveyed) = self.surveyed.get(&index) {
                found.add(&surveyed.counts);
                continue;
            }
            let rows = source.table.as_ref().map_or(0, |table| table.rows);
            for document in found.numbered..found.numbered + rows {
                if found.draws.divide(self.request.val_fraction) {
                    break;
                }
                found.draws.document(document);
            }
            found.numbered += rows;
            found.documents += rows;
        }
        found
    }

    fn check(&self, found: &Counts) -> Result<(), PrepareError> {
        let are_known = self.surveyed.len() == self.sources.len();
        if are_known && (found.documents == 0 || found.characters == 0) {
            return Err(self.no_text());
        }
        let first = self
            .surveyed
            .get(&0)
            .and_then(|one| one.file.sha256.as_ref());
        match (&self.request.expected, &self.request.files[..], first) {
            (Some(expected), [file], Some(sha256)) => {
                expected.check(&file.path.display().to_string(), sha256)
            }
            _ => Ok(()),
        }
    }

    fn no_text(&self) -> PrepareError {
        let files = self.request.files.iter();
        PrepareError::NoText {
            paths: files.map(|file| file.path.clone()).collect(),
        }
    }

    fn tokenizer(&self, documents: u64) -> Result<Tokenizer, PrepareError> {
        if self.request.tokenizer == TokenizerKind::Gpt2 {
            return Ok(Tokenizer::gpt2()?);
        }
        let texts = self.surveyed.values().flat_map(|one| &one.characters);
        let mut characters: Characters = texts.flat_map(|text| text.chars()).collect();
        if documents > 1 {
            characters.insert('\n');
        }
        Ok(Tokenizer::char(&characters.sorted())?)
    }

    /// The unpacked byte at which a single text is divided; `None` where documents are.
    fn middle(&self, found: &Counts) -> Result<Option<u64>, PrepareError> {
        let [source] = self.sources else {
            return Ok(None);
        };
        if source.format != Format::Text {
            return Ok(None);
        }
        byte_of_split(source, found.characters, self.request.val_fraction).map(Some)
    }

    /// Writes the tokenizer's files and `meta.json`.
    fn finish(
        &self,
        tokenizer: &Tokenizer,
        tokens: Tokens,
        files: Vec<Option<FileRead>>,
        checksums: Vec<Option<String>>,
    ) -> Result<Prepared, PrepareError> {
        let mut counts = tokens.counts;
        for surveyed in self.surveyed.values() {
            counts.add(&surveyed.counts);
        }
        if counts.characters == 0 {
            return Err(self.no_text());
        }
        let read = files.into_iter().zip(&checksums).map(|(file, sha256)| {
            Some(FileRead {
                sha256: sha256.clone(),
                line_ends: file.is_some_and(|file| file.line_ends),
            })
        });
        let mut notes = notes_on_files(self.sources, &read.collect::<Vec<_>>());
        notes.extend(counts.notes(self.sources, &self.request.field));
        let [(train_tokens, train_sha256), (val_tokens, val_sha256)] = tokens.files;
        let meta = Meta {
            format: META_FORMAT,
            tokenizer: self.request.tokenizer,
            vocab_size: tokenizer.vocab_size(),
            train_tokens,
            val_tokens,
            train_sha256: Some(train_sha256),
            val_sha256: Some(val_sha256),
            documents: counts.documents,
            val_fraction: self.request.val_fraction,
            field: self.field(),
            origin: self.request.origin.clone(),
            sources: sources_of(self.sources, checksums),
        };
        change(|| Ok(tokenizer.save(self.folder)))
            .map_err(PrepareError::io("write", self.folder))??;
        let path = self.folder.join(META_FILE);
        let text = serde_json::to_string_pretty(&meta).map_err(std::io::Error::from);
        text.and_then(|text| change(|| std::fs::write(&path, text + "\n")))
            .map_err(PrepareError::io("write", &path))?;
        Ok(Prepared {
            train_tokens,
            val_tokens,
            vocab_size: meta.vocab_size,
            documents: meta.documents,
            bytes: self.sources.iter().map(|source| source.bytes).sum(),
            notes,
        })
    }

    /// The field or the column of the text, if any file has one.
    fn field(&self) -> Option<String> {
        let mut formats = self.sources.iter().map(|source| source.format);
        let has_fields = formats.any(|format| format != Format::Text);
        has_fields.then(|| self.request.field.clone())
    }
}

fn sources_of(sources: &[InputFile], checksums: Vec<Option<String>>) -> Vec<SourceMeta> {
    let read = sources.iter().zip(checksums);
    read.filter(|(source, _)| source.bytes > 0)
        .map(|(source, sha256)| SourceMeta {
            path: source.path.display().to_string(),
            bytes: source.bytes,
            sha256: sha256.unwrap_or_default(),
        })
        .collect()
}

#[cfg(test)]
mod tests;
