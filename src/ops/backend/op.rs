//! The operations that a program is made of.

use super::{Affine, BufferId, DropoutSite, Embeddings, Matrix, RowStats, Shape, Span};
use crate::ops::gemm::{Epilogue, Problem};
use crate::terms::{Gelu, Inputs};

/// An operation on named operands. Shapes are those of the CPU bodies, whose documentation gives the formulas.
///
/// Work that a GPU does in one pass (the residual add and the norm after it, a GEMM and GELU) is one operation. Where
/// an operation has a site of dropout, it drops only in runs with dropout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Empties the loss so far.
    ResetLoss,
    /// Sets the gradients of all parameters to zero, so many elements.
    ZeroGradients { parameters: usize },
    /// Sets the rows to zero.
    Zero { x: Matrix },
    /// `out = dropout(wte[token] + wpe[position])`, (R, C).
    Embed {
        tables: Embeddings,
        out: Matrix,
        site: DropoutSite,
    },
    /// [`Op::Embed`] of generation: the batch's targets are the places of the rows, `slot * T + position`. The slots are
    /// those of [`Op::CachedAttention`].
    EmbedAt {
        tables: Embeddings,
        out: Matrix,
        slots: Shape,
    },
    /// `out = (x - mean) * rstd * weight + bias`, (R, C), and mean and rstd, (R) each.
    Norm {
        norm: Affine,
        x: Matrix,
        out: Matrix,
        stats: RowStats,
    },
    /// `sum = x + dropout(branch)`, and the norm of the sum, (R, C) each.
    ResidualNorm {
        x: Matrix,
        branch: Matrix,
        sum: Matrix,
        site: DropoutSite,
        norm: Affine,
        out: Matrix,
        stats: RowStats,
    },
    /// `y = x W^T + b`, with x (R, in), W (out, in) and y (R, out).
    Linear { layer: Affine, x: Matrix, y: Matrix },
    /// [`Op::Linear`], and `activated = gelu(y)`.
    LinearGelu {
        form: Gelu,
        layer: Affine,
        x: Matrix,
        y: Matrix,
        activated: Matrix,
    },
    /// `out = gelu(x)`, element by element.
    Gelu { form: Gelu, x: Matrix, out: Matrix },
    /// Causal self-attention, from qkv (B, T, 3C) to out (B, T, C) and the log-sum-exp of every row, (B, H, T).
    /// Only the queries in the span are computed. The site is that of head 0.
    Attention {
        heads: usize,
        qkv: Matrix,
        out: Matrix,
        lse: Matrix,
        scratch: BufferId,
        site: DropoutSite,
    },
    /// Causal self-attention of generation, from qkv (R, 3C) to out (R, C). Keys and values of the rows go to their places
    /// in the cache, (slots, 2, H, T, D). A row attends to the positions of its slot up to its own.
    CachedAttention {
        slots: Shape,
        qkv: Matrix,
        cache: BufferId,
        out: Matrix,
        scratch: BufferId,
    },
    /// Copies keys and values of a cache from the places in the batch's inputs to those in its targets.
    CopyCache { slots: Shape, cache: BufferId },
    /// The losses of the rows, in nats. Overwrites their logits, (R, V).
    CrossEntropy { logits: Matrix, losses: Matrix },
    /// Writes the losses of [`Op::CrossEntropy`], and replaces the logits by their gradients times the header's scale.
    CrossEntropyGradients { logits: Matrix, losses: Matrix },
    /// Adds the losses of whole samples to the loss so far. The sum has the same bits whatever the micro-batch.
    AddLosses { losses: Matrix },
    /// `dx = dy W`, with dy (R, out), W (out, in) and dx (R, in).
    InputGradients {
        layer: Affine,
        dy: Matrix,
        dx: Matrix,
    },
    /// `dx = (dy W) * gelu'(x)`: [`Op::InputGradients`] through the activation of `x`.
    GeluInputGradients {
        form: Gelu,
        layer: Affine,
        dy: Matrix,
        x: Matrix,
        dx: Matrix,
    },
    /// `dW += dy^T x`, and adds the column sums of `dy` to the bias' gradient.
    WeightGradients {
        layer: Affine,
        dy: Matrix,
        x: Matrix,
        partials: BufferId,
    },
    /// `dqkv` (B, T, 3C) from `dout` (B, T, C) and what the forward left.
    AttentionGradients {
        heads: usize,
        dout: Matrix,
        qkv: Matrix,
        out: Matrix,
        lse: Matrix,
        dqkv: Matrix,
        scratch: BufferId,
        site: DropoutSite,
    },
    /// Adds the gradient of a norm's input to `dx`, and those of its weight and bias to theirs.
    NormGradients {
        norm: Affine,
        dout: Matrix,
        x: Matrix,
        stats: RowStats,
        dx: Matrix,
        partials: BufferId,
    },
    /// `out = dropout(x)`.
    Dropout {
        x: Matrix,
        out: Matrix,
        site: DropoutSite,
    },
    /// Adds the gradients of the micro-batch's embeddings to those of both tables. `dx` is the gradient after
    /// dropout; it may be masked in place. The gradient of the tokens' table already holds that of the classifier.
    EmbeddingGradients {
        tables: Embeddings,
        dx: Matrix,
        site: DropoutSite,
        partials: BufferId,
    },
}

impl Op {
    /// The GEMM that computes it over `rows`, if one does. Without a bias, GELU after a linear layer is work of its
    /// own.
    pub fn gemm(&self, rows: usize, inputs: Inputs) -> Option<Problem> {
        let forward = |x: &Matrix, y: &Matrix, epilogue| {
            Problem::forward(rows, y.columns, x.columns, inputs, epilogue)
        };
        let dx = |dy: &Matrix, dx: &Matrix, epilogue| {
            Problem::input_gradient(rows, dy.columns, dx.columns, inputs, epilogue)
        };
        Some(match self {
            Op::Linear { layer, x, y } => match layer.bias {
                Some(_) => forward(x, y, Epilogue::Bias),
                None => forward(x, y, Epilogue::None),
            },
            Op::LinearGelu {
                form, layer, x, y, ..
            } => match layer.bias {
                Some(_) => forward(x, y, Epilogue::BiasGelu(*form)),
                None => forward(x, y, Epilogue::None),
            },
            Op::InputGradients { dy, dx: to, .. } => dx(dy, to, Epilogue::None),
            Op::GeluInputGradients {
                form, dy, dx: to, ..
            } => dx(dy, to, Epilogue::GeluBackward(*form)),
            Op::WeightGradients { dy, x, .. } => {
                Problem::weight_gradient(rows, dy.columns, x.columns, inputs)
            }
            _ => return None,
        })
    }

    /// Name of its GEMM: `c_fc dW`.
    pub fn gemm_name(&self) -> Option<String> {
        Some(match self {
            Op::Linear { layer, .. } | Op::LinearGelu { layer, .. } => layer.label.to_owned(),
            Op::InputGradients { layer, .. } | Op::GeluInputGradients { layer, .. } => {
                format!("{} dX", layer.label)
            }
            Op::WeightGradients { layer, .. } => format!("{} dW", layer.label),
            _ => return None,
        })
    }
}

/// The sizes of attention over `span`. `out` is the matrix of its results.
pub fn attention_shape(heads: usize, out: &Matrix, span: &Span) -> Shape {
    Shape {
        sequences: span.sequences,
        positions: span.positions.end,
        heads,
        head_size: out.columns / heads,
    }
}
