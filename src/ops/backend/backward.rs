//! The operations of the backward.

use std::ops::Range;

use super::{
    AttentionSaved, Buffers, Done, EmbeddingGradients, GradientWrite, Gradients, Mask, NormSaved,
    Part, PartMut, Shape,
};
use crate::memory::Refused;
use crate::terms::Gelu;

/// The operations of the backward, in the order of the model.
pub trait Backward: Buffers {
    /// Before gradients are summed: what they hold from here on. The first micro-step replaces what is
    /// [`GradientWrite::Overwrite`]; who cannot do that zeroes them.
    fn begin(&self, gradients: &mut Self::Full) -> Result<GradientWrite, Refused>;
    /// As [`Forward::cross_entropy`](super::Forward::cross_entropy), and the logits become the gradients of the losses times the header's
    /// scale.
    fn cross_entropy_gradients(
        &self,
        batch: &Self::Batch,
        rows: Range<usize>,
        logits: PartMut<Self::Compute>,
        losses: PartMut<Self::Full>,
    ) -> Done;
    fn input_gradients(
        &self,
        weight: Part<Self::Compute>,
        dy: Part<Self::Compute>,
        dx: PartMut<Self::Compute>,
        columns: usize,
    ) -> Done;
    /// As [`Backward::input_gradients`] through the activation of `x`.
    fn gelu_input_gradients(
        &self,
        form: Gelu,
        weight: Part<Self::Compute>,
        dy: Part<Self::Compute>,
        x: Part<Self::Compute>,
        dx: PartMut<Self::Compute>,
        columns: usize,
    ) -> Done;
    fn weight_gradients(
        &self,
        dy: Part<Self::Compute>,
        x: Part<Self::Compute>,
        into: Gradients<Self::Full>,
        columns: usize,
        partials: &mut Self::Full,
    ) -> Done;
    fn attention_gradients(
        &self,
        shape: Shape,
        dout: Part<Self::Compute>,
        saved: AttentionSaved<Self::Compute, Self::Full>,
        dqkv: PartMut<Self::Compute>,
        mask: Option<Mask<Self::Header>>,
        scratch: &mut Self::Full,
    ) -> Done;
    /// Adds to `dx`.
    fn norm_gradients(
        &self,
        dout: Part<Self::Compute>,
        saved: NormSaved<Self::Compute, Self::Full>,
        dx: PartMut<Self::Compute>,
        into: Gradients<Self::Full>,
        partials: &mut Self::Full,
    ) -> Done;
    /// `out = dropout(x)`, (R, columns) with `positions` rows of a sample.
    fn drop(
        &self,
        x: Part<Self::Compute>,
        out: PartMut<Self::Compute>,
        rows: (usize, usize),
        mask: Mask<Self::Header>,
    ) -> Done;
    /// Adds the gradients of the micro-batch's embeddings, of which `dx` are those before dropout, to those
    /// of both tables. `dx` may be masked in place.
    fn embedding_gradients(
        &self,
        batch: &Self::Batch,
        dx: PartMut<Self::Compute>,
        into: EmbeddingGradients<Self::Full>,
        rows: (usize, usize),
        mask: Option<Mask<Self::Header>>,
        partials: &mut Self::Full,
    ) -> Done;
}
