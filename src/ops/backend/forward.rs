//! The operations of the forward.

use std::ops::Range;

use super::{
    Affine, AttentionOut, Buffers, Done, EmbeddingTables, Mask, NormStats, Part, PartMut, Residual,
    Shape,
};
use crate::terms::Gelu;

/// The operations of the forward, in the order of the model.
pub trait Forward: Buffers {
    /// `out = dropout(wte[token] + wpe[position])`, (R, C), of the first rows of the micro-batch, as many as `out` has.
    fn embed(
        &self,
        batch: &Self::Batch,
        tables: EmbeddingTables<Self::Compute>,
        out: PartMut<Self::Compute>,
        mask: Option<Mask<Self::Header>>,
    ) -> Done;
    /// `out = (x - mean) * rstd * weight + bias`, (R, C). Writes mean and rstd, (R) each, for the backward.
    fn norm(
        &self,
        norm: Affine<Self::Compute>,
        x: Part<Self::Compute>,
        out: PartMut<Self::Compute>,
        stats: NormStats<Self::Full>,
    ) -> Done;
    /// Joins a branch to the residual stream, and writes the norm of the sum to `out`, (R, C).
    fn residual_norm(
        &self,
        residual: Residual<Self::Compute>,
        mask: Option<Mask<Self::Header>>,
        norm: Affine<Self::Compute>,
        out: PartMut<Self::Compute>,
        stats: NormStats<Self::Full>,
    ) -> Done;
    /// `y = x W^T + b`, with x (R, columns) and W (outputs, columns).
    fn linear(
        &self,
        layer: Affine<Self::Compute>,
        x: Part<Self::Compute>,
        y: PartMut<Self::Compute>,
        columns: usize,
    ) -> Done;
    /// Writes `y` of [`Forward::linear`], and `activated = gelu(y)`.
    fn linear_gelu(
        &self,
        form: Gelu,
        layer: Affine<Self::Compute>,
        x: Part<Self::Compute>,
        y: PartMut<Self::Compute>,
        activated: PartMut<Self::Compute>,
        columns: usize,
    ) -> Done;
    /// `out = gelu(x)`, element by element.
    fn gelu(&self, form: Gelu, x: Part<Self::Compute>, out: PartMut<Self::Compute>) -> Done;
    /// Causal self-attention, from qkv (B, T, 3C) to out (B, T, C). Only the positions in `queries` are computed; a GPU
    /// computes all of them. The mask is the one of head 0.
    fn attention(
        &self,
        shape: Shape,
        queries: Range<usize>,
        qkv: Part<Self::Compute>,
        into: AttentionOut<Self::Compute, Self::Full>,
        mask: Option<Mask<Self::Header>>,
        scratch: &mut Self::Full,
    ) -> Done;
    /// Writes the losses of `rows` of the micro-batch, in nats. Overwrites their `logits`, (rows, V).
    fn cross_entropy(
        &self,
        batch: &Self::Batch,
        rows: Range<usize>,
        logits: PartMut<Self::Compute>,
        losses: PartMut<Self::Full>,
    ) -> Done;
}
