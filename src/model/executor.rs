//! The execution of a program's operations on a device, with a clock around each when that is asked for.

use std::cell::RefCell;

use super::Node;
use crate::memory::Refused;
use crate::ops::backend::{
    Accept, Backend, BatchHeader, Buffer, Done, Ended, Frame, OpKind, ReadTokens, Recording,
    TrainingState, Update, Work,
};
use crate::ops::clock::Clock;

/// A device, and whether the time of its operations is taken.
///
/// While it is, work that would be recorded is done operation by operation. The clock is read when it ends, so that
/// nothing waits for the device in between.
pub struct Executor {
    backend: Box<dyn Backend>,
    stopwatch: RefCell<Option<Stopwatch>>,
}

struct Stopwatch {
    clock: Box<dyn Clock>,
    calls: Vec<Lap>,
}

/// One operation that was done, and its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lap {
    pub kind: OpKind,
    /// The block that it belongs to, if it does.
    pub layer: Option<usize>,
    pub work: Work,
    pub seconds: f64,
}

impl Executor {
    pub fn new(backend: Box<dyn Backend>) -> Self {
        Self {
            backend,
            stopwatch: RefCell::default(),
        }
    }

    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Takes the time of every operation from now on.
    pub fn start_clock(&self) {
        *self.stopwatch.borrow_mut() = Some(Stopwatch {
            clock: self.backend.clock(),
            calls: Vec::new(),
        });
    }

    /// Takes the time no more, waits for the device, and tells what was done since the start.
    ///
    /// # Errors
    /// Those of the device.
    pub fn stop_clock(&self) -> Result<Vec<Lap>, Refused> {
        let Some(mut stopwatch) = self.stopwatch.take() else {
            return Ok(Vec::new());
        };
        let laps = stopwatch.calls.into_iter().zip(stopwatch.clock.laps()?);
        Ok(laps.map(|(lap, seconds)| Lap { seconds, ..lap }).collect())
    }

    /// Does the operations of `nodes` in their order.
    ///
    /// # Errors
    /// The device's refusal.
    pub fn run(&self, nodes: &[Node], frame: &Frame) -> Done {
        for Node { op, layer, .. } in nodes {
            let work = || op.work(&frame.span, frame.rows.len(), self.backend.precision());
            self.timed(op.kind(), *layer, work, |backend| backend.run(op, frame))?;
        }
        Ok(())
    }

    /// See [`Backend::record`].
    ///
    /// # Errors
    /// Those of `work`, and the device's refusal.
    pub fn record(&self, recording: &mut Recording, work: &mut dyn FnMut() -> Done) -> Done {
        // A recording has no operations that could be timed.
        let is_timed = self.stopwatch.borrow().is_some();
        if is_timed {
            work()
        } else {
            self.backend.record(recording, work)
        }
    }

    /// See [`Backend::load`].
    ///
    /// # Errors
    /// The device's refusal.
    pub fn load(
        &self,
        batch: &Buffer,
        rows: usize,
        header: BatchHeader,
        read: &mut ReadTokens,
    ) -> Done {
        self.timed(OpKind::MicroBatch, None, Work::default, |backend| {
            backend.load(batch, rows, header, read)
        })
    }

    /// See [`Backend::update`]. The state has so many parameters.
    ///
    /// # Errors
    /// The device's refusal.
    pub fn update(
        &self,
        numbers: &Buffer,
        state: TrainingState,
        parameters: usize,
        update: &Update,
        accept: Option<Accept>,
    ) -> Result<Ended, Refused> {
        let work = || Work::update(self.backend.precision(), parameters);
        self.timed(OpKind::Update, None, work, |backend| {
            backend.update(numbers, state, update, accept)
        })
    }

    fn timed<R>(
        &self,
        kind: OpKind,
        layer: Option<usize>,
        work: impl FnOnce() -> Work,
        run: impl FnOnce(&dyn Backend) -> Result<R, Refused>,
    ) -> Result<R, Refused> {
        let mut stopwatch = self.stopwatch.borrow_mut();
        let Some(Stopwatch { clock, calls }) = &mut *stopwatch else {
            return run(&*self.backend);
        };
        clock.mark()?;
        let done = run(&*self.backend);
        // Also after a refusal: marks come in pairs.
        if let Err(refused) = clock.mark() {
            *stopwatch = None;
            return Err(refused);
        }
        calls.push(Lap {
            kind,
            layer,
            work: work(),
            seconds: 0.0,
        });
        done
    }
}
