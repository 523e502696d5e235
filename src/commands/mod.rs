//! One file per verb.

pub mod doctor;
pub mod plan;
pub mod prepare;
pub mod sample;
pub mod train;

use crate::error::{Error, Result};

/// Does `work` in a pool of `threads` threads.
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
