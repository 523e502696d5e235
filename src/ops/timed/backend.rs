//! Every operation, handed on with what it cannot do without.

use std::ops::Range;

use super::work::{ATTENTION_BACKWARD_PRODUCTS, ATTENTION_PRODUCTS, attention, product};
use super::{Clock, Operation, Timed, Work};
use crate::memory::{AllocationError, Memory, Refused};
use crate::ops::backend::{
    Affine, AttentionOut, AttentionSaved, Backend, BatchHeader, Done, EmbeddingGradients,
    EmbeddingTables, Ended, GradientWrite, Gradients, LoadError, Mask, NormSaved, NormStats, Part,
    PartMut, ReadTokens, Residual, Shape, TrainingState, Update,
};
use crate::ops::gemm::{Table, TrainingGemm};
use crate::terms::{Engine, Gelu, Inputs, NamedChoice, Precision};

/// Elements of a part.
fn len<B>(part: &Part<B>) -> usize {
    part.range().len()
}

fn affine_len<C>(affine: &Affine<C>) -> usize {
    len(&affine.weight) + affine.bias.as_ref().map_or(0, len)
}

impl<B: Backend, C: Clock + 'static> Backend for Timed<B, C> {
    type Compute = B::Compute;
    type Full = B::Full;
    type Batch = B::Batch;
    type Header = B::Header;
    type Tally = B::Tally;
    type Recording = B::Recording;
    type Allocator<'a> = B::Allocator<'a>;

    fn engine(&self) -> Engine {
        self.inner.engine()
    }

    fn precision(&self) -> Precision {
        self.inner.precision()
    }

    fn inputs(&self) -> Inputs {
        self.inner.inputs()
    }

    fn allocator<'a>(&'a self, memory: &'a mut Memory) -> B::Allocator<'a> {
        self.inner.allocator(memory)
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

    fn record(&self, recording: &mut B::Recording, mut work: impl FnMut() -> Done) -> Done {
        // A recording has no operations that could be timed.
        let is_started = self.calls.borrow().is_some();
        match is_started {
            true => work(),
            false => self.inner.record(recording, work),
        }
    }

    fn begin(&self, gradients: &mut B::Full) -> Result<GradientWrite, Refused> {
        let work = match self.engine() {
            Engine::Cpu { .. } => Work::default(),
            Engine::Cuda => self.sizes.zeroing(),
        };
        self.timed(Operation::Zeroing, work, |inner| inner.begin(gradients))
    }

    fn clear(&self, part: PartMut<B::Compute>) -> Done {
        let work = self.sizes.moved(part.range().len(), 0);
        self.timed(Operation::Zeroing, work, |inner| inner.clear(part))
    }

    fn embed(
        &self,
        batch: &B::Batch,
        tables: EmbeddingTables<B::Compute>,
        out: PartMut<B::Compute>,
        mask: Option<Mask<B::Header>>,
    ) -> Done {
        let (values, columns) = (out.range().len(), tables.columns);
        let rows = values / columns;
        let read = (self.sizes.distinct_tokens(rows) + tables.positions.len()) * columns;
        let work = self.sizes.moved(values + read, rows);
        self.timed(Operation::Embedding, work, |inner| {
            inner.embed(batch, tables, out, mask)
        })
    }

    fn norm(
        &self,
        norm: Affine<B::Compute>,
        x: Part<B::Compute>,
        out: PartMut<B::Compute>,
        stats: NormStats<B::Full>,
    ) -> Done {
        let rows = stats.mean.range().len();
        let work = self.sizes.moved(2 * len(&x) + affine_len(&norm), 2 * rows);
        self.timed(Operation::Norm, work, |inner| {
            inner.norm(norm, x, out, stats)
        })
    }

    fn residual_norm(
        &self,
        residual: Residual<B::Compute>,
        mask: Option<Mask<B::Header>>,
        norm: Affine<B::Compute>,
        out: PartMut<B::Compute>,
        stats: NormStats<B::Full>,
    ) -> Done {
        let (values, rows) = (len(&residual.x), stats.mean.range().len());
        let work = self.sizes.moved(4 * values + affine_len(&norm), 2 * rows);
        self.timed(Operation::ResidualNorm, work, |inner| {
            inner.residual_norm(residual, mask, norm, out, stats)
        })
    }

    fn linear(
        &self,
        layer: Affine<B::Compute>,
        x: Part<B::Compute>,
        y: PartMut<B::Compute>,
        columns: usize,
    ) -> Done {
        let operation = match self.sizes.is_classifier(&layer.weight.range()) {
            true => Operation::Logits,
            false => Operation::Products,
        };
        let work = product(len(&x), len(&layer.weight) / columns);
        self.timed(operation, work, |inner| inner.linear(layer, x, y, columns))
    }

    fn linear_gelu(
        &self,
        form: Gelu,
        layer: Affine<B::Compute>,
        x: Part<B::Compute>,
        y: PartMut<B::Compute>,
        activated: PartMut<B::Compute>,
        columns: usize,
    ) -> Done {
        let work = product(len(&x), len(&layer.weight) / columns);
        self.timed(Operation::Products, work, |inner| {
            inner.linear_gelu(form, layer, x, y, activated, columns)
        })
    }

    fn gelu(&self, form: Gelu, x: Part<B::Compute>, out: PartMut<B::Compute>) -> Done {
        let work = self.sizes.moved(2 * len(&x), 0);
        self.timed(Operation::Gelu, work, |inner| inner.gelu(form, x, out))
    }

    fn attention(
        &self,
        shape: Shape,
        queries: Range<usize>,
        qkv: Part<B::Compute>,
        into: AttentionOut<B::Compute, B::Full>,
        mask: Option<Mask<B::Header>>,
        scratch: &mut B::Full,
    ) -> Done {
        let work = attention(shape, queries.clone(), ATTENTION_PRODUCTS);
        self.timed(Operation::Attention, work, |inner| {
            inner.attention(shape, queries, qkv, into, mask, scratch)
        })
    }

    fn cross_entropy(
        &self,
        batch: &B::Batch,
        rows: Range<usize>,
        logits: PartMut<B::Compute>,
        losses: PartMut<B::Full>,
    ) -> Done {
        let work = self.sizes.moved(logits.range().len(), 2 * rows.len());
        self.timed(Operation::CrossEntropy, work, |inner| {
            inner.cross_entropy(batch, rows, logits, losses)
        })
    }

    fn cross_entropy_gradients(
        &self,
        batch: &B::Batch,
        rows: Range<usize>,
        logits: PartMut<B::Compute>,
        losses: PartMut<B::Full>,
    ) -> Done {
        let work = self.sizes.moved(2 * logits.range().len(), 2 * rows.len());
        self.timed(Operation::CrossEntropy, work, |inner| {
            inner.cross_entropy_gradients(batch, rows, logits, losses)
        })
    }

    fn input_gradients(
        &self,
        weight: Part<B::Compute>,
        dy: Part<B::Compute>,
        dx: PartMut<B::Compute>,
        columns: usize,
    ) -> Done {
        let operation = match self.sizes.is_classifier(&weight.range()) {
            true => Operation::LogitsInputGradients,
            false => Operation::InputGradients,
        };
        let work = product(len(&dy), columns);
        self.timed(operation, work, |inner| {
            inner.input_gradients(weight, dy, dx, columns)
        })
    }

    fn gelu_input_gradients(
        &self,
        form: Gelu,
        weight: Part<B::Compute>,
        dy: Part<B::Compute>,
        x: Part<B::Compute>,
        dx: PartMut<B::Compute>,
        columns: usize,
    ) -> Done {
        let work = product(len(&dy), columns);
        self.timed(Operation::InputGradients, work, |inner| {
            inner.gelu_input_gradients(form, weight, dy, x, dx, columns)
        })
    }

    fn weight_gradients(
        &self,
        dy: Part<B::Compute>,
        x: Part<B::Compute>,
        into: Gradients<B::Full>,
        columns: usize,
        partials: &mut B::Full,
    ) -> Done {
        let operation = match self.sizes.is_classifier(&into.weight) {
            true => Operation::LogitsWeightGradients,
            false => Operation::WeightGradients,
        };
        let work = product(len(&dy), columns);
        self.timed(operation, work, |inner| {
            inner.weight_gradients(dy, x, into, columns, partials)
        })
    }

    fn attention_gradients(
        &self,
        shape: Shape,
        dout: Part<B::Compute>,
        saved: AttentionSaved<B::Compute, B::Full>,
        dqkv: PartMut<B::Compute>,
        mask: Option<Mask<B::Header>>,
        scratch: &mut B::Full,
    ) -> Done {
        let work = attention(shape, 0..shape.positions, ATTENTION_BACKWARD_PRODUCTS);
        self.timed(Operation::AttentionGradients, work, |inner| {
            inner.attention_gradients(shape, dout, saved, dqkv, mask, scratch)
        })
    }

    fn norm_gradients(
        &self,
        dout: Part<B::Compute>,
        saved: NormSaved<B::Compute, B::Full>,
        dx: PartMut<B::Compute>,
        into: Gradients<B::Full>,
        partials: &mut B::Full,
    ) -> Done {
        // `dx` is added to, and so are the gradients.
        let (values, columns, rows) = (len(&dout), len(&saved.weight), len(&saved.mean));
        let gradients = into.weight.len() + into.bias.as_ref().map_or(0, Range::len);
        let work = self
            .sizes
            .moved(4 * values + columns, 2 * rows + 2 * gradients);
        self.timed(Operation::NormGradients, work, |inner| {
            inner.norm_gradients(dout, saved, dx, into, partials)
        })
    }

    fn drop(
        &self,
        x: Part<B::Compute>,
        out: PartMut<B::Compute>,
        rows: (usize, usize),
        mask: Mask<B::Header>,
    ) -> Done {
        let work = self.sizes.moved(2 * len(&x), 0);
        self.timed(Operation::Dropout, work, |inner| {
            inner.drop(x, out, rows, mask)
        })
    }

    fn embedding_gradients(
        &self,
        batch: &B::Batch,
        dx: PartMut<B::Compute>,
        into: EmbeddingGradients<B::Full>,
        (columns, positions): (usize, usize),
        mask: Option<Mask<B::Header>>,
        partials: &mut B::Full,
    ) -> Done {
        let values = dx.range().len();
        let rows = values / columns;
        let lines = self.sizes.distinct_tokens(rows) + positions;
        let work = self.sizes.moved(values, rows + 2 * lines * columns);
        self.timed(Operation::EmbeddingGradients, work, |inner| {
            inner.embedding_gradients(batch, dx, into, (columns, positions), mask, partials)
        })
    }

    fn tally(&self, decays: &[(Range<usize>, bool)]) -> Result<B::Tally, Refused> {
        self.inner.tally(decays)
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
            inner.update(state, update, tally)
        })
    }
}
