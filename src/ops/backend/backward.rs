//! The operations of the backward.

use std::ops::Range;

use super::{
    AttentionSaved, Buffers, Done, EmbeddingGradients, GradientWrite, Gradients, Mask, NormSaved,
    Part, PartMut, RowShape, Shape,
};
use crate::memory::Refused;
use crate::terms::Gelu;

/// The operations of the backward, in the order of the model.
pub trait Backward: Buffers {
    /// Prepares the gradient buffer for a step: returns `Overwrite` if the first micro-step may overwrite it, or zeroes
    /// it and returns `Accumulate`.
    fn begin(&self, gradients: &mut Self::Full) -> Result<GradientWrite, Refused>;
    /// Writes the losses of [`Forward::cross_entropy`](super::Forward::cross_entropy), and replaces the logits by their
    /// gradients times the header's scale.
    fn cross_entropy_gradients(
        &self,
        batch: &Self::Batch,
        rows: Range<usize>,
        logits: PartMut<Self::Compute>,
        losses: PartMut<Self::Full>,
    ) -> Done;
    /// `dx = dy W`, with dx (R, columns) and W (outputs, columns).
    fn input_gradients(
        &self,
        weight: Part<Self::Compute>,
        dy: Part<Self::Compute>,
        dx: PartMut<Self::Compute>,
        columns: usize,
    ) -> Done;
    /// `dx = (dy W) * gelu'(x)`: [`Backward::input_gradients`] through the activation of `x`.
    fn gelu_input_gradients(
        &self,
        form: Gelu,
        weight: Part<Self::Compute>,
        dy: Part<Self::Compute>,
        x: Part<Self::Compute>,
        dx: PartMut<Self::Compute>,
        columns: usize,
    ) -> Done;
    /// `dW += dy^T x`, and adds the column sums of `dy` to the bias' gradient.
    fn weight_gradients(
        &self,
        dy: Part<Self::Compute>,
        x: Part<Self::Compute>,
        into: Gradients<Self::Full>,
        columns: usize,
        partials: &mut Self::Full,
    ) -> Done;
    /// Writes dqkv, (B, T, 3C), from dout, (B, T, C).
    fn attention_gradients(
        &self,
        shape: Shape,
        dout: Part<Self::Compute>,
        saved: AttentionSaved<Self::Compute, Self::Full>,
        dqkv: PartMut<Self::Compute>,
        mask: Option<Mask<Self::Header>>,
        scratch: &mut Self::Full,
    ) -> Done;
    /// Adds the input gradient of a layer norm to `dx`, and those of its weight and bias to theirs.
    fn norm_gradients(
        &self,
        dout: Part<Self::Compute>,
        saved: NormSaved<Self::Compute, Self::Full>,
        dx: PartMut<Self::Compute>,
        into: Gradients<Self::Full>,
        partials: &mut Self::Full,
    ) -> Done;
    /// `out = dropout(x)`.
    fn drop(
        &self,
        x: Part<Self::Compute>,
        out: PartMut<Self::Compute>,
        shape: RowShape,
        mask: Mask<Self::Header>,
    ) -> Done;
    /// Adds the gradients of the micro-batch's embeddings to those of both tables. `dx` is the gradient after
    /// dropout; it may be masked in place.
    fn embedding_gradients(
        &self,
        batch: &Self::Batch,
        dx: PartMut<Self::Compute>,
        into: EmbeddingGradients<Self::Full>,
        shape: RowShape,
        mask: Option<Mask<Self::Header>>,
        partials: &mut Self::Full,
    ) -> Done;
}
