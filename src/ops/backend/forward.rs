//! The operations of the forward.

use std::ops::Range;

use super::{
    Affine, AttentionOut, Buffers, Done, EmbeddingTables, Mask, NormStats, Part, PartMut, Residual,
    Shape,
};
use crate::terms::Gelu;

/// The operations of the forward, in the order of the model.
pub trait Forward: Buffers {
    /// Embeds the first rows of the micro-batch, as many as `out` has.
    fn embed(
        &self,
        batch: &Self::Batch,
        tables: EmbeddingTables<Self::Compute>,
        out: PartMut<Self::Compute>,
        mask: Option<Mask<Self::Header>>,
    ) -> Done;
    fn norm(
        &self,
        norm: Affine<Self::Compute>,
        x: Part<Self::Compute>,
        out: PartMut<Self::Compute>,
        stats: NormStats<Self::Full>,
    ) -> Done;
    /// Joins a branch to the residual stream, and `out` is the norm of that.
    fn residual_norm(
        &self,
        residual: Residual<Self::Compute>,
        mask: Option<Mask<Self::Header>>,
        norm: Affine<Self::Compute>,
        out: PartMut<Self::Compute>,
        stats: NormStats<Self::Full>,
    ) -> Done;
    fn linear(
        &self,
        layer: Affine<Self::Compute>,
        x: Part<Self::Compute>,
        y: PartMut<Self::Compute>,
        columns: usize,
    ) -> Done;
    fn linear_gelu(
        &self,
        form: Gelu,
        layer: Affine<Self::Compute>,
        x: Part<Self::Compute>,
        y: PartMut<Self::Compute>,
        activated: PartMut<Self::Compute>,
        columns: usize,
    ) -> Done;
    fn gelu(&self, form: Gelu, x: Part<Self::Compute>, out: PartMut<Self::Compute>) -> Done;
    /// `queries` are the positions that are computed; a GPU computes all of them. The mask is that of head 0.
    fn attention(
        &self,
        shape: Shape,
        queries: Range<usize>,
        qkv: Part<Self::Compute>,
        into: AttentionOut<Self::Compute, Self::Full>,
        mask: Option<Mask<Self::Header>>,
        scratch: &mut Self::Full,
    ) -> Done;
    /// The losses of `rows` of the micro-batch, whose `logits` may be lost.
    fn cross_entropy(
        &self,
        batch: &Self::Batch,
        rows: Range<usize>,
        logits: PartMut<Self::Compute>,
        losses: PartMut<Self::Full>,
    ) -> Done;
}
