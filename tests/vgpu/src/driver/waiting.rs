//! Giving work to the card, and waiting for it.

use super::context;
use super::guard::Outcome;
use super::host::is_locked;
use super::host_side::HostSide;
use super::operation::Operation;
use super::queue::{Item, Place, Point, Queue, Task};
use super::result::CuResult;
use super::state::{Driver, code_of, lock};
use super::stream::StreamKey;
use crate::fault::{Fault, What};
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
        let place = objects.place(stream)?;
        let Some(operation) = objects.captures.record(place.key, operation)? else {
            return Ok(());
        };
        drop(objects);
        self.give(call, &place, &[], operation).map(|_| ())
    }

    /// Gives a stream something to do behind `after`, too.
    pub(super) fn give(
        &self,
        call: Call,
        place: &Place,
        after: &[Point],
        operation: Operation,
    ) -> Outcome<Point> {
        self.check_addresses(&operation)?;
        // A driver may have no memory to stage a copy in.
        if operation.host_side().is_some() && self.planned_to_fail("copy") {
            return Err(CuResult::ERROR_OUT_OF_MEMORY);
        }
        let pageable = operation
            .host_side()
            .is_some_and(|(at, bytes)| !is_locked(at.0, bytes));
        let staged = call == Call::Blocking && pageable && operation.comes_in();
        if staged {
            let end = lock(&self.queue).end_of(place.key);
            self.wait_for(&end)?;
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
        let side = match at_once {
            true => None,
            false => self.host_side(&mut queue, &operation, staged),
        };
        let what = Some(operation.what());
        let task = Task::Do(operation, side);
        let point = queue.add(&self.memory, place, after, what, task);
        drop(queue);
        if at_once {
            match self.run_until(&[point.item]) {
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

    fn defers(&self) -> bool {
        self.card.order != Order::Eager && !self.blocking
    }

    fn host_side(
        &self,
        queue: &mut Queue,
        operation: &Operation,
        staged: bool,
    ) -> Option<HostSide> {
        let (at, bytes) = operation.host_side()?;
        let used = queue.host_sides().any(|(_, side)| side.uses(at.0, bytes));
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
    pub(super) fn begin_allocation(&self, place: &Place) -> Stamp {
        let mut queue = lock(&self.queue);
        let what = Some("an allocation".into());
        let point = queue.add(&self.memory, place, &[], what, Task::Nothing);
        let stamp = queue.stamp_of(&point);
        drop(queue);
        if !self.defers() {
            // Nothing is left to do before it, and it cannot fail.
            let _ = self.run_until(&[point.item]);
        }
        stamp
    }

    /// Frees memory in the order of a stream.
    pub(super) fn queue_free(&self, place: &Place, address: u64) -> Outcome {
        let mut queue = lock(&self.queue);
        let what = Some("a free".into());
        let point = queue.add(&self.memory, place, &[], what, Task::Free(address));
        let item = point.item;
        drop(queue);
        match self.defers() {
            true => Ok(()),
            false => self.run_until(&[item]),
        }
    }

    /// Adds a place to a stream that nothing is done at, behind `after`.
    pub(super) fn mark(&self, place: &Place, after: &[Point], task: Task) -> Point {
        let point = lock(&self.queue).add(&self.memory, place, after, None, task);
        if !self.defers() {
            // Nothing is left to do before it, and it cannot fail.
            let _ = self.run_until(&[point.item]);
        }
        point
    }

    /// The host waits until a point is reached.
    pub(super) fn wait_for(&self, point: &Point) -> Outcome {
        self.run_until(&[point.item])?;
        self.has_seen(point);
        Ok(())
    }

    /// The host has seen that a point is reached.
    pub(super) fn has_seen(&self, point: &Point) {
        let mut queue = lock(&self.queue);
        queue.seen(&point.clock);
        self.forget_done(&queue);
    }

    /// The host waits until everything is done.
    pub(super) fn wait_for_all(&self) -> Outcome {
        let all = lock(&self.queue).all();
        for item in all {
            self.run_until(&[item])?;
        }
        let mut queue = lock(&self.queue);
        queue.seen_all();
        self.forget_done(&queue);
        Ok(())
    }

    fn forget_done(&self, queue: &Queue) {
        if queue.is_empty() {
            self.memory.forget_done(&queue.host);
        }
    }

    /// Whether the host, who does not wait, is told that a point is reached.
    pub(super) fn reached(&self, point: &Point) -> Outcome {
        if lock(&self.queue).denies(point) {
            return Err(CuResult::ERROR_NOT_READY);
        }
        self.wait_for(point)
    }

    /// The card goes on while the host makes a call, as far as it likes to.
    pub fn go_on(&self) {
        let count = lock(&self.queue).draw();
        if count == 0 {
            return;
        }
        let _alone = lock(&self.execution);
        for _ in 0..count {
            let next = lock(&self.queue).any_ready();
            let Some(next) = next else { return };
            // What fails stays on the context.
            let _ = self.run(next);
        }
    }

    /// Runs what must be done until these items are.
    pub(super) fn run_until(&self, items: &[u64]) -> Outcome {
        let _alone = lock(&self.execution);
        loop {
            let next = lock(&self.queue).next_for(items);
            match next {
                Some(next) => self.run(next)?,
                None => return context::lost(self),
            }
        }
    }

    /// Runs one item, alone.
    fn run(&self, id: u64) -> Outcome {
        let taken = lock(&self.queue).take(id);
        let Some(item) = taken else { return Ok(()) };
        let done = self.perform(&item);
        let mut queue = lock(&self.queue);
        if let Task::Do(operation, _) = &item.task
            && let Some((start, bytes)) = operation.writes_host()
        {
            let sides = queue
                .host_sides()
                .filter(|(_, side)| side.uses(start, bytes));
            sides.for_each(|(_, side)| side.look_again());
        }
        queue.done(&item);
        drop(queue);
        done.or_else(|fault| self.failed(&item, &fault))
    }

    fn perform(&self, item: &Item) -> Result<(), Fault> {
        match &item.task {
            Task::Nothing => Ok(()),
            Task::Record(time) => {
                let _ = time.set(std::time::Instant::now());
                Ok(())
            }
            Task::Free(address) => {
                self.memory.by(item.stamp).free(*address)?;
                self.returned(*address);
                Ok(())
            }
            Task::Do(operation, side) => {
                let side = side.as_ref().map(|side| (item.name.as_str(), side));
                operation.run(self, self.memory.by(item.stamp), side)
            }
        }
    }

    /// What the host asked for and cannot have is its own mistake, and the context lives on, where a call
    /// can say so; everything else ends the context.
    fn failed(&self, item: &Item, fault: &Fault) -> Outcome {
        let copy = matches!(&item.task, Task::Do(operation, _) if operation.is_copy());
        let order = matches!(
            fault.what,
            What::Unordered { .. } | What::HostUsed { .. } | What::HostChanged { .. }
        );
        if copy && !order && !self.defers() {
            self.remember(&fault.to_string());
            return Err(CuResult::ERROR_INVALID_VALUE);
        }
        Err(self.lose(fault))
    }

    /// Ends the context; what is queued will never be done.
    pub(super) fn lose(&self, fault: &Fault) -> CuResult {
        let error = code_of(fault);
        self.fail_context(error, &fault.to_string());
        error
    }

    /// A wait for an event that was never recorded waits for nothing.
    pub(super) fn never_recorded(&self, waiter: &str) -> CuResult {
        let waiter = waiter.to_owned();
        let what = What::NeverRecorded { waiter };
        self.lose(&what.alone())
    }

    /// Host memory goes away that a queued copy still uses.
    pub(super) fn check_host_free(&self, start: usize, bytes: usize) -> Outcome {
        let mut queue = lock(&self.queue);
        let used = queue.host_sides().find(|(_, side)| side.uses(start, bytes));
        let trouble = used.map(|(copy, side)| side.trouble(copy, "freed"));
        drop(queue);
        match trouble {
            Some(what) => Err(self.lose(&what.alone())),
            None => Ok(()),
        }
    }
}

impl super::state::Objects {
    /// Where work for a stream is queued.
    pub fn place(&self, stream: usize) -> Outcome<Place> {
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
        Ok(Place {
            key,
            blocking: self.is_blocking(key),
            name,
        })
    }
}
