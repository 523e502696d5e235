//! The second pass: text to tokens, on all cores, with a record of what is done.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::PrepareError;
use super::blocks::{BLOCK_BYTES, Block, Blocks, FileRead, Position};
use super::division::ByDocument;
use super::input::InputFile;
use super::journal::{Journal, Progress};
use super::packed::{hex, sha256};
use super::pipeline::in_order;
use super::staging::{change, sync_file};
use super::survey::Counts;
use crate::data::Split;
use crate::tokenizer::{Encoder, Tokenizer, last_boundary};

/// The end of each of several documents.
#[derive(Clone, Copy)]
enum Separator {
    /// `<|endoftext|>` follows.
    EndOfText(u32),
    /// A line feed follows, unless one is there.
    LineFeed(u32),
}

impl Separator {
    fn of(tokenizer: &Tokenizer, documents: u64) -> Result<Option<Separator>, PrepareError> {
        if documents < 2 {
            return Ok(None);
        }
        if let Some(id) = tokenizer.end_of_text() {
            return Ok(Some(Separator::EndOfText(id)));
        }
        let ids = tokenizer.encode("\n")?;
        Ok(ids.first().map(|&id| Separator::LineFeed(id)))
    }

    fn after(self, text: &str) -> Option<u32> {
        match self {
            Separator::EndOfText(id) => Some(id),
            Separator::LineFeed(id) => (!text.ends_with('\n')).then_some(id),
        }
    }
}

/// The second pass.
pub(super) struct Encode<'a> {
    pub sources: &'a [InputFile],
    pub field: &'a str,
    pub tokenizer: &'a Tokenizer,
    /// Documents, of which there may be fewer in files without a first pass.
    pub documents: u64,
    /// The division of documents, where they are not divided by place.
    pub by_document: Option<ByDocument>,
    /// Facts of the files that had a first pass.
    pub surveyed: Vec<Option<FileRead>>,
    /// Time between two records of what is done.
    pub record_every: Duration,
}

/// Little-endian u16 tokens for train and val.
type SplitBytes = [Vec<u8>; 2];

/// The tokens of a block.
struct Encoded {
    bytes: SplitBytes,
    /// Facts of its documents, if its file had no first pass.
    counts: Counts,
    source: usize,
    end: Position,
    file: Option<FileRead>,
}

/// The result of the second pass.
pub(super) struct Tokens {
    /// Number of tokens, and the checksum, of `train.bin` and `val.bin`.
    pub files: [(u64, String); 2],
    /// Facts of the documents in files without a first pass.
    pub counts: Counts,
}

impl Encode<'_> {
    /// Writes `train.bin` and `val.bin` to `folder` from `progress` on; `None` when interrupted. `checksums` gains those of
    /// the files that have none.
    pub(super) fn run(
        &self,
        blocks: Blocks,
        folder: &Path,
        mut progress: Progress,
        journal: &mut Journal,
        checksums: &mut [Option<String>],
        interrupted: &AtomicBool,
    ) -> Result<Option<Tokens>, PrepareError> {
        let mut files = SplitFiles::open(folder, progress.bytes)?;
        let separator = Separator::of(self.tokenizer, self.documents)?;
        let encoders = (0..rayon::current_num_threads()).map(|_| self.tokenizer.encoder());
        let unknown =
            |(source, sha256): (usize, &mut Option<String>)| sha256.is_none().then_some(source);
        let unknown: Vec<usize> = checksums
            .iter_mut()
            .enumerate()
            .filter_map(unknown)
            .collect();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (give, found) = channel();
            let stop = &stop;
            let is_stopped =
                move || stop.load(Ordering::Relaxed) || interrupted.load(Ordering::Relaxed);
            let find = move || self.find_checksums(&unknown, &give, is_stopped);
            let spawned = Builder::new().spawn_scoped(scope, find);
            spawned.map_err(|source| PrepareError::Thread { source })?;
            let _stopping = Stopping(stop);
            let mut recorded = Instant::now();
            let encoded = in_order(
                blocks,
                encoders.collect(),
                interrupted,
                |encoder, block| self.block(encoder, block, separator),
                |encoded: Encoded| {
                    self.check_unchanged(&encoded)?;
                    files.append(&encoded.bytes)?;
                    progress.position = encoded.end;
                    progress.bytes = files.bytes();
                    progress.counts.add(&encoded.counts);
                    if recorded.elapsed() >= self.record_every {
                        take_checksums(&found, journal, checksums, false)?;
                        files.sync()?;
                        journal.progress(progress.clone())?;
                        recorded = Instant::now();
                    }
                    Ok(())
                },
            );
            // After a failure, such as a full disk, as far as that is possible.
            let recorded = files
                .sync()
                .and_then(|()| journal.progress(progress.clone()));
            let complete = encoded?;
            recorded?;
            take_checksums(&found, journal, checksums, complete)?;
            if !complete || checksums.iter().any(Option::is_none) {
                return Ok(None);
            }
            let files = files.finish()?;
            let counts = progress.counts;
            Ok(Some(Tokens { files, counts }))
        })
    }

    fn block(
        &self,
        encoder: &mut Encoder,
        block: Block,
        separator: Option<Separator>,
    ) -> Result<Encoded, PrepareError> {
        let mut bytes = SplitBytes::default();
        let mut counts = Counts::default();
        let mut ids = Vec::new();
        for part in block.documents(&self.sources[block.source], self.field) {
            let part = part?;
            if self.surveyed[block.source].is_none() {
                counts.part(block.source, &part);
            }
            let Some(text) = part.text else { continue };
            let drawn = self.by_document.map(|by| by.split(part.document));
            let split = block.split.or(drawn).unwrap_or(Split::Train);
            let bytes = &mut bytes[split as usize];
            let mut rest = &*text;
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at(piece_end(rest));
                ids.clear();
                encoder.encode(piece, &mut ids)?;
                // Ids fit: no vocabulary is larger than `MAX_VOCAB_SIZE`.
                bytes.extend(ids.iter().flat_map(|&id| (id as u16).to_le_bytes()));
                rest = tail;
            }
            let separator = separator.filter(|_| part.ends);
            let separator = separator.and_then(|separator| separator.after(&text));
            bytes.extend(separator.iter().flat_map(|&id| (id as u16).to_le_bytes()));
        }
        Ok(Encoded {
            bytes,
            counts,
            source: block.source,
            end: block.end,
            file: block.file,
        })
    }

    /// Compares what the two passes have read of a file.
    fn check_unchanged(&self, encoded: &Encoded) -> Result<(), PrepareError> {
        match (&self.surveyed[encoded.source], &encoded.file) {
            (Some(first), Some(second)) if first != second => Err(PrepareError::Changed {
                path: self.sources[encoded.source].path.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn find_checksums(
        &self,
        sources: &[usize],
        give: &Sender<(usize, Result<String, PrepareError>)>,
        is_stopped: impl Fn() -> bool,
    ) {
        for &source in sources {
            let path = &self.sources[source].path;
            let found = sha256(path, &is_stopped).map_err(PrepareError::io("read", path));
            let Some(found) = found.transpose() else {
                return;
            };
            if give.send((source, found)).is_err() {
                return;
            }
        }
    }
}

/// Takes the checksums that were found; with `all` it waits for the others.
fn take_checksums(
    found: &Receiver<(usize, Result<String, PrepareError>)>,
    journal: &mut Journal,
    checksums: &mut [Option<String>],
    all: bool,
) -> Result<(), PrepareError> {
    let next = || {
        if all {
            found.recv().ok()
        } else {
            found.try_recv().ok()
        }
    };
    while let Some((source, sha256)) = next() {
        let sha256 = sha256?;
        journal.checksum(source, &sha256)?;
        checksums[source] = Some(sha256);
    }
    Ok(())
}

/// Stops the thread that finds checksums.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The end of the first piece of a text, which encodes apart from the rest.
fn piece_end(text: &str) -> usize {
    let mut wanted = BLOCK_BYTES;
    while wanted < text.len() {
        let end = text.floor_char_boundary(wanted);
        if let Some(cut) = last_boundary(&text[..end]) {
            return cut;
        }
        wanted *= 2;
    }
    text.len()
}

/// `train.bin` and `val.bin` as they are written.
struct SplitFiles([SplitFile; 2]);

struct SplitFile {
    split: Split,
    path: PathBuf,
    file: File,
    bytes: u64,
    digest: Sha256,
}

impl SplitFile {
    /// Opens a file whose first `bytes` are kept.
    fn open(folder: &Path, split: Split, bytes: u64) -> Result<SplitFile, PrepareError> {
        let path = folder.join(format!("{}.bin", split.name()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = change(|| options.open(&path));
        let mut file = file.map_err(PrepareError::io("create", &path))?;
        change(|| file.set_len(bytes)).map_err(PrepareError::io("write", &path))?;
        let mut digest = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = file.read(&mut buffer);
            let read = read.map_err(PrepareError::io("read", &path))?;
            if read == 0 {
                break;
            }
            digest.update(&buffer[..read]);
        }
        Ok(SplitFile {
            split,
            path,
            file,
            bytes,
            digest,
        })
    }
}

impl SplitFiles {
    fn open(folder: &Path, bytes: [u64; 2]) -> Result<SplitFiles, PrepareError> {
        let open = |split| SplitFile::open(folder, split, bytes[split as usize]);
        Ok(SplitFiles([open(Split::Train)?, open(Split::Val)?]))
    }

    fn append(&mut self, bytes: &SplitBytes) -> Result<(), PrepareError> {
        for (one, bytes) in self.0.iter_mut().zip(bytes) {
            if !bytes.is_empty() {
                let written = change(|| one.file.write_all(bytes));
                written.map_err(PrepareError::io("write", &one.path))?;
                one.digest.update(bytes);
                one.bytes += bytes.len() as u64;
            }
        }
        Ok(())
    }

    fn bytes(&self) -> [u64; 2] {
        self.0.each_ref().map(|one| one.bytes)
    }

    fn sync(&self) -> Result<(), PrepareError> {
        self.0
            .iter()
            .try_for_each(|one| sync_file(&one.file).map_err(PrepareError::io("write", &one.path)))
    }

    /// The number of tokens in each file, and its checksum; both must have some.
    fn finish(self) -> Result<[(u64, String); 2], PrepareError> {
        if let Some(empty) = self.0.iter().find(|one| one.bytes == 0) {
            return Err(PrepareError::EmptySplit {
                split: empty.split.name(),
            });
        }
        Ok(self
            .0
            .map(|one| (one.bytes / 2, hex(&one.digest.finalize()))))
    }
}
