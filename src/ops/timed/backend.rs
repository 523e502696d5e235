//! Buffers, recordings, losses and the update, timed.

use super::{Clock, Operation, Timed, Work};
use crate::memory::{AllocationError, Memory, Refused};
use crate::ops::backend::{
    Affine, Backend, BatchHeader, Buffers, DecayRun, Done, Ended, LoadError, Part, PartMut,
    ReadTokens, TrainingState, Update,
};
use crate::ops::gemm::{Table, TrainingGemm};
use crate::terms::{Engine, Inputs, NamedChoice, Precision};

/// Elements of a part.
pub(super) fn len<B>(part: &Part<B>) -> usize {
    part.range().len()
}

pub(super) fn affine_len<C>(affine: &Affine<C>) -> usize {
    len(&affine.weight) + affine.bias.as_ref().map_or(0, len)
}

impl<B: Backend, C: Clock + 'static> Buffers for Timed<B, C> {
    type Compute = B::Compute;
    type Full = B::Full;
    type Batch = B::Batch;
    type Header = B::Header;
    type Allocator<'a> = B::Allocator<'a>;

    fn engine(&self) -> Engine {
        self.inner.engine()
    }

    fn precision(&self) -> Precision {
        self.inner.precision()
    }

    fn allocator<'a>(&'a self, memory: &'a mut Memory) -> B::Allocator<'a> {
        self.inner.allocator(memory)
    }

    fn batch(&self, rows: usize, memory: &mut Memory) -> Result<B::Batch, AllocationError> {
        self.inner.batch(rows, memory)
    }

    fn load<E>(
        &self,
        batch: &mut B::Batch,
        rows: usize,
        header: BatchHeader,
        read: &mut ReadTokens<E>,
    ) -> Result<(), LoadError<E>> {
        self.timed(Operation::MicroBatch, Work::default(), |inner| {
            inner.load(batch, rows, header, read)
        })
    }

    fn header(batch: &B::Batch) -> &B::Header {
        B::header(batch)
    }

    fn clear(&self, part: PartMut<B::Compute>) -> Done {
        let work = self.sizes.moved(part.range().len(), 0);
        self.timed(Operation::Zeroing, work, |inner| inner.clear(part))
    }
}

impl<B: Backend, C: Clock + 'static> Backend for Timed<B, C> {
    type Tally = B::Tally;
    type Optimizer = B::Optimizer;
    type Recording = B::Recording;

    fn inputs(&self) -> Inputs {
        self.inner.inputs()
    }

    fn prepare(&self, gemms: &[TrainingGemm], room: Option<u64>) {
        self.inner.prepare(gemms, room);
    }

    fn products(&self) -> Table {
        self.inner.products()
    }

    fn take_choices(&self) -> Vec<NamedChoice> {
        self.inner.take_choices()
    }

    fn record(&self, recording: &mut B::Recording, mut work: impl FnMut() -> Done) -> Done {
        // A recording has no operations that could be timed.
        let is_started = self.calls.borrow().is_some();
        if is_started {
            work()
        } else {
            self.inner.record(recording, work)
        }
    }

    fn tally(&self) -> Result<B::Tally, Refused> {
        self.inner.tally()
    }

    fn optimizer(&self, decays: &[DecayRun]) -> Result<B::Optimizer, Refused> {
        self.inner.optimizer(decays)
    }

    fn reset(&self, tally: &mut B::Tally) -> Done {
        self.timed(Operation::Zeroing, Work::default(), |inner| {
            inner.reset(tally)
        })
    }

    fn add_losses(&self, losses: Part<B::Full>, positions: usize, tally: &mut B::Tally) -> Done {
        let work = self.sizes.moved(0, len(&losses));
        self.timed(Operation::Losses, work, |inner| {
            inner.add_losses(losses, positions, tally)
        })
    }

    fn loss(&self, tally: &B::Tally) -> Result<f64, Refused> {
        self.inner.loss(tally)
    }

    fn update(
        &self,
        optimizer: &mut B::Optimizer,
        state: TrainingState<Self>,
        update: &Update,
        tally: &mut B::Tally,
    ) -> Result<Ended, Refused> {
        let state = TrainingState::<B> {
            weights: state.weights,
            master: state.master,
            m: state.m,
            v: state.v,
            gradients: state.gradients,
        };
        self.timed(Operation::Update, self.sizes.update(), |inner| {
            inner.update(optimizer, state, update, tally)
        })
    }
}
