//! Least work of each operation, bytes or arithmetic, by the sizes of its operands.
//!
//! The one count: `plan` predicts throughput from it, and `taper bench step` divides it by measured times. (The
//! utilization of a run is by nanoGPT's formula: [`crate::metrics::flops_per_token`].)

use std::fmt::{self, Display};
use std::ops::Range;

use serde::Serialize;

use super::op::attention_shape;
use super::{Affine, Matrix, Op, Shape, Span};
use crate::terms::Precision;

/// Operations of one kind, in the order of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OpKind {
    /// Reading samples, and bringing them to the device.
    MicroBatch,
    /// Zeros into the gradients, the gradient of the residual stream, and the loss so far.
    Zeroing,
    Embedding,
    Norm,
    /// Residual add, with the dropout of the branch, and norm.
    ResidualNorm,
    /// `y = x W^T + b`, with GELU if that follows.
    Products,
    /// GELU as an operation of its own.
    Gelu,
    Attention,
    Logits,
    /// Losses and the gradients of the logits.
    CrossEntropy,
    LogitsInputGradients,
    LogitsWeightGradients,
    /// `dX = dY W`, with GELU's slope if that follows.
    InputGradients,
    /// `dW += dY^T X`, and the sums of `dY`'s columns.
    WeightGradients,
    AttentionGradients,
    NormGradients,
    /// Dropout as an operation of its own: in the backward.
    Dropout,
    EmbeddingGradients,
    /// Sum of the losses.
    Losses,
    /// Norm of all gradients, clipping, and AdamW.
    Update,
}

impl Display for OpKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            OpKind::MicroBatch => "micro-batch",
            OpKind::Zeroing => "zeroing",
            OpKind::Embedding => "embedding",
            OpKind::Norm => "norm",
            OpKind::ResidualNorm => "residual + norm",
            OpKind::Products => "products",
            OpKind::Gelu => "gelu",
            OpKind::Attention => "attention",
            OpKind::Logits => "logits",
            OpKind::CrossEntropy => "cross-entropy",
            OpKind::LogitsInputGradients => "logits dX",
            OpKind::LogitsWeightGradients => "logits dW",
            OpKind::InputGradients => "products dX",
            OpKind::WeightGradients => "products dW",
            OpKind::AttentionGradients => "attention backward",
            OpKind::NormGradients => "norm backward",
            OpKind::Dropout => "dropout",
            OpKind::EmbeddingGradients => "embedding backward",
            OpKind::Losses => "losses",
            OpKind::Update => "gradient norm, AdamW",
        })
    }
}

/// Least work of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes read or written: every array once, twice if it is changed. 0 for an operation bound by arithmetic.
    pub bytes: u64,
    /// Multiplications and additions of GEMMs. 0 for an operation bound by memory.
    pub flops: u64,
}

impl Work {
    /// The move of `compute` elements in the precision that the model computes in, and `full` elements in fp32 or ids.
    pub fn moved(precision: Precision, compute: usize, full: usize) -> Self {
        Self {
            bytes: compute as u64 * precision.element_bytes() + 4 * full as u64,
            flops: 0,
        }
    }

    /// An update of all parameters: it reads gradients for their norm and once more, reads and writes weights and
    /// moments, and writes the weights of lower precision if there are any.
    pub fn update(precision: Precision, parameters: usize) -> Self {
        let copies = if precision.is_mixed() { parameters } else { 0 };
        Self::moved(precision, copies, (2 + 3 * 2) * parameters)
    }

    fn flops(flops: usize) -> Self {
        Self {
            bytes: 0,
            flops: flops as u64,
        }
    }
}

/// GEMMs in attention's forward: `Q K^T` and `P V`.
const ATTENTION_GEMMS: usize = 2;

/// GEMMs in attention's backward, which recomputes the weights: `Q K^T` again, `dP`, `dV`, `dQ` and `dK`.
const ATTENTION_BACKWARD_GEMMS: usize = 5;

/// The GEMMs of attention over every pair of a query of `queries` and a key that it sees.
fn attention(gemms: usize, shape: Shape, queries: Range<usize>) -> Work {
    // Query number t sees t + 1 keys.
    let pairs = (queries.start + 1 + queries.end) * queries.len() / 2;
    let per_gemm = 2 * shape.sequences * shape.heads * shape.head_size * pairs;
    Work::flops(gemms * per_gemm)
}

/// Expected number of distinct tokens in `rows` rows, if tokens are drawn uniformly from a vocabulary, as a bench draws
/// them.
fn distinct_tokens(vocabulary: usize, rows: usize) -> usize {
    let all = vocabulary as f64;
    (all * (1.0 - (1.0 - 1.0 / all).powf(rows as f64))).round() as usize
}

impl Op {
    pub fn kind(&self) -> OpKind {
        // Logits are the matrices that exist a chunk at a time.
        let logits =
            |y: &Matrix, of_logits, of_others| if y.is_chunk { of_logits } else { of_others };
        match self {
            Op::ResetLoss | Op::ZeroGradients { .. } | Op::Zero { .. } => OpKind::Zeroing,
            Op::Embed { .. } | Op::EmbedAt { .. } => OpKind::Embedding,
            Op::Norm { .. } => OpKind::Norm,
            Op::ResidualNorm { .. } => OpKind::ResidualNorm,
            Op::Linear { y, .. } => logits(y, OpKind::Logits, OpKind::Products),
            Op::LinearGelu { .. } => OpKind::Products,
            Op::Gelu { .. } => OpKind::Gelu,
            Op::Attention { .. } | Op::CachedAttention { .. } | Op::CopyCache { .. } => {
                OpKind::Attention
            }
            Op::CrossEntropy { .. } | Op::CrossEntropyGradients { .. } => OpKind::CrossEntropy,
            Op::AddLosses { .. } => OpKind::Losses,
            Op::InputGradients { dy, .. } => {
                logits(dy, OpKind::LogitsInputGradients, OpKind::InputGradients)
            }
            Op::GeluInputGradients { .. } => OpKind::InputGradients,
            Op::WeightGradients { dy, .. } => {
                logits(dy, OpKind::LogitsWeightGradients, OpKind::WeightGradients)
            }
            Op::AttentionGradients { .. } => OpKind::AttentionGradients,
            Op::NormGradients { .. } => OpKind::NormGradients,
            Op::Dropout { .. } => OpKind::Dropout,
            Op::EmbeddingGradients { .. } => OpKind::EmbeddingGradients,
        }
    }

    /// The least work over `rows` rows of a `span`.
    pub fn work(&self, span: &Span, rows: usize, precision: Precision) -> Work {
        let moved = |compute, full| Work::moved(precision, compute, full);
        let values = |x: &Matrix| rows * x.columns;
        let affine = |norm: &Affine| norm.weight.len() + norm.bias_len();
        match self {
            Op::ResetLoss => Work::default(),
            Op::ZeroGradients { parameters } => moved(0, *parameters),
            Op::Zero { x } => moved(values(x), 0),
            Op::Embed { tables, out, .. } | Op::EmbedAt { tables, out, .. } => {
                let tokens = distinct_tokens(tables.wte.len() / out.columns, rows);
                let read = (tokens + span.positions.len()) * out.columns;
                moved(values(out) + read, rows)
            }
            Op::Norm { norm, x, .. } => moved(2 * values(x) + affine(norm), 2 * rows),
            Op::ResidualNorm { norm, x, .. } => moved(4 * values(x) + affine(norm), 2 * rows),
            Op::Gelu { x, .. } | Op::Dropout { x, .. } => moved(2 * values(x), 0),
            Op::Linear { x, y, .. } | Op::LinearGelu { x, y, .. } => {
                Work::flops(2 * values(x) * y.columns)
            }
            Op::InputGradients { dy, dx, .. } | Op::GeluInputGradients { dy, dx, .. } => {
                Work::flops(2 * values(dy) * dx.columns)
            }
            Op::WeightGradients { dy, x, .. } => Work::flops(2 * values(dy) * x.columns),
            Op::Attention { heads, out, .. } => {
                let shape = attention_shape(*heads, out, span);
                attention(ATTENTION_GEMMS, shape, span.positions.clone())
            }
            // The cache is read up to the positions of the rows, which the batch has: at least the rows themselves.
            Op::CachedAttention { qkv, out, .. } => moved(values(qkv) + values(out), 0),
            Op::CopyCache { slots, .. } => {
                moved(4 * rows * slots.heads * slots.head_size, 2 * rows)
            }
            Op::AttentionGradients { heads, out, .. } => {
                let shape = attention_shape(*heads, out, span);
                attention(ATTENTION_BACKWARD_GEMMS, shape, 0..shape.positions)
            }
            Op::CrossEntropy { logits, .. } => moved(values(logits), 2 * rows),
            Op::CrossEntropyGradients { logits, .. } => moved(2 * values(logits), 2 * rows),
            Op::AddLosses { .. } => moved(0, rows),
            // `dx` is added to, and so are the gradients.
            Op::NormGradients { norm, x, .. } => moved(
                4 * values(x) + norm.weight.len(),
                2 * rows + 2 * affine(norm),
            ),
            Op::EmbeddingGradients { tables, dx, .. } => {
                let tokens = distinct_tokens(tables.wte.len() / dx.columns, rows);
                let lines = tokens + span.positions.len();
                moved(values(dx), rows + 2 * lines * dx.columns)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_moves_32_bytes_per_parameter_and_2_for_a_copy() {
        assert_eq!(Work::update(Precision::Float32, 1000).bytes, 32_000);
        assert_eq!(Work::update(Precision::Bfloat16, 1000).bytes, 34_000);
    }

    #[test]
    fn attention_counts_what_is_seen() {
        let shape = Shape {
            sequences: 3,
            positions: 4,
            heads: 2,
            head_size: 8,
        };
        // 1 + 2 + 3 + 4 pairs.
        assert_eq!(attention(1, shape, 0..4).flops, 2 * 3 * 2 * 8 * 10);
        assert_eq!(attention(1, shape, 3..4).flops, 2 * 3 * 2 * 8 * 4);
    }

    #[test]
    fn tokens_repeat_as_they_do_when_drawn_uniformly() {
        assert_eq!(distinct_tokens(50, 1), 1);
        // 50 (1 - 0.98^50) = 31.8.
        assert_eq!(distinct_tokens(50, 50), 32);
        assert_eq!(distinct_tokens(50, 100_000), 50);
    }
}
