//! What a training step is made of, at the seam of [`Backend`](super::Backend), and what each of that took.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use serde::Serialize;

/// Operations of one kind. Which layer asked is not known at the seam; only the classifier, whose weight is
/// the embedding, is told from other layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Reading samples, and bringing them where they are computed with.
    MicroBatch,
    /// Gradients, the gradient of the residual stream, and the loss so far.
    Zeroing,
    Embedding,
    Norm,
    /// With the dropout of the branch.
    ResidualNorm,
    /// `y = x W^T + b`, with GELU where that follows.
    Products,
    /// Where it is an operation of its own.
    Gelu,
    Attention,
    Logits,
    /// With the gradients of the logits.
    CrossEntropy,
    LogitsInputGradients,
    LogitsWeightGradients,
    /// `dX = dY W`, with GELU's slope where that follows.
    InputGradients,
    /// `dW += dY^T X`, and the sums of `dY`'s columns.
    WeightGradients,
    AttentionGradients,
    NormGradients,
    /// Where it is an operation of its own: in the backward.
    Dropout,
    EmbeddingGradients,
    /// Adding them up.
    Losses,
    /// The norm of all gradients, clipping, and AdamW.
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

/// What an operation cannot do without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Read or written: every array once, twice where it is changed. 0 where arithmetic decides.
    pub bytes: u64,
    /// Multiplications and additions of products. 0 where memory decides.
    pub flops: u64,
}

/// What the operations of one kind took together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    pub calls: u64,
    pub seconds: f64,
    pub work: Work,
}

/// In the order of a step.
pub type Parts = BTreeMap<Operation, Spent>;

impl Spent {
    pub(super) fn add(&mut self, seconds: f64, work: Work) {
        self.calls += 1;
        self.seconds += seconds;
        self.work.bytes += work.bytes;
        self.work.flops += work.flops;
    }
}
