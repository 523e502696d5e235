//! One file per verb.

mod backends;
pub mod bench;
pub mod doctor;
pub mod plan;
pub mod prepare;
mod prompt;
pub mod sample;
pub mod train;
mod weights;

use std::io::{self, Write};

use crate::error::{Error, Result};
use crate::memory::{AllocationError, Recoverable};
use crate::plan::{PlanError, Request};
use crate::terms::FileError;

/// Runs `work` in a pool of `threads` threads.
///
/// # Errors
/// [`Error::Threads`] when the system refuses them, else what `work` returns.
fn in_thread_pool<R: Send>(threads: usize, work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|source| Error::Threads { threads, source })?;
    pool.install(work)
}

/// Writes to standard output at once.
fn print_now(text: &str) -> Result<()> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Error::io("write to", "standard output".as_ref()))
}

/// Ends the work well when the reader goes away, as `head` does when it has seen enough.
fn until_reader_leaves(done: Result<()>) -> Result<()> {
    match done {
        Err(Error::File(FileError { source, .. }))
            if source.kind() == io::ErrorKind::BrokenPipe =>
        {
            Ok(())
        }
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
