//! What each operation reads and writes.

use std::ops::Range;

use taper::ops::backend::{Affine, BufferId, DropoutSite, Matrix, Op, RowStats};

pub trait Dataflow {
    /// The operands. Gradients of parameters are always added to here: the first micro-step starts from zeros, or as
    /// if it did.
    fn flow(&self) -> Flow;
    /// The place where the operation drops elements, in runs with dropout.
    fn site(&self) -> Option<DropoutSite>;
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

impl Dataflow for Op {
    fn flow(&self) -> Flow {
        let flow = Flow::default();
        match self {
            Op::ResetLoss => Flow {
                writes: vec![Operand::Loss],
                ..flow
            },
            Op::EmbedAt { tables, out, .. } => {
                flow.weight(&tables.wte).weight(&tables.wpe).writes([out])
            }
            Op::CachedAttention {
                qkv,
                cache,
                out,
                scratch,
                ..
            } => {
                let mut flow = flow.reads([qkv]).writes([out]).scratch(scratch);
                flow.changes.push(Operand::Buffer(*cache));
                flow
            }
            Op::CopyCache { cache, .. } => Flow {
                changes: vec![Operand::Buffer(*cache)],
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
            | Op::EmbeddingGradients { .. } => backward_flow(self),
        }
    }

    fn site(&self) -> Option<DropoutSite> {
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
}

fn backward_flow(op: &Op) -> Flow {
    let flow = Flow::default();
    match op {
        Op::InputGradients { layer, dy, dx } => flow.weight(&layer.weight).reads([dy]).writes([dx]),
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
        _ => unreachable!("not of the backward: {op:?}"),
    }
}
