//! A [`Backend`] that computes as another does, and can tell how long every operation takes.
//!
//! Until it is started it passes every call on. While it is started, work that would be recorded is done operation by
//! operation, with a mark of the device's clock before and after each. Marks are read when
//! it is stopped, so that nothing waits for the device in between.

mod backend;
mod backward;
mod clock;
#[cfg(feature = "cuda")]
mod event_clock;
mod forward;
mod spent;
mod work;

use std::cell::RefCell;

use crate::memory::Refused;
use crate::ops::backend::{Backend, StoredBackend, Values, ValuesMut};
use crate::terms::ModelDims;

use work::Sizes;

pub use clock::{Clock, HostClock};
#[cfg(feature = "cuda")]
pub use event_clock::EventClock;
pub use spent::{Operation, Parts, Spent, Work};

/// `B`, timed by `C`.
pub struct Timed<B, C: Clock> {
    inner: B,
    clock: C,
    sizes: Sizes,
    /// `None` unless it is started.
    calls: RefCell<Option<Vec<Call<C::Mark>>>>,
}

/// One operation, done or under way.
struct Call<M> {
    operation: Operation,
    work: Work,
    marks: [M; 2],
}

impl<B: Backend, C: Clock> Timed<B, C> {
    /// Times the training of a model with these sizes and this number of parameters. `clock` is that of the backend's
    /// device.
    pub fn new(inner: B, clock: C, dims: &ModelDims, parameters: usize) -> Self {
        Self {
            sizes: Sizes::new(dims, parameters, inner.precision()),
            inner,
            clock,
            calls: RefCell::default(),
        }
    }

    /// Times every operation from now on.
    pub fn start(&self) {
        *self.calls.borrow_mut() = Some(Vec::new());
    }

    /// Times no more, waits for the device, and tells what was done since the start.
    ///
    /// # Errors
    /// Those of the device.
    pub fn stop(&self) -> Result<Parts, Refused> {
        let mut parts = Parts::new();
        for call in self.calls.take().unwrap_or_default() {
            let seconds = self.clock.seconds(call.marks)?;
            parts
                .entry(call.operation)
                .or_default()
                .add(seconds, call.work);
        }
        Ok(parts)
    }

    fn timed<R, E>(
        &self,
        operation: Operation,
        work: Work,
        run: impl FnOnce(&B) -> Result<R, E>,
    ) -> Result<R, E> {
        if self.calls.borrow().is_none() {
            return run(&self.inner);
        }
        let start = self.clock.mark();
        let done = run(&self.inner)?;
        let marks = [start, self.clock.mark()];
        if let Some(calls) = &mut *self.calls.borrow_mut() {
            calls.push(Call {
                operation,
                work,
                marks,
            });
        }
        Ok(done)
    }
}

impl<B: StoredBackend, C: Clock + 'static> StoredBackend for Timed<B, C> {
    fn values<'a>(&'a self, buffer: &'a B::Full) -> Box<dyn Values + 'a> {
        self.inner.values(buffer)
    }

    fn values_mut<'a>(&'a self, buffer: &'a mut B::Full) -> Box<dyn ValuesMut + 'a> {
        self.inner.values_mut(buffer)
    }

    fn weights<'a>(&'a self, weights: &'a B::Compute) -> Box<dyn Values + 'a> {
        self.inner.weights(weights)
    }

    fn weights_mut<'a>(&'a self, weights: &'a mut B::Compute) -> Box<dyn ValuesMut + 'a> {
        self.inner.weights_mut(weights)
    }

    fn round(&self, master: &B::Full, weights: &mut B::Compute) -> Result<(), Refused> {
        self.inner.round(master, weights)
    }
}
