//! The operations of the forward timed, each with the least work that it does.

use std::ops::Range;

use super::backend::{affine_len, len};
use super::work::{ATTENTION_PRODUCTS, attention, product};
use super::{Clock, Operation, Timed};
use crate::ops::backend::{
    Affine, AttentionOut, Backend, Done, EmbeddingTables, Forward, Mask, NormStats, Part, PartMut,
    Residual, Shape,
};
use crate::terms::Gelu;

impl<B: Backend, C: Clock + 'static> Forward for Timed<B, C> {
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
        let operation = if self.sizes.is_classifier(&layer.weight.range()) {
            Operation::Logits
        } else {
            Operation::Products
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
}
