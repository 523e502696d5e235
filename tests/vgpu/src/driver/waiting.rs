//! Waiting for the card, which does what must be done until then, and finding out what went wrong.

use std::ffi::c_void;

use super::context;
use super::counts::{Asked, Wait};
use super::guard::Outcome;
use super::operation::Operation;
use super::queue::{Item, Point, Queue, Task, When};
use super::result::CuResult;
use super::state::{Driver, code_of, lock};
use crate::fault::{Fault, What};

impl Driver {
    /// The host waits until a point is reached.
    pub(super) fn wait_for(&self, point: &Point, why: Wait) -> Outcome {
        self.counts.add(Asked::Wait(why));
        self.reach(point)
    }

    /// Goes on until a point is reached, and lets the host see that.
    pub(super) fn reach(&self, point: &Point) -> Outcome {
        self.run_until(point.item)?;
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
    pub(super) fn wait_for_all(&self, why: Wait) -> Outcome {
        self.counts.add(Asked::Wait(why));
        let all = lock(&self.queue).all();
        for item in all {
            self.run_until(item)?;
        }
        let mut queue = lock(&self.queue);
        queue.seen_all();
        self.forget_done(&queue);
        Ok(())
    }

    fn forget_done(&self, queue: &Queue) {
        if let Some(known) = queue.known() {
            self.memory.forget_done(&known);
        }
        if queue.is_idle() && self.memory.is_full() {
            self.memory.forget_operations();
        }
    }

    /// Whether the host, who does not wait, is told that a point is reached. `asked` is the event's or stream's handle.
    pub(super) fn reached(&self, asked: usize, point: &Point) -> Outcome {
        if lock(&self.queue).denies(asked, point) {
            return Err(CuResult::ERROR_NOT_READY);
        }
        self.reach(point)
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

    /// Runs what must be done until this item is.
    pub(super) fn run_until(&self, item: u64) -> Outcome {
        let _alone = lock(&self.execution);
        loop {
            let next = lock(&self.queue).next_for(item);
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
            Task::Do(Operation::Call { function, argument }, _) => {
                function(argument.0 as *mut c_void);
                Ok(())
            }
            Task::Do(operation, when) => {
                let side = match when {
                    When::Queued(Some(side)) => Some((item.name.as_str(), side)),
                    _ => None,
                };
                operation.run(self, self.memory.by(item.stamp), side)
            }
        }
    }

    /// What the host asked for and cannot have is its own mistake, and the context lives on, where a call
    /// can say so; everything else ends the context.
    fn failed(&self, item: &Item, fault: &Fault) -> Outcome {
        let copy =
            matches!(&item.task, Task::Do(operation, When::AtOnce) if !operation.runs_code());
        let order = matches!(
            fault.what,
            What::Unordered { .. } | What::HostUsed { .. } | What::HostChanged { .. }
        );
        if copy && !order {
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
