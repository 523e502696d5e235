//! Operations of a training step, at the seam of [`Backend`](super::Backend), and the time that each takes.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use serde::Serialize;

/// Operations of one kind. The seam does not know the layers; it tells only the classifier, whose weight is the
/// embedding, from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
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

impl Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Operation::MicroBatch => "micro-batch",
            Operation::Zeroing => "zeroing",
            Operation::Embedding => "embedding",
            Operation::Norm => "norm",
            Operation::ResidualNorm => "residual + norm",
            Operation::Products => "products",
            Operation::Gelu => "gelu",
            Operation::Attention => "attention",
            Operation::Logits => "logits",
            Operation::CrossEntropy => "cross-entropy",
            Operation::LogitsInputGradients => "logits dX",
            Operation::LogitsWeightGradients => "logits dW",
            Operation::InputGradients => "products dX",
            Operation::WeightGradients => "products dW",
            Operation::AttentionGradients => "attention backward",
            Operation::NormGradients => "norm backward",
            Operation::Dropout => "dropout",
            Operation::EmbeddingGradients => "embedding backward",
            Operation::Losses => "losses",
            Operation::Update => "gradient norm, AdamW",
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

/// Totals of the operations of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    pub calls: u64,
    pub seconds: f64,
    pub work: Work,
}

/// Totals by kind, in the order of a step.
pub type Parts = BTreeMap<Operation, Spent>;

impl Spent {
    pub(super) fn add(&mut self, seconds: f64, work: Work) {
        self.calls += 1;
        self.seconds += seconds;
        self.work.bytes += work.bytes;
        self.work.flops += work.flops;
    }
}
