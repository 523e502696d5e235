//! The operands of operations: parts of buffers, shapes, masks.

use std::ops::Range;

use super::Backend;
use crate::rng::Seed;

/// Elements of a buffer that an operation reads.
pub struct Part<'a, B> {
    pub buffer: &'a B,
    start: usize,
    end: usize,
}

/// Elements of a buffer that an operation writes.
pub struct PartMut<'a, B> {
    pub buffer: &'a mut B,
    start: usize,
    end: usize,
}

impl<'a, B> Part<'a, B> {
    pub fn new(buffer: &'a B, Range { start, end }: Range<usize>) -> Self {
        Self { buffer, start, end }
    }

    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }
}

impl<B> Clone for Part<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Part<'_, B> {}

impl<'a, B> PartMut<'a, B> {
    pub fn new(buffer: &'a mut B, Range { start, end }: Range<usize>) -> Self {
        Self { buffer, start, end }
    }

    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// The numbers that differ from one micro-step to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BatchHeader {
    pub step: u32,
    /// Index, within the step, of the micro-batch's first sequence.
    pub first_sample: u32,
    /// Factor of the gradients of a row's loss.
    pub scale: f64,
}

/// Every dropout mask of a micro-step. `M` is a backend's header.
pub struct Masks<'a, M> {
    /// Probability of dropping an element, in (0, 1).
    pub p: f64,
    pub seed: Seed,
    pub header: &'a M,
}

impl<M> Clone for Masks<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Masks<'_, M> {}

impl<'a, M> Masks<'a, M> {
    pub fn at(self, site: DropoutSite) -> Mask<'a, M> {
        Mask { masks: self, site }
    }
}

/// The mask of one site.
pub struct Mask<'a, M> {
    pub masks: Masks<'a, M>,
    pub site: DropoutSite,
}

/// A weight and its bias.
pub struct Affine<'a, C> {
    pub weight: Part<'a, C>,
    pub bias: Option<Part<'a, C>>,
}

/// The way an operation writes into the gradient buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GradientWrite {
    /// The first micro-step of a step: old values do not count.
    Overwrite,
    Accumulate,
}

/// The places of a weight's and a bias' gradients in the gradient buffer.
pub struct Gradients<'a, F> {
    pub buffer: &'a mut F,
    pub write: GradientWrite,
    pub weight: Range<usize>,
    pub bias: Option<Range<usize>>,
}

/// Mean and reciprocal deviation of every row, (R) each.
pub struct NormStats<'a, F> {
    pub mean: PartMut<'a, F>,
    pub rstd: PartMut<'a, F>,
}

/// The operands of a layer norm that its backward reads.
pub struct NormSaved<'a, C, F> {
    pub x: Part<'a, C>,      // (R, C)
    pub weight: Part<'a, C>, // (C)
    pub mean: Part<'a, F>,   // (R)
    pub rstd: Part<'a, F>,   // (R)
}

/// Both embeddings, and the positions to look up, of `columns` each.
pub struct EmbeddingTables<'a, C> {
    pub wte: Part<'a, C>, // (V, C)
    pub wpe: Part<'a, C>, // (at least all positions, C)
    pub positions: Range<usize>,
    pub columns: usize,
}

/// The places of both embeddings' gradients in the gradient buffer. The token embedding's already holds that of the
/// classifier, which shares the weight.
pub struct EmbeddingGradients<'a, F> {
    pub buffer: &'a mut F,
    pub write_positions: GradientWrite,
    pub wte: Range<usize>,
    pub wpe: Range<usize>,
}

/// The shape of an (R, columns) buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowShape {
    pub columns: usize,
    /// Rows of one sample.
    pub positions: usize,
}

/// A branch that joins the residual stream: `out = x + dropout(branch)`, (R, C) each.
pub struct Residual<'a, C> {
    pub x: Part<'a, C>,
    pub branch: Part<'a, C>,
    pub out: PartMut<'a, C>,
    /// Rows of one sample.
    pub positions: usize,
}

/// The results of attention.
pub struct AttentionOut<'a, C, F> {
    pub out: PartMut<'a, C>, // (B, T, C)
    pub lse: PartMut<'a, F>, // (B, H, T)
}

/// The operands of attention that its backward reads.
pub struct AttentionSaved<'a, C, F> {
    pub qkv: Part<'a, C>, // (B, T, 3C)
    pub out: Part<'a, C>, // (B, T, C)
    pub lse: Part<'a, F>, // (B, H, T)
}

/// The buffers that an update of the weights changes and reads, flat in the parameters' order.
pub struct TrainingState<'a, B: Backend> {
    pub weights: &'a mut B::Compute,
    /// The fp32 weights behind `weights` of lower precision.
    pub master: Option<&'a mut B::Full>,
    pub m: &'a mut B::Full,
    pub v: &'a mut B::Full,
    pub gradients: &'a B::Full,
}

/// The sizes of one call. `qkv` is (B, T, 3C) with C = heads * head_size: all queries, then all
/// keys, then all values of a position, head after head.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub sequences: usize,
    pub positions: usize,
    pub heads: usize,
    pub head_size: usize,
}

/// A place in the model where elements are dropped. Sites never share random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropoutSite {
    Embedding,
    /// The attention weights of one head.
    Attention {
        layer: usize,
        head: usize,
    },
    /// The output of the attention block.
    AttentionOutput {
        layer: usize,
    },
    /// The output of the MLP.
    MlpOutput {
        layer: usize,
    },
}

impl DropoutSite {
    /// A distinct number below 2^24 for up to 4,094 layers of up to 4,093 heads.
    pub(in crate::ops) fn number(self) -> u32 {
        let (layer, part) = match self {
            DropoutSite::Embedding => (0, 0),
            DropoutSite::AttentionOutput { layer } => (layer + 1, 0),
            DropoutSite::MlpOutput { layer } => (layer + 1, 1),
            DropoutSite::Attention { layer, head } => (layer + 1, head + 2),
        };
        (layer as u32) << 12 | part as u32
    }
}
