//! The operations that a program is made of.

use std::ops::Range;

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

/// An operand that an operation reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    Buffer(BufferId),
    /// A parameter, by its first element.
    Weight(usize),
    /// The gradient of a parameter, by the parameter's first element.
    Gradient(usize),
    /// The loss so far.
    Loss,
}

/// The operands of an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Operands that are read alone.
    pub reads: Vec<Operand>,
    /// Operands that are read and overwritten.
    pub changes: Vec<Operand>,
    /// Operands that are overwritten unread.
    pub writes: Vec<Operand>,
    /// Memory whose values before and after mean nothing.
    pub scratch: Option<BufferId>,
}

impl Flow {
    fn reads<const N: usize>(mut self, read: [&Matrix; N]) -> Self {
        self.reads
            .extend(read.map(|matrix| Operand::Buffer(matrix.buffer)));
        self
    }

    fn writes<const N: usize>(mut self, written: [&Matrix; N]) -> Self {
        self.writes
            .extend(written.map(|matrix| Operand::Buffer(matrix.buffer)));
        self
    }

    fn changes(mut self, matrix: &Matrix) -> Self {
        self.changes.push(Operand::Buffer(matrix.buffer));
        self
    }

    fn weight(mut self, weight: &Range<usize>) -> Self {
        self.reads.push(Operand::Weight(weight.start));
        self
    }

    fn affine(mut self, affine: &Affine) -> Self {
        let bias = affine.bias.iter().map(|bias| Operand::Weight(bias.start));
        self.reads.push(Operand::Weight(affine.weight.start));
        self.reads.extend(bias);
        self
    }

    fn gradient(mut self, param: &Range<usize>) -> Self {
        self.changes.push(Operand::Gradient(param.start));
        self
    }

    fn gradients(self, affine: &Affine) -> Self {
        let flow = self.gradient(&affine.weight);
        match &affine.bias {
            Some(bias) => flow.gradient(bias),
            None => flow,
        }
    }

    fn scratch(self, buffer: &BufferId) -> Self {
        Self {
            scratch: Some(*buffer),
            ..self
        }
    }
}

impl Op {
    /// The operands. Gradients of parameters are always added to here: the first micro-step starts from zeros, or as
    /// if it did.
    pub fn flow(&self) -> Flow {
        let flow = Flow::default();
        match self {
            Op::ResetLoss => Flow {
                writes: vec![Operand::Loss],
                ..flow
            },
            // Of all parameters: the program knows which.
            Op::ZeroGradients { .. } => flow,
            Op::Zero { x } => flow.writes([x]),
            Op::Embed { tables, out, .. } => {
                flow.weight(&tables.wte).weight(&tables.wpe).writes([out])
            }
            Op::Norm {
                norm,
                x,
                out,
                stats: RowStats { mean, rstd },
            } => flow.affine(norm).reads([x]).writes([out, mean, rstd]),
            Op::ResidualNorm {
                x,
                branch,
                sum,
                norm,
                out,
                stats: RowStats { mean, rstd },
                ..
            } => flow
                .affine(norm)
                .reads([x, branch])
                .writes([sum, out, mean, rstd]),
            Op::Linear { layer, x, y } => flow.affine(layer).reads([x]).writes([y]),
            Op::LinearGelu {
                layer,
                x,
                y,
                activated,
                ..
            } => flow.affine(layer).reads([x]).writes([y, activated]),
            Op::Gelu { x, out, .. } | Op::Dropout { x, out, .. } => flow.reads([x]).writes([out]),
            Op::Attention {
                qkv,
                out,
                lse,
                scratch,
                ..
            } => flow.reads([qkv]).writes([out, lse]).scratch(scratch),
            Op::CrossEntropy { logits, losses } | Op::CrossEntropyGradients { logits, losses } => {
                flow.changes(logits).writes([losses])
            }
            Op::AddLosses { losses } => Flow {
                changes: vec![Operand::Loss],
                ..flow.reads([losses])
            },
            Op::InputGradients { .. }
            | Op::GeluInputGradients { .. }
            | Op::WeightGradients { .. }
            | Op::AttentionGradients { .. }
            | Op::NormGradients { .. }
            | Op::EmbeddingGradients { .. } => self.backward_flow(),
        }
    }

    fn backward_flow(&self) -> Flow {
        let flow = Flow::default();
        match self {
            Op::InputGradients { layer, dy, dx } => {
                flow.weight(&layer.weight).reads([dy]).writes([dx])
            }
            Op::GeluInputGradients {
                layer, dy, x, dx, ..
            } => flow.weight(&layer.weight).reads([dy, x]).writes([dx]),
            Op::WeightGradients {
                layer,
                dy,
                x,
                partials,
            } => flow.gradients(layer).reads([dy, x]).scratch(partials),
            Op::AttentionGradients {
                dout,
                qkv,
                out,
                lse,
                dqkv,
                scratch,
                ..
            } => flow
                .reads([dout, qkv, out, lse])
                .writes([dqkv])
                .scratch(scratch),
            Op::NormGradients {
                norm,
                dout,
                x,
                stats: RowStats { mean, rstd },
                dx,
                partials,
            } => flow
                .weight(&norm.weight)
                .gradients(norm)
                .reads([dout, x, mean, rstd])
                .changes(dx)
                .scratch(partials),
            Op::EmbeddingGradients {
                tables,
                dx,
                partials,
                ..
            } => flow
                .gradient(&tables.wte)
                .gradient(&tables.wpe)
                .changes(dx)
                .scratch(partials),
            _ => unreachable!("not of the backward: {self:?}"),
        }
    }

    /// The place where the operation drops elements, in runs with dropout.
    pub fn site(&self) -> Option<DropoutSite> {
        match self {
            Op::Embed { site, .. }
            | Op::ResidualNorm { site, .. }
            | Op::Attention { site, .. }
            | Op::AttentionGradients { site, .. }
            | Op::Dropout { site, .. }
            | Op::EmbeddingGradients { site, .. } => Some(*site),
            _ => None,
        }
    }

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
