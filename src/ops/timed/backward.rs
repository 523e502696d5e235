//! The operations of the backward timed, each with the least work that it does.

use std::ops::Range;

use super::backend::len;
use super::work::{ATTENTION_BACKWARD_PRODUCTS, attention, product};
use super::{Clock, Operation, Timed, Work};
use crate::memory::Refused;
use crate::ops::backend::{
    AttentionSaved, Backend, Backward, Buffers, Done, EmbeddingGradients, GradientWrite, Gradients,
    Mask, NormSaved, Part, PartMut, RowShape, Shape,
};
use crate::terms::{Engine, Gelu};

impl<B: Backend, C: Clock + 'static> Backward for Timed<B, C> {
    fn begin(&self, gradients: &mut B::Full) -> Result<GradientWrite, Refused> {
        let work = match self.engine() {
            Engine::Cpu { .. } => Work::default(),
            Engine::Cuda => self.sizes.zeroing(),
        };
        self.timed(Operation::Zeroing, work, |inner| inner.begin(gradients))
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
        let operation = if self.sizes.is_classifier(&weight.range()) {
            Operation::LogitsInputGradients
        } else {
            Operation::InputGradients
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
        let operation = if self.sizes.is_classifier(&into.weight) {
            Operation::LogitsWeightGradients
        } else {
            Operation::WeightGradients
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
        shape: RowShape,
        mask: Mask<B::Header>,
    ) -> Done {
        let work = self.sizes.moved(2 * len(&x), 0);
        self.timed(Operation::Dropout, work, |inner| {
            inner.drop(x, out, shape, mask)
        })
    }

    fn embedding_gradients(
        &self,
        batch: &B::Batch,
        dx: PartMut<B::Compute>,
        into: EmbeddingGradients<B::Full>,
        shape: RowShape,
        mask: Option<Mask<B::Header>>,
        partials: &mut B::Full,
    ) -> Done {
        let values = dx.range().len();
        let rows = values / shape.columns;
        let lines = self.sizes.distinct_tokens(rows) + shape.positions;
        let work = self.sizes.moved(values, rows + 2 * lines * shape.columns);
        self.timed(Operation::EmbeddingGradients, work, |inner| {
            inner.embedding_gradients(batch, dx, into, shape, mask, partials)
        })
    }
}
