//! One file per verb.

mod backends;
pub mod bench;
pub mod compare;
pub mod completions;
pub mod config;
pub mod convert;
mod description;
pub mod doctor;
pub mod eval;
pub mod man;
pub mod plan;
pub mod plot;
pub mod prepare;
mod produced;
pub mod report;
mod request;
pub mod sample;
mod sweep;
pub mod train;
mod weights;
pub mod welcome;

use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};
use rayon::ThreadPool;

use crate::device::{DeviceProfile, mappable_bytes, share_one_heap_where_limited};
use crate::error::{Error, Result};
use crate::memory::{AllocationError, Recoverable};
use crate::plan::{PlanError, Request};
use crate::terms::expand_home;

/// Address space that a verb takes before it has a plan: its threads, a tokenizer, the room that is checked for.
const START_BYTES: u64 = 48 << 20;

/// Runs a verb in a pool of a thread for every core, whatever `RAYON_NUM_THREADS` says, or of one where the system
/// refuses that many. What a verb computes on is its own pool; this one is for work before and after it.
///
/// # Errors
/// [`Error::Threads`] and [`Error::AddressSpace`] when the system has not enough for a start, else what `work` returns.
pub fn on_every_core(work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    share_one_heap_where_limited();
    if let Some(left) = mappable_bytes().filter(|left| *left < START_BYTES) {
        let needed = START_BYTES;
        return Err(Error::AddressSpace { left, needed });
    }
    let cores = DeviceProfile::cpu().cores().unwrap_or(1);
    let pool = pool(cores).or_else(|_| pool(1))?;
    pool.install(work)
}

/// Runs `work` in a pool of `threads` threads.
///
/// # Errors
/// [`Error::Threads`] when the system refuses them, else what `work` returns.
fn in_thread_pool<R: Send>(threads: usize, work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
    pool(threads)?.install(work)
}

fn pool(threads: usize) -> Result<ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|source| Error::Threads { threads, source })
}

/// For clap: a path, with the home folder for the `~` of `--flag=~/x`, which not every shell expands.
fn path_argument() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(expand_home)
}

/// Writes to standard output at once.
fn print_now(text: &str) -> Result<()> {
    Ok(crate::report::print_now(text)?)
}

/// Ends the work well when the reader goes away, as `head` does when it has seen enough.
fn until_reader_leaves(done: Result<()>) -> Result<()> {
    match done {
        Err(Error::Output(error)) if error.is_reader_gone() => Ok(()),
        other => other,
    }
}

/// Adds the launches that take less memory to a lack of memory at the smallest rung; other errors stay as they are, with a
/// hint that is true. `saved`: there is a checkpoint to go on from.
fn explain(error: Error, request: &Request, saved: bool) -> Error {
    let lack = match error.into_out_of_memory() {
        // A file operation that lacked memory says nothing of what is held.
        Ok(lack) if lack.held == 0 => return AllocationError::from(lack).into(),
        Ok(lack) => lack,
        Err(Error::Session(error)) if !saved => {
            return error.without_checkpoint().into();
        }
        Err(other) => return other,
    };
    match request.explain(&lack, saved) {
        Ok(refusal) => PlanError::from(refusal).into(),
        Err(error) => error.into(),
    }
}
