//! Work on blocks on all cores while the next are read ahead; results come in the order of the blocks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::{Builder, Scope};

use super::PrepareError;

/// Bytes of blocks in flight, for each worker; a block that is longer is alone.
const BYTES_PER_WORKER: usize = 4 << 20;

/// A block's share of the memory that is in flight.
pub(super) trait Weight {
    fn bytes(&self) -> usize;
}

/// Does `work` on every block, one thread for each of `workers`, and hands the results to `sink` in order.
///
/// `blocks` is read by a thread of its own. Returns false when `interrupted` became true; then `sink` has had the results
/// of some first blocks.
pub(super) fn in_order<B, T, W>(
    blocks: impl Iterator<Item = Result<B, PrepareError>> + Send,
    workers: Vec<W>,
    interrupted: &AtomicBool,
    work: impl Fn(&mut W, B) -> Result<T, PrepareError> + Sync,
    mut sink: impl FnMut(T) -> Result<(), PrepareError>,
) -> Result<bool, PrepareError>
where
    B: Weight + Send,
    T: Send,
    W: Send,
{
    let gate = Gate::new(workers.len() * BYTES_PER_WORKER);
    let (give, take) = sync_channel(workers.len() * 4);
    let (done, results) = sync_channel(workers.len() * 4);
    let take = Mutex::new(take);
    std::thread::scope(|scope| {
        // The threads end on every way out.
        let _closing = Closing(&gate);
        let failed = done.clone();
        let (gate, take, work) = (&gate, &take, &work);
        spawn(scope, "read", move || read(blocks, gate, &give, &failed))?;
        for mut worker in workers {
            let done = done.clone();
            spawn(scope, "encode", move || {
                let _closing = ClosingOnPanic(gate);
                while let Some((number, bytes, block)) = next(take) {
                    if !gate.is_closed() {
                        // Nobody receives it only when the gate is closed.
                        let _ = done.send((number, bytes, work(&mut worker, block)));
                    }
                }
            })?;
        }
        drop(done);
        let mut early = BTreeMap::new();
        let mut number = 0;
        for (found, bytes, result) in results {
            early.insert(found, (bytes, result));
            while let Some((bytes, result)) = early.remove(&number) {
                if interrupted.load(Ordering::Relaxed) {
                    return Ok(false);
                }
                sink(result?)?;
                gate.leave(bytes);
                number += 1;
            }
        }
        Ok(!interrupted.load(Ordering::Relaxed))
    })
}

/// A block or a result with its number from 0, and its bytes in flight.
type Numbered<T> = (u64, usize, T);

fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() + Send + 'scope,
) -> Result<(), PrepareError> {
    let thread = Builder::new().name(name.into());
    let spawned = thread.spawn_scoped(scope, body);
    spawned.map_err(|source| PrepareError::Thread { source })?;
    Ok(())
}

fn read<B: Weight, T>(
    blocks: impl Iterator<Item = Result<B, PrepareError>>,
    gate: &Gate,
    give: &SyncSender<Numbered<B>>,
    failed: &SyncSender<Numbered<Result<T, PrepareError>>>,
) {
    for (number, block) in (0..).zip(blocks) {
        match block {
            Ok(block) => {
                let bytes = block.bytes();
                if !gate.enter(bytes) || give.send((number, bytes, block)).is_err() {
                    return;
                }
            }
            // Whoever would have received it has ended, too.
            Err(error) => return drop(failed.send((number, 0, Err(error)))),
        }
    }
}

fn next<B>(take: &Mutex<Receiver<Numbered<B>>>) -> Option<Numbered<B>> {
    let take = take.lock().unwrap_or_else(PoisonError::into_inner);
    take.recv().ok()
}

/// Bounds the bytes in flight.
struct Gate {
    inside: Mutex<Inside>,
    changed: Condvar,
    most: usize,
}

struct Inside {
    bytes: usize,
    closed: bool,
}

impl Gate {
    fn new(most: usize) -> Gate {
        Gate {
            inside: Mutex::new(Inside {
                bytes: 0,
                closed: false,
            }),
            changed: Condvar::new(),
            most,
        }
    }

    /// Waits until `bytes` fit, or nothing else is inside; false when the gate is closed.
    fn enter(&self, bytes: usize) -> bool {
        let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let must_wait = |inside: &mut Inside| {
            !inside.closed && inside.bytes > 0 && inside.bytes + bytes > self.most
        };
        let inside = self.changed.wait_while(inside, must_wait);
        let mut inside = inside.unwrap_or_else(PoisonError::into_inner);
        inside.bytes += bytes;
        !inside.closed
    }

    fn is_closed(&self) -> bool {
        let inside = self.inside.lock();
        inside.unwrap_or_else(PoisonError::into_inner).closed
    }

    fn close(&self) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.closed = true;
        self.changed.notify_all();
    }

    fn leave(&self, bytes: usize) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.bytes -= bytes;
        self.changed.notify_all();
    }
}

/// Closes the gate when it is dropped.
struct Closing<'a>(&'a Gate);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Closes the gate when its thread panics: the blocks that the thread had will not leave.
struct ClosingOnPanic<'a>(&'a Gate);

impl Drop for ClosingOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close();
        }
    }
}
