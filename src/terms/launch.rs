//! The launch of a model: its job, its device and its rung of the ladder.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

/// The size of a launch. It decides memory and speed, never the numbers that are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rung {
    /// Sequences computed at a time, B.
    pub micro_batch: usize,
    pub recompute: Recompute,
    /// Rows of logits that exist at a time.
    pub logits_rows: usize,
}

impl Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "micro-batch {}, recompute {}, {} rows of logits at a time",
            self.micro_batch, self.recompute, self.logits_rows
        )
    }
}

/// Activations that are recomputed in the backward instead of kept. All three give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Recompute {
    /// Everything is kept.
    #[serde(rename = "none")]
    None,
    /// Outputs of the layer norms and of GELU, 6 C of 16 C values per token and block: cheap to
    /// compute again.
    #[serde(rename = "gelu+ln")]
    GeluLn,
    /// All of a block but its output (Chen et al. 2016, arXiv:1604.06174): one more forward.
    #[serde(rename = "block")]
    Block,
}

impl Recompute {
    pub const ALL: [Recompute; 3] = [Recompute::None, Recompute::GeluLn, Recompute::Block];
}

impl Display for Recompute {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Recompute::None => "none",
            Recompute::GeluLn => "gelu+ln",
            Recompute::Block => "block",
        })
    }
}

/// The kind of device that computes. It decides the scratch that the operations need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Cpu { threads: usize },
    Cuda,
}

/// The use of a model. It decides the buffers that the model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Training,
    /// Losses and logits, no gradients.
    Inference,
    /// Logits of the next tokens of sequences with up to this many positions. A rung's micro-batch is the number of
    /// sequences whose keys and values are cached.
    Generation {
        positions: usize,
    },
}

/// The use of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Job {
    Train,
    Evaluate,
}
