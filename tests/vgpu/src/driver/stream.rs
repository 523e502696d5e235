//! Streams: what is given to one of them is done in the order in which it was given.

use std::cell::Cell;
use std::ffi::{c_int, c_uint};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::counts::Wait;
use super::event::Recorded;
use super::guard::{Outcome, with_context, write};
use super::queue::{StreamRef, Task};
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
    /// In the order in which they were made, from one.
    pub number: usize,
    flags: c_uint,
    priority: c_int,
}

/// Which stream it is, in all threads: every thread has its own `CU_STREAM_PER_THREAD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamKey {
    Legacy,
    OfThread(usize),
    Made(usize),
    /// What is done by no stream.
    Host,
    /// A branch, from one, of a graph's executable form: not the one that stays in the launch's stream.
    Branch(usize, usize),
}

static STREAMS: AtomicUsize = AtomicUsize::new(0);
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

    /// Where work for a stream is queued.
    pub fn stream_ref(&self, stream: usize) -> Outcome<StreamRef> {
        let key = self.stream_key(stream)?;
        let name = match key {
            StreamKey::Host => "the host".into(),
            StreamKey::Legacy => "the legacy stream".into(),
            StreamKey::OfThread(_) => "a thread's own stream".into(),
            StreamKey::Made(handle) => self.streams.get(&handle).map_or_else(
                || "a stream".into(),
                |stream| format!("stream {}", stream.number).into(),
            ),
            StreamKey::Branch(_, branch) => format!("branch {branch} of a graph").into(),
        };
        Ok(StreamRef {
            key,
            blocking: self.is_blocking(key),
            name,
        })
    }

    /// Whether work in the legacy stream waits for this stream.
    pub fn is_blocking(&self, key: StreamKey) -> bool {
        match key {
            StreamKey::Legacy | StreamKey::OfThread(_) => true,
            StreamKey::Host | StreamKey::Branch(..) => false,
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
        let number = STREAMS.fetch_add(1, Ordering::Relaxed) + 1;
        let stream = Stream {
            number,
            flags,
            priority,
        };
        driver.objects().streams.insert(handle, stream);
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
        let key = StreamKey::Made(stream);
        // What it was given is done all the same.
        objects.captures.abandon(key);
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
        let stream = objects.stream_ref(stream)?;
        drop(objects);
        let end = driver.end_of(&stream);
        driver.wait_for(&end, Wait::Stream)?;
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
        objects.captures.refuse_waiting(key)?;
        let asked = objects.stream_ref(stream)?;
        drop(objects);
        let end = driver.end_of(&asked);
        driver.reached(stream, &end)
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
        let into = objects.stream_ref(stream)?;
        let objects = &mut *objects;
        let event = objects.events.get(&event);
        let event = event.ok_or(CuResult::ERROR_INVALID_HANDLE)?;
        objects.captures.wait(into.key, event)?;
        let point = match &event.recorded {
            Recorded::At { point, .. } => point.clone(),
            Recorded::Captured(_) => return Ok(()),
            Recorded::Never => return Err(driver.never_recorded(&into.name)),
        };
        driver.mark(&into, &[point], Task::Nothing);
        Ok(())
    })
}
