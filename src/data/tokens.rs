//! Token files: nanoGPT `.bin` and llm.c shards, one or many, as one split.
//!
//! Windows are read from the open files by position. A memory map would count every page it
//! touched as this process's memory, up to the whole file, and end a run with SIGBUS when the file
//! is cut short.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::identity::FileDigest;
use super::layout::{HEADER_BYTES, check_layout};
use super::numbers::{self, Seems};
use super::{DataError, DataWarning, vocabulary};
use crate::tokenizer::Tokenizer;

/// Bytes of a file that [`SplitTokens::check_vocab`] checks: shorter files as a whole, longer ones in evenly
/// spaced blocks.
const CHECKED_BYTES: u64 = 256 << 20;
const CHECKED_BLOCK_BYTES: usize = 64 << 10;

/// Tokens per block of [`Shard::sample`], and blocks of all files of a split together, of which each has at least
/// [`FEWEST_BLOCKS`]: 16 MiB of a single file.
const SAMPLED_TOKENS: u64 = 32 << 10;
const SAMPLED_BLOCKS: usize = 256;
const FEWEST_BLOCKS: usize = 4;

/// Bytes of each sampled block that are looked at for numbers that are no u16 tokens.
const LOOKED_AT_BYTES: usize = 4 << 10;

/// Inputs per read of [`SplitTokens::copy_window`]. The buffer of 4 KiB fits on any stack, and GPT-2's 1024
/// tokens take one read.
const PIECE: usize = 2048;

/// A token as stored in the file: u16, little-endian.
type Token = [u8; 2];

/// One split: the tokens of one or several files. A window lies in one file.
#[derive(Debug)]
pub struct SplitTokens {
    split: &'static str,
    shards: Vec<Shard>,
    /// Ids at or above it are refused by [`SplitTokens::copy_window`].
    vocab_size: usize,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    /// The number of tokens when the file was opened.
    len: u64,
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    File { file: File, header_bytes: u64 },
    Memory(Vec<Token>),
}

impl Shard {
    /// The number of windows of `block_size` inputs and the target after the last one.
    fn windows(&self, block_size: usize) -> u64 {
        self.len.saturating_sub(block_size as u64)
    }

    /// Fills `tokens` with the tokens from position `start` on.
    fn read(&self, start: u64, tokens: &mut [Token]) -> Result<(), DataError> {
        match &self.storage {
            Storage::File { file, header_bytes } => {
                let offset = header_bytes + 2 * start;
                let bytes = tokens.as_flattened_mut();
                read_exact_at(file, bytes, offset).map_err(|source| {
                    DataError::unreadable(&self.path, offset, bytes.len(), source)
                })
            }
            Storage::Memory(all) => {
                let start = start as usize;
                tokens.copy_from_slice(&all[start..start + tokens.len()]);
                Ok(())
            }
        }
    }

    /// Calls `visit` with the bytes of at most `blocks` evenly spaced blocks, the first and the last one of the file among
    /// them; of all of a file that is not longer.
    fn sample(&self, blocks: usize, mut visit: impl FnMut(&[u8])) -> Result<(), DataError> {
        let block = SAMPLED_TOKENS.min(self.len);
        let mut tokens = vec![Token::default(); block as usize];
        let count = self.len.div_ceil(SAMPLED_TOKENS).min(blocks as u64);
        let is_whole = count * SAMPLED_TOKENS >= self.len;
        for n in 0..count {
            let start = if is_whole {
                n * SAMPLED_TOKENS
            } else {
                // Numbers of 8 bytes begin there too.
                ((self.len - block) * n / (count - 1)).next_multiple_of(4)
            };
            let end = (start + block).min(self.len);
            let tokens = &mut tokens[..(end - start) as usize];
            self.read(start, tokens)?;
            visit(tokens.as_flattened());
        }
        Ok(())
    }

    /// A sample of the file's bytes, for [`numbers::seem`].
    fn looked_at(&self) -> Result<Vec<u8>, DataError> {
        let mut bytes = Vec::new();
        self.sample(SAMPLED_BLOCKS / 4, |block| {
            bytes.extend_from_slice(&block[..block.len().min(LOOKED_AT_BYTES)]);
        })?;
        Ok(bytes)
    }

    /// A token outside of the vocabulary, or what the file holds instead of tokens.
    fn explain(&self, error: DataError, vocab_size: usize) -> DataError {
        let DataError::TokenOutOfRange { .. } = error else {
            return error;
        };
        match self.looked_at() {
            Ok(bytes) => match numbers::within(&bytes, vocab_size) {
                Some(numbers) => DataError::numbers(&self.path, numbers, &bytes),
                None => error,
            },
            Err(_) => error,
        }
    }

    /// Fails with the first id outside the vocabulary among `tokens`, which start at position `start`.
    fn check(&self, start: u64, tokens: &[Token], vocab_size: usize) -> Result<(), DataError> {
        // The maximum first: it is vectorised, the search is not.
        let highest = tokens.iter().copied().map(u16::from_le_bytes).max();
        if usize::from(highest.unwrap_or(0)) < vocab_size {
            return Ok(());
        }
        let mut ids = tokens.iter().copied().map(u16::from_le_bytes).zip(start..);
        match ids.find(|&(id, _)| usize::from(id) >= vocab_size) {
            Some((id, position)) => Err(DataError::TokenOutOfRange {
                path: self.path.clone(),
                position,
                id,
                vocab_size,
            }),
            None => Ok(()),
        }
    }
}

impl SplitTokens {
    /// Opens the files of a split, in this order, and keeps them open.
    pub(super) fn open(split: &'static str, paths: Vec<PathBuf>) -> Result<SplitTokens, DataError> {
        let shards = paths.into_iter().map(open_shard);
        Ok(SplitTokens {
            split,
            shards: shards.collect::<Result<_, _>>()?,
            vocab_size: super::MAX_VOCAB_SIZE,
        })
    }

    /// A split held in memory; `name` stands for the path in errors.
    pub(super) fn in_memory(split: &'static str, name: &str, ids: &[u32]) -> SplitTokens {
        let tokens: Vec<Token> = ids.iter().map(|&id| (id as u16).to_le_bytes()).collect();
        SplitTokens {
            split,
            shards: vec![Shard {
                path: name.into(),
                len: tokens.len() as u64,
                storage: Storage::Memory(tokens),
            }],
            vocab_size: super::MAX_VOCAB_SIZE,
        }
    }

    /// The split's name.
    pub(super) fn split(&self) -> &'static str {
        self.split
    }

    /// The folder of the first file.
    pub(super) fn folder(&self) -> &Path {
        let first = self.paths().next().and_then(Path::parent);
        first.unwrap_or(Path::new(""))
    }

    /// SHA-256 of every file's length and of a sample of its tokens: all of them up to 16 MiB per split.
    pub(super) fn digests(&self) -> Result<Vec<FileDigest>, DataError> {
        let blocks = (SAMPLED_BLOCKS / self.shards.len().max(1)).max(FEWEST_BLOCKS);
        let digest = |shard: &Shard| {
            let mut digest = Sha256::new();
            digest.update(shard.len.to_le_bytes());
            shard.sample(blocks, |bytes| digest.update(bytes))?;
            Ok(digest.finalize().into())
        };
        self.shards.par_iter().map(digest).collect()
    }

    /// Refuses files without a header whose bytes are surely other numbers than u16 tokens; warns where they may be.
    pub(super) fn check_numbers(&self, warnings: &mut Vec<DataWarning>) -> Result<(), DataError> {
        for shard in &self.shards {
            let Storage::File {
                header_bytes: 0, ..
            } = shard.storage
            else {
                continue;
            };
            let bytes = shard.looked_at()?;
            match numbers::seem(&bytes) {
                Some(Seems::Surely(numbers)) => {
                    return Err(DataError::numbers(&shard.path, numbers, &bytes));
                }
                Some(Seems::Perhaps(numbers)) => warnings.push(DataWarning::HalfZeros {
                    path: shard.path.clone(),
                    convert: numbers.conversion(&shard.path),
                }),
                None => {}
            }
        }
        Ok(())
    }

    /// The number of tokens in all files when they were opened.
    pub fn len(&self) -> u64 {
        self.shards.iter().map(|s| s.len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The files, in the order of their tokens.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|shard| shard.path.as_path())
    }

    /// The number of windows in the split; nanoGPT's `len(data) - block_size` for one file.
    pub fn window_count(&self, block_size: usize) -> u64 {
        self.shards.iter().map(|s| s.windows(block_size)).sum()
    }

    /// Checks that at least one window of `block_size` + 1 tokens fits.
    pub fn require(&self, block_size: usize) -> Result<(), DataError> {
        let longest = self.shards.iter().max_by_key(|shard| shard.len);
        match longest {
            Some(shard) if shard.windows(block_size) == 0 => Err(DataError::TooShort {
                split: self.split,
                path: shard.path.clone(),
                longest: shard.len,
                block_size,
            }),
            _ => Ok(()),
        }
    }

    /// Checks the ids against a vocabulary, and makes [`SplitTokens::copy_window`] check them too.
    ///
    /// Files up to 256 MiB are read whole. Longer ones are sampled, 256 MiB in 4,096 evenly spaced
    /// blocks, so that a run on 20 GB starts at once. For them the check of each window is the
    /// guarantee, and this one only finds most mistakes early.
    pub fn check_vocab(&mut self, vocab_size: usize) -> Result<(), DataError> {
        self.vocab_size = vocab_size;
        self.shards.par_iter().try_for_each(|shard| {
            let block = CHECKED_BLOCK_BYTES / size_of::<Token>();
            let blocks = CHECKED_BYTES / CHECKED_BLOCK_BYTES as u64;
            let stride = (shard.len / blocks).max(block as u64);
            (0..shard.len.div_ceil(stride))
                .into_par_iter()
                .try_for_each_init(
                    || vec![Token::default(); block],
                    |buffer, i| {
                        let start = i * stride;
                        let end = (start + block as u64).min(shard.len);
                        let tokens = &mut buffer[..(end - start) as usize];
                        shard.read(start, tokens)?;
                        shard.check(start, tokens, vocab_size)
                    },
                )
                .map_err(|error| shard.explain(error, vocab_size))
        })
    }

    /// Copies window `index` of `0..window_count(block_size)`: `inputs` are its `block_size`
    /// tokens, `targets` the token after each. Both slices have length `block_size`; nothing is
    /// allocated, and any number of threads may copy at once. An id outside the checked vocabulary
    /// is an error, and so is a file that has become shorter or unreadable.
    pub fn copy_window(
        &self,
        index: u64,
        inputs: &mut [u32],
        targets: &mut [u32],
    ) -> Result<(), DataError> {
        let block_size = inputs.len();
        assert_eq!(block_size, targets.len(), "as many targets as inputs");
        let mut start = index;
        for shard in &self.shards {
            let windows = shard.windows(block_size);
            if start < windows {
                return self.copy_from(shard, start, inputs, targets);
            }
            start -= windows;
        }
        panic!("window {index} of {}", self.window_count(block_size));
    }

    fn copy_from(
        &self,
        shard: &Shard,
        start: u64,
        inputs: &mut [u32],
        targets: &mut [u32],
    ) -> Result<(), DataError> {
        let mut buffer = [Token::default(); PIECE + 1];
        let pieces = inputs.chunks_mut(PIECE).zip(targets.chunks_mut(PIECE));
        for (start, (inputs, targets)) in (start..).step_by(PIECE).zip(pieces) {
            let tokens = &mut buffer[..=inputs.len()];
            shard.read(start, tokens)?;
            shard.check(start, tokens, self.vocab_size)?;
            for (ids, tokens) in [(inputs, &tokens[..]), (targets, &tokens[1..])] {
                for (id, &token) in ids.iter_mut().zip(tokens) {
                    *id = u32::from(u16::from_le_bytes(token));
                }
            }
        }
        Ok(())
    }
}

/// A token file by itself.
pub struct OpenedTokens {
    pub tokens: SplitTokens,
    /// The vocabulary in its folder, if there is one.
    pub tokenizer: Option<Tokenizer>,
}

/// Opens nanoGPT's `.bin` or a shard of llm.c. Every id must be below `vocab_size`, see [`SplitTokens::check_vocab`].
///
/// # Errors
/// When it cannot be read, or holds something else.
pub fn open_tokens(
    path: &Path,
    vocab_size: usize,
    warnings: &mut Vec<DataWarning>,
) -> Result<OpenedTokens, DataError> {
    let mut tokens = SplitTokens::open("evaluated", vec![path.to_owned()])?;
    let tokenizer = vocabulary::of_folder(tokens.folder())?;
    tokens.check_numbers(warnings)?;
    tokens.check_vocab(vocab_size)?;
    Ok(OpenedTokens { tokens, tokenizer })
}

fn open_shard(path: PathBuf) -> Result<Shard, DataError> {
    let file = File::open(&path).map_err(DataError::io("open", &path))?;
    let metadata = file.metadata().map_err(DataError::io("read", &path))?;
    let bytes = metadata.len();
    if bytes == 0 {
        return Err(DataError::Empty { path });
    }
    let mut head = [0; HEADER_BYTES];
    let head = &mut head[..bytes.min(HEADER_BYTES as u64) as usize];
    read_exact_at(&file, head, 0).map_err(DataError::io("read", &path))?;
    let header_bytes = check_layout(&path, head, bytes)?;
    Ok(Shard {
        path,
        len: (bytes - header_bytes) / 2,
        storage: Storage::File { file, header_bytes },
    })
}

/// Fills `buffer` with the bytes from `offset` on. The file's cursor plays no part, so threads can
/// share the file.
#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[read..];
        offset += read as u64;
    }
    Ok(())
}
