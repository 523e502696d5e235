//! Captures: between begin and end, what a stream is given is written down and not done.
//!
//! The rules are those of the driver API: other streams join by waiting for an event of the capture
//! and must be joined again before it ends; waiting for something captured, or doing what a captured
//! stream could not wait for, breaks the capture, and its end then gives no graph.

use std::collections::HashMap;
use std::ffi::c_uint;
use std::thread::{self, ThreadId};

use super::event::{Event, Recorded};
use super::guard::{Outcome, with_context, write};
use super::operation::Operation;
use super::result::CuResult;
use super::state::{Objects, new_handle};
use super::stream::StreamKey;

/// `CUstreamCaptureMode`: whom it keeps from doing what a capture cannot hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Every thread.
    Global,
    /// The thread that began.
    ThreadLocal,
    /// Nobody.
    Relaxed,
}

struct Capture {
    id: usize,
    origin: StreamKey,
    mode: Mode,
    thread: ThreadId,
    /// Whether the legacy stream would have to wait for it.
    blocking: bool,
    broken: bool,
    nodes: Vec<Node>,
    /// Every stream that takes part.
    streams: HashMap<StreamKey, Branch>,
    /// Memory allocated in the capture: it is the graph's.
    memory: Vec<u64>,
}

/// Something captured, and what it comes after.
pub struct Node {
    pub operation: Operation,
    /// Which of the streams it was given to: zero for the one that the capture began in.
    pub branch: usize,
    /// Nodes that it must wait for; none if it waits for nothing but the launch.
    pub after: Vec<usize>,
}

/// A stream that takes part.
#[derive(Clone, Default)]
struct Branch {
    number: usize,
    /// What the next operation comes after.
    after: Vec<usize>,
    /// How many nodes there were when it got its last one, and when the origin last waited for it.
    last: usize,
    joined: usize,
}

/// A place in a capture, kept by an event.
#[derive(Clone)]
pub struct Mark {
    capture: usize,
    stream: StreamKey,
    /// How many nodes there were.
    nodes: usize,
    /// What who waits for it comes after.
    after: Vec<usize>,
}

/// What a capture leaves.
pub struct Captured {
    pub nodes: Vec<Node>,
    pub memory: Vec<u64>,
}

/// The captures under way.
#[derive(Default)]
pub struct Captures {
    running: Vec<Capture>,
}

impl Captures {
    fn of(&mut self, stream: StreamKey) -> Option<&mut Capture> {
        let mut running = self.running.iter_mut();
        running.find(|capture| capture.streams.contains_key(&stream))
    }

    /// Writes an operation down if the stream is captured; hands it back to be done if it is not.
    pub fn record(
        &mut self,
        stream: StreamKey,
        operation: Operation,
    ) -> Outcome<Option<Operation>> {
        self.refuse_legacy(stream)?;
        let Some(capture) = self.of(stream) else {
            return Ok(Some(operation));
        };
        capture.check()?;
        let Some(branch) = capture.streams.get_mut(&stream) else {
            return Ok(Some(operation));
        };
        let node = capture.nodes.len();
        capture.nodes.push(Node {
            operation,
            branch: branch.number,
            after: std::mem::replace(&mut branch.after, vec![node]),
        });
        branch.last = node + 1;
        Ok(None)
    }

    /// The legacy stream waits for every blocking stream, which a captured one cannot be waited for.
    pub fn refuse_legacy(&mut self, stream: StreamKey) -> Outcome {
        if stream != StreamKey::Legacy {
            return Ok(());
        }
        let mut blocking = self.running.iter_mut().filter(|capture| capture.blocking);
        match blocking.next() {
            Some(capture) => capture.fail(CuResult::ERROR_STREAM_CAPTURE_IMPLICIT),
            None => Ok(()),
        }
    }

    /// Refuses what is done outside of streams while a capture of this thread, or a global one, runs.
    pub fn refuse_outside_work(&mut self) -> Outcome {
        let here = thread::current().id();
        let mut running = self.running.iter_mut();
        let hindered = running.find(|capture| match capture.mode {
            Mode::Global => true,
            Mode::ThreadLocal => capture.thread == here,
            Mode::Relaxed => false,
        });
        match hindered {
            Some(capture) => capture.fail(CuResult::ERROR_STREAM_CAPTURE_UNSUPPORTED),
            None => Ok(()),
        }
    }

    /// Refuses to wait for a captured stream.
    pub fn refuse_waiting(&mut self, stream: StreamKey) -> Outcome {
        self.refuse_legacy(stream)?;
        match self.of(stream) {
            Some(capture) => capture.fail(CuResult::ERROR_STREAM_CAPTURE_UNSUPPORTED),
            None => Ok(()),
        }
    }

    /// The place a captured stream is at.
    pub fn mark(&mut self, stream: StreamKey) -> Outcome<Option<Mark>> {
        let Some(capture) = self.of(stream) else {
            return Ok(None);
        };
        capture.check()?;
        let after = capture
            .streams
            .get(&stream)
            .map(|branch| branch.after.clone());
        Ok(Some(Mark {
            capture: capture.id,
            stream,
            nodes: capture.nodes.len(),
            after: after.unwrap_or_default(),
        }))
    }

    /// Lets a stream wait for an event. A stream that waits for one of a capture takes part in it.
    pub fn wait(&mut self, stream: StreamKey, event: &Event) -> Outcome {
        let mark = match &event.recorded {
            Recorded::Never => return Ok(()),
            Recorded::At { .. } => {
                return match self.of(stream) {
                    Some(capture) => capture.fail(CuResult::ERROR_STREAM_CAPTURE_ISOLATION),
                    None => Ok(()),
                };
            }
            Recorded::Captured(mark) => mark,
        };
        if stream == StreamKey::Legacy {
            return Err(CuResult::ERROR_STREAM_CAPTURE_IMPLICIT);
        }
        let other = self.of(stream).map(|capture| capture.id);
        if other.is_some_and(|other| other != mark.capture) {
            return Err(CuResult::ERROR_STREAM_CAPTURE_MERGE);
        }
        let mut running = self.running.iter_mut();
        let capture = running.find(|capture| capture.id == mark.capture);
        let capture = capture.ok_or(CuResult::ERROR_CAPTURED_EVENT)?;
        capture.check()?;
        let number = capture.streams.len();
        let branch = capture.streams.entry(stream).or_insert_with(|| Branch {
            number,
            ..Branch::default()
        });
        let new = mark
            .after
            .iter()
            .filter(|node| !branch.after.contains(node));
        let new: Vec<usize> = new.copied().collect();
        branch.after.extend(new);
        if stream == capture.origin
            && let Some(joined) = capture.streams.get_mut(&mark.stream)
        {
            joined.joined = joined.joined.max(mark.nodes);
        }
        Ok(())
    }

    pub fn is_captured(&mut self, stream: StreamKey) -> bool {
        self.of(stream).is_some()
    }

    /// Memory that a captured stream allocated is the graph's.
    pub fn own(&mut self, stream: StreamKey, address: u64) {
        if let Some(capture) = self.of(stream) {
            capture.memory.push(address);
        }
    }

    /// Whether freeing is part of a capture, which then must have allocated it.
    pub fn frees(&mut self, stream: StreamKey, address: u64) -> Outcome<bool> {
        match self.of(stream) {
            None => Ok(false),
            Some(capture) if capture.memory.contains(&address) => Ok(true),
            Some(capture) => capture.fail(CuResult::ERROR_INVALID_VALUE).map(|()| true),
        }
    }

    /// A stream goes away, and its capture with it.
    pub fn abandon(&mut self, stream: StreamKey) {
        self.running.retain(|capture| capture.origin != stream);
    }

    fn begin(&mut self, stream: StreamKey, mode: c_uint, blocking: bool) -> Outcome {
        let mode = match mode {
            0 => Mode::Global,
            1 => Mode::ThreadLocal,
            2 => Mode::Relaxed,
            _ => return Err(CuResult::ERROR_INVALID_VALUE),
        };
        if stream == StreamKey::Legacy {
            return Err(CuResult::ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
        if self.of(stream).is_some() {
            return Err(CuResult::ERROR_ILLEGAL_STATE);
        }
        self.running.push(Capture {
            id: new_handle(),
            origin: stream,
            mode,
            thread: thread::current().id(),
            blocking,
            broken: false,
            nodes: Vec::new(),
            streams: HashMap::from([(stream, Branch::default())]),
            memory: Vec::new(),
        });
        Ok(())
    }

    /// Ends the capture that began in this stream.
    pub fn end(&mut self, stream: StreamKey) -> Outcome<Captured> {
        let began = |capture: &Capture| capture.streams.contains_key(&stream);
        let index = self.running.iter().position(began);
        let index = index.ok_or(CuResult::ERROR_ILLEGAL_STATE)?;
        let capture = &mut self.running[index];
        if capture.origin != stream {
            return Err(CuResult::ERROR_STREAM_CAPTURE_UNMATCHED);
        }
        if capture.mode != Mode::Relaxed && capture.thread != thread::current().id() {
            return Err(CuResult::ERROR_STREAM_CAPTURE_WRONG_THREAD);
        }
        let capture = self.running.swap_remove(index);
        capture.check()?;
        let mut branches = capture.streams.iter().filter(|(key, _)| **key != stream);
        if branches.any(|(_, branch)| branch.last > branch.joined) {
            return Err(CuResult::ERROR_STREAM_CAPTURE_UNJOINED);
        }
        Ok(Captured {
            nodes: capture.nodes,
            memory: capture.memory,
        })
    }
}

impl Capture {
    fn check(&self) -> Outcome {
        if self.broken {
            Err(CuResult::ERROR_STREAM_CAPTURE_INVALIDATED)
        } else {
            Ok(())
        }
    }

    /// Breaks the capture.
    fn fail(&mut self, error: CuResult) -> Outcome {
        self.broken = true;
        Err(error)
    }
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamBeginCapture_v2(stream: usize, mode: c_uint) -> CuResult {
    with_context(|driver| {
        let mut objects = driver.objects();
        let key = objects.stream_key(stream)?;
        let blocking = objects.is_blocking(key);
        objects.captures.begin(key, mode, blocking)
    })
}

/// # Safety
/// `status` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamIsCapturing(stream: usize, status: *mut c_uint) -> CuResult {
    with_context(|driver| {
        let mut objects = driver.objects();
        let found = status_of(&mut objects, stream)?;
        // SAFETY: as the caller promises.
        unsafe { write(status, found) }
    })
}

/// `CUstreamCaptureStatus`: none, active, invalidated.
fn status_of(objects: &mut Objects, stream: usize) -> Outcome<c_uint> {
    let key = objects.stream_key(stream)?;
    objects.captures.refuse_legacy(key)?;
    Ok(match objects.captures.of(key) {
        None => 0,
        Some(capture) if capture.broken => 2,
        Some(_) => 1,
    })
}
