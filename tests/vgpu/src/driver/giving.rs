//! Giving work to the card: to the end of a stream's queue, to be done when `VGPU_ORDER` says.

use super::counts::{Asked, Wait};
use super::guard::Outcome;
use super::host::is_locked;
use super::host_side::HostSide;
use super::operation::Operation;
use super::queue::{Point, Queue, StreamRef, Task, When};
use super::result::CuResult;
use super::state::{Driver, lock};
use super::stream::StreamKey;
use crate::memory::Stamp;
use crate::order::Order;

/// How the host gives work to the card.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Returns when the work is queued.
    Async,
    /// Returns when it is done, or when its bytes were taken.
    Blocking,
}

impl Driver {
    /// Gives a stream something to do, or writes it down if the stream is captured.
    pub fn submit(&self, stream: usize, operation: Operation) -> Outcome {
        self.submit_as(Call::Async, stream, operation)
    }

    /// As [`Driver::submit`]; a blocking call waits, unless it is captured.
    pub(super) fn submit_as(&self, call: Call, stream: usize, operation: Operation) -> Outcome {
        let mut objects = self.objects();
        let into = objects.stream_ref(stream)?;
        let Some(operation) = objects.captures.record(into.key, operation)? else {
            return Ok(());
        };
        drop(objects);
        self.give(call, &into, &[], operation).map(|_| ())
    }

    /// Gives a stream something to do behind `after`, too.
    pub(super) fn give(
        &self,
        call: Call,
        into: &StreamRef,
        after: &[Point],
        operation: Operation,
    ) -> Outcome<Point> {
        self.check_addresses(&operation)?;
        // A driver may have no memory to stage a copy in.
        if operation.host_side().is_some() && self.planned_to_fail("copy") {
            return Err(CuResult::ERROR_OUT_OF_MEMORY);
        }
        self.count(call, &operation);
        let pageable = operation
            .host_side()
            .is_some_and(|(at, bytes)| !is_locked(at.0, bytes));
        let staged = call == Call::Blocking && pageable && operation.comes_in();
        if staged {
            let end = self.end_of(into);
            self.reach(&end)?;
        }
        // Copies on the card and fills are asynchronous in any form, and bytes that were taken need not have arrived.
        let waits = call == Call::Blocking && !staged && operation.host_side().is_some();
        let mut queue = lock(&self.queue);
        let at_once = waits
            || match queue.order() {
                _ if !self.defers() => true,
                // With pageable memory it may be synchronous, and it may not be.
                Order::Random(_) => pageable && !staged && queue.dice.coin(),
                _ => false,
            };
        let when = if at_once {
            When::AtOnce
        } else {
            When::Queued(self.host_side(&mut queue, &operation, staged))
        };
        let what = Some(operation.what());
        let task = Task::Do(operation, when);
        let point = queue.add(&self.memory, into, after, what, task);
        drop(queue);
        if at_once {
            match self.run_until(point.item) {
                // What fails on the card shows at the next call, unless this one waits for it.
                Err(error)
                    if !waits && !self.blocking && error != CuResult::ERROR_INVALID_VALUE => {}
                done => done?,
            }
        }
        if waits {
            self.has_seen(&point);
        }
        Ok(point)
    }

    /// Counts an operation, and that the host waits for its copy.
    fn count(&self, call: Call, operation: &Operation) {
        self.counts.add(Asked::Operation(operation));
        if call == Call::Blocking && operation.host_side().is_some() {
            let wait = if operation.comes_in() {
                Wait::CopyIn
            } else {
                Wait::CopyOut
            };
            self.counts.add(Asked::Wait(wait));
        }
    }

    /// Whether work may be done after the call that gives it.
    pub(super) fn defers(&self) -> bool {
        self.card.order != Order::Eager && !self.blocking
    }

    fn host_side(
        &self,
        queue: &mut Queue,
        operation: &Operation,
        staged: bool,
    ) -> Option<HostSide> {
        let (at, bytes) = operation.host_side()?;
        let used = queue.calls_host() || queue.host_sides().any(|(_, side)| side.uses(at.0, bytes));
        // SAFETY: the caller of the copy promised that the memory may be used.
        unsafe { HostSide::of(operation, staged, used) }
    }

    /// What a driver refuses before anything is queued: addresses that no allocation has.
    fn check_addresses(&self, operation: &Operation) -> Outcome {
        for (address, bytes) in operation.ranges() {
            self.memory.check(address, bytes).map_err(|fault| {
                self.remember(&fault.to_string());
                CuResult::ERROR_INVALID_VALUE
            })?;
        }
        Ok(())
    }

    /// An allocation in the order of a stream, which later work of the stream comes after.
    pub(super) fn begin_allocation(&self, into: &StreamRef) -> Stamp {
        let mut queue = lock(&self.queue);
        let what = Some("an allocation".into());
        let point = queue.add(&self.memory, into, &[], what, Task::Nothing);
        let stamp = queue.stamp_of(&point);
        drop(queue);
        if !self.defers() {
            // Nothing is left to do before it, and it cannot fail.
            let _ = self.run_until(point.item);
        }
        stamp
    }

    /// Frees memory in the order of a stream.
    pub(super) fn queue_free(&self, into: &StreamRef, address: u64) -> Outcome {
        let mut queue = lock(&self.queue);
        let what = Some("a free".into());
        let point = queue.add(&self.memory, into, &[], what, Task::Free(address));
        let item = point.item;
        drop(queue);
        if self.defers() {
            Ok(())
        } else {
            self.run_until(item)
        }
    }

    /// The end of everything that a stream was given, for the legacy stream with what it waits for.
    pub(super) fn end_of(&self, stream: &StreamRef) -> Point {
        match stream.key {
            StreamKey::Legacy => self.mark(stream, &[], Task::Nothing),
            key => lock(&self.queue).end_of(key),
        }
    }

    /// Adds a place to a stream that nothing is done at, behind `after`.
    pub(super) fn mark(&self, into: &StreamRef, after: &[Point], task: Task) -> Point {
        let point = lock(&self.queue).add(&self.memory, into, after, None, task);
        if !self.defers() {
            // Nothing is left to do before it, and it cannot fail.
            let _ = self.run_until(point.item);
        }
        point
    }
}
