//! Streams: names only, since everything is done at once and in order.

use std::cell::Cell;
use std::ffi::{c_int, c_uint};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::guard::{Outcome, with_context, write};
use super::refused::refuse;
use super::result::CuResult;
use super::state::{Objects, new_handle};

/// `CU_STREAM_LEGACY` and `CU_STREAM_PER_THREAD`; the null stream is the legacy one.
const LEGACY: usize = 1;
const PER_THREAD: usize = 2;
/// `CU_STREAM_NON_BLOCKING`: no order with the legacy stream.
const NON_BLOCKING: c_uint = 1;

/// A stream that the program made.
pub struct Stream {
    flags: c_uint,
    priority: c_int,
}

/// Which stream it is, in all threads: every thread has its own `CU_STREAM_PER_THREAD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamKey {
    Legacy,
    OfThread(usize),
    Made(usize),
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static THREAD: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed));
}

impl Objects {
    /// Which stream a handle stands for.
    pub fn stream_key(&self, handle: usize) -> Outcome<StreamKey> {
        match handle {
            0 | LEGACY => Ok(StreamKey::Legacy),
            PER_THREAD => Ok(StreamKey::OfThread(THREAD.get())),
            made if self.streams.contains_key(&made) => Ok(StreamKey::Made(made)),
            _ => Err(CuResult::ERROR_INVALID_HANDLE),
        }
    }

    /// Whether work in the legacy stream waits for this stream.
    pub fn is_blocking(&self, key: StreamKey) -> bool {
        match key {
            StreamKey::Legacy | StreamKey::OfThread(_) => true,
            StreamKey::Made(handle) => {
                let stream = self.streams.get(&handle);
                stream.is_some_and(|stream| stream.flags & NON_BLOCKING == 0)
            }
        }
    }
}

/// # Safety
/// `stream` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut usize, flags: c_uint) -> CuResult {
    // SAFETY: as the caller promises.
    unsafe { cuStreamCreateWithPriority(stream, flags, 0) }
}

/// # Safety
/// `stream` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreateWithPriority(
    stream: *mut usize,
    flags: c_uint,
    priority: c_int,
) -> CuResult {
    with_context(|driver| {
        if flags > NON_BLOCKING {
            return Err(CuResult::ERROR_INVALID_VALUE);
        }
        let handle = new_handle();
        // SAFETY: as the caller promises.
        unsafe { write(stream, handle) }?;
        driver
            .objects()
            .streams
            .insert(handle, Stream { flags, priority });
        Ok(())
    })
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamDestroy_v2(stream: usize) -> CuResult {
    with_context(|driver| {
        let mut objects = driver.objects();
        let removed = objects.streams.remove(&stream);
        removed.ok_or(CuResult::ERROR_INVALID_HANDLE)?;
        objects.captures.abandon(StreamKey::Made(stream));
        Ok(())
    })
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamSynchronize(stream: usize) -> CuResult {
    with_context(|driver| {
        let mut objects = driver.objects();
        let key = objects.stream_key(stream)?;
        objects.captures.refuse_waiting(key)?;
        drop(objects);
        driver.settle();
        Ok(())
    })
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamQuery(stream: usize) -> CuResult {
    with_context(|driver| {
        let mut objects = driver.objects();
        let key = objects.stream_key(stream)?;
        objects.captures.refuse_waiting(key)
    })
}

/// # Safety
/// `flags` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamGetFlags(stream: usize, flags: *mut c_uint) -> CuResult {
    with_context(|driver| {
        let objects = driver.objects();
        objects.stream_key(stream)?;
        let found = objects
            .streams
            .get(&stream)
            .map_or(0, |stream| stream.flags);
        // SAFETY: as the caller promises.
        unsafe { write(flags, found) }
    })
}

/// # Safety
/// `priority` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamGetPriority(stream: usize, priority: *mut c_int) -> CuResult {
    with_context(|driver| {
        let objects = driver.objects();
        objects.stream_key(stream)?;
        let found = objects
            .streams
            .get(&stream)
            .map_or(0, |stream| stream.priority);
        // SAFETY: as the caller promises.
        unsafe { write(priority, found) }
    })
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamWaitEvent(stream: usize, event: usize, flags: c_uint) -> CuResult {
    with_context(|driver| {
        if flags != 0 {
            return Err(refuse("cuStreamWaitEvent", "a flag"));
        }
        let mut objects = driver.objects();
        let objects = &mut *objects;
        let key = objects.stream_key(stream)?;
        let event = objects.events.get(&event);
        let event = event.ok_or(CuResult::ERROR_INVALID_HANDLE)?;
        objects.captures.wait(key, event)
    })
}
