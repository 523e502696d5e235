//! Token files: memory-mapped nanoGPT `.bin` and llm.c shards, one or many, as one split.
//!
//! nanoGPT's files are raw little-endian u16 tokens. llm.c's shards put 256 little-endian i32 in
//! front: magic 20240520, version 1, number of tokens, zeros. The magic tells them apart: as the
//! first two u16 tokens it would need the id 55,432, beyond GPT-2's vocabulary.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use rayon::prelude::*;

use super::DataError;

const HEADER_BYTES: usize = 1024;
const MAGIC: i32 = 20_240_520;
const VERSION: i32 = 1;

/// Files up to this size are checked whole by [`Tokens::check_vocab`]; of longer ones a sample of
/// this size is, in evenly spaced blocks.
const CHECKED_BYTES: usize = 256 << 20;
const CHECKED_BLOCK_BYTES: usize = 64 << 10;

/// One split: the tokens of one or several files. A window lies in one file.
#[derive(Debug)]
pub struct Tokens {
    split: &'static str,
    shards: Vec<Shard>,
    /// Ids at or above it are refused by [`Tokens::copy_window`].
    vocab_size: usize,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    Mapped { map: Mmap, header_bytes: usize },
    Memory(Vec<u8>),
}

impl Shard {
    /// The tokens, two little-endian bytes each.
    fn tokens(&self) -> &[[u8; 2]] {
        let bytes = match &self.storage {
            Storage::Mapped { map, header_bytes } => &map[*header_bytes..],
            Storage::Memory(bytes) => bytes,
        };
        bytes.as_chunks().0
    }

    /// The number of windows of `block_size` inputs and the target after the last one.
    fn windows(&self, block_size: usize) -> u64 {
        self.tokens().len().saturating_sub(block_size) as u64
    }
}

impl Tokens {
    /// Maps the files of a split: one path, or every file that matches a `*` pattern, by name.
    pub(super) fn open(split: &'static str, paths: Vec<PathBuf>) -> Result<Tokens, DataError> {
        let shards = paths.into_iter().map(open_shard);
        Ok(Tokens {
            split,
            shards: shards.collect::<Result<_, _>>()?,
            vocab_size: super::MAX_VOCAB_SIZE,
        })
    }

    /// A split held in memory; `name` stands for the path in errors.
    pub(super) fn in_memory(split: &'static str, name: &str, ids: &[u32]) -> Tokens {
        let bytes = ids.iter().flat_map(|&id| (id as u16).to_le_bytes());
        Tokens {
            split,
            shards: vec![Shard {
                path: name.into(),
                storage: Storage::Memory(bytes.collect()),
            }],
            vocab_size: super::MAX_VOCAB_SIZE,
        }
    }

    /// The number of tokens in all files.
    pub fn len(&self) -> u64 {
        self.shards.iter().map(|s| s.tokens().len() as u64).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The files, in the order of their tokens.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|shard| shard.path.as_path())
    }

    /// How many windows start in the split; nanoGPT's `len(data) - block_size` for one file.
    pub fn window_count(&self, block_size: usize) -> u64 {
        self.shards.iter().map(|s| s.windows(block_size)).sum()
    }

    /// That at least one window of `block_size` + 1 tokens fits.
    pub fn require(&self, block_size: usize) -> Result<(), DataError> {
        let longest = self.shards.iter().max_by_key(|shard| shard.tokens().len());
        match longest {
            Some(shard) if shard.windows(block_size) == 0 => Err(DataError::TooShort {
                split: self.split,
                path: shard.path.clone(),
                longest: shard.tokens().len() as u64,
                block_size,
            }),
            _ => Ok(()),
        }
    }

    /// Checks the ids against a vocabulary, and makes [`Tokens::copy_window`] check them too.
    ///
    /// Files up to 256 MiB are read whole. Of longer ones 256 MiB are, in 4,096 evenly spaced
    /// blocks, so that a run on 20 GB starts at once; there the check of each window is the
    /// guarantee, and this one only finds most mistakes early.
    pub fn check_vocab(&mut self, vocab_size: usize) -> Result<(), DataError> {
        self.vocab_size = vocab_size;
        self.shards.par_iter().try_for_each(|shard| {
            let tokens = shard.tokens();
            let block = CHECKED_BLOCK_BYTES / 2;
            let stride = (tokens.len() / (CHECKED_BYTES / CHECKED_BLOCK_BYTES)).max(block);
            (0..tokens.len().div_ceil(stride))
                .into_par_iter()
                .try_for_each(|i| {
                    let start = i * stride;
                    let end = (start + block).min(tokens.len());
                    check_ids(shard, start, end, vocab_size)
                })
        })
    }

    /// Copies window `index` of `0..window_count(block_size)`: `inputs` are its `block_size`
    /// tokens, `targets` the token after each. Both slices have length `block_size`; nothing is
    /// allocated. An id outside the checked vocabulary is an error.
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
                return self.copy_from(shard, start as usize, inputs, targets);
            }
            start -= windows;
        }
        panic!("window {index} of {}", self.window_count(block_size));
    }

    fn copy_from(
        &self,
        shard: &Shard,
        start: usize,
        inputs: &mut [u32],
        targets: &mut [u32],
    ) -> Result<(), DataError> {
        let window = &shard.tokens()[start..=start + inputs.len()];
        let mut highest = 0;
        let id = |bytes: &[u8; 2]| u32::from(u16::from_le_bytes(*bytes));
        for (input, bytes) in inputs.iter_mut().zip(window) {
            *input = id(bytes);
            highest = highest.max(*input);
        }
        for (target, bytes) in targets.iter_mut().zip(&window[1..]) {
            *target = id(bytes);
            highest = highest.max(*target);
        }
        if highest as usize >= self.vocab_size {
            check_ids(shard, start, start + window.len(), self.vocab_size)?;
        }
        Ok(())
    }
}

/// The first id outside the vocabulary among the tokens `start..end`, as an error.
fn check_ids(shard: &Shard, start: usize, end: usize, vocab_size: usize) -> Result<(), DataError> {
    let tokens = &shard.tokens()[start..end];
    let id = |bytes: &[u8; 2]| u16::from_le_bytes(*bytes);
    // The maximum first: it is vectorised, the search is not.
    let highest = tokens.iter().map(id).max().unwrap_or(0);
    if usize::from(highest) < vocab_size {
        return Ok(());
    }
    let outside = |bytes: &[u8; 2]| usize::from(id(bytes)) >= vocab_size;
    match tokens.iter().position(outside) {
        Some(offset) => Err(DataError::TokenOutOfRange {
            path: shard.path.clone(),
            position: (start + offset) as u64,
            id: id(&tokens[offset]),
            vocab_size,
        }),
        None => Ok(()),
    }
}

fn open_shard(path: PathBuf) -> Result<Shard, DataError> {
    let file = File::open(&path).map_err(DataError::io("open", &path))?;
    let metadata = file.metadata().map_err(DataError::io("read", &path))?;
    if metadata.len() == 0 {
        return Err(DataError::Empty { path });
    }
    // SAFETY: the map is read-only. As with every mapped file, another process that truncates it
    // while we train would end the run with SIGBUS; taper itself only replaces files by renaming.
    let map = unsafe { Mmap::map(&file) }.map_err(DataError::io("map", &path))?;
    let header_bytes = check_layout(&path, &map)?;
    Ok(Shard {
        path,
        storage: Storage::Mapped { map, header_bytes },
    })
}

/// The bytes before the first token: llm.c's header, or none.
fn check_layout(path: &Path, bytes: &[u8]) -> Result<usize, DataError> {
    let words = bytes.as_chunks().0.iter().take(HEADER_BYTES / 4);
    let words: Vec<i32> = words.map(|&word| i32::from_le_bytes(word)).collect();
    if words.first() == Some(&MAGIC) {
        check_header(path, &words, bytes.len() as u64)?;
        return Ok(HEADER_BYTES);
    }
    // What is zero from the fourth word to the 256th, and not before, is a header, not text.
    let like_header = words.len() == HEADER_BYTES / 4
        && words[3..].iter().all(|&word| word == 0)
        && words[..3].iter().all(|&word| word != 0);
    let path = path.to_owned();
    if like_header {
        let found = words[0];
        return Err(DataError::WrongMagic { path, found });
    }
    if !bytes.len().is_multiple_of(2) {
        let bytes = bytes.len() as u64;
        return Err(DataError::OddLength { path, bytes });
    }
    Ok(0)
}

/// Checks the header of a file of `bytes` that begins with llm.c's magic number.
fn check_header(path: &Path, words: &[i32], bytes: u64) -> Result<(), DataError> {
    let path = path.to_owned();
    if words.len() < HEADER_BYTES / 4 {
        return Err(DataError::ShortHeader { path, bytes });
    }
    let (found, promised) = (words[1], words[2]);
    if found != VERSION {
        return Err(DataError::WrongVersion { path, found });
    }
    let found_bytes = bytes - HEADER_BYTES as u64;
    match u64::try_from(promised) {
        Ok(promised) if 2 * promised > found_bytes => Err(DataError::Truncated {
            path,
            promised,
            found: found_bytes / 2,
        }),
        Ok(tokens) if tokens > 0 && 2 * tokens == found_bytes => Ok(()),
        _ => Err(DataError::WrongCount {
            path,
            promised,
            found_bytes,
        }),
    }
}
