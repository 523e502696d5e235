//! The operands of operations: buffers of a program, parts of them, parameters, sites of dropout.

use std::fmt::{self, Display};
use std::ops::Range;

use crate::memory::Group;
use crate::rng::Seed;
use crate::terms::Precision;

/// A buffer of a program, by its place in the program's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferId(pub usize);

/// A buffer that a program asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferSpec {
    pub name: BufferName,
    pub group: Group,
    pub element: ElementType,
    pub len: usize,
}

impl BufferSpec {
    /// Bytes of the buffer on a device that computes in `precision`.
    pub fn bytes(&self, precision: Precision) -> u64 {
        let element = match self.element {
            ElementType::Compute => precision.element_bytes(),
            ElementType::Full | ElementType::Id => 4,
        };
        (self.len as u64).saturating_mul(element)
    }
}

/// Type of a buffer's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// The precision that the model computes in.
    Compute,
    /// fp32: statistics, losses, gradients of parameters, moments.
    Full,
    /// A token id, 32 bits.
    Id,
}

/// Name of a buffer: `h.3.attn.qkv` of one block, `h.*.attn.qkv` of all blocks in turn, or `losses`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferName {
    pub owner: Owner,
    pub part: &'static str,
}

/// The part of the model that a buffer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Model,
    Block(usize),
    /// Every block overwrites it.
    AllBlocks,
}

impl Display for BufferName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let part = self.part;
        match self.owner {
            Owner::Model => f.write_str(part),
            Owner::Block(index) => write!(f, "h.{index}.{part}"),
            Owner::AllBlocks => write!(f, "h.*.{part}"),
        }
    }
}

/// A row-major matrix in a buffer, a row for every row of the micro-batch: (R, columns).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Matrix {
    pub buffer: BufferId,
    pub columns: usize,
    /// The buffer holds only the rows of the present chunk.
    pub is_chunk: bool,
}

impl Matrix {
    /// The first `columns` of every row, packed: the same buffer with shorter rows.
    pub fn with_columns(self, columns: usize) -> Self {
        Self { columns, ..self }
    }
}

/// A weight and its bias among the flat parameters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Affine {
    /// Name in messages: `attn.c_proj`.
    pub label: &'static str,
    pub weight: Range<usize>,
    /// Directly behind the weight.
    pub bias: Option<Range<usize>>,
}

impl Affine {
    pub fn bias_len(&self) -> usize {
        self.bias.as_ref().map_or(0, Range::len)
    }
}

/// Mean and reciprocal deviation of every row of a layer norm, (R, 1) each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowStats {
    pub mean: Matrix,
    pub rstd: Matrix,
}

/// Both embeddings among the flat parameters: tokens (V, C), positions (T, C).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Embeddings {
    pub wte: Range<usize>,
    pub wpe: Range<usize>,
}

/// A place in the model where elements are dropped. Sites never share random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// Dropout of a run.
#[derive(Clone, Copy, Debug)]
pub struct DropoutSettings {
    /// Probability of dropping an element, in (0, 1).
    pub p: f64,
    pub seed: Seed,
}

/// The way an operation writes into the gradient buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GradientWrite {
    /// The first micro-step of a step: old values do not count.
    Overwrite,
    Accumulate,
}

/// The shape of an (R, columns) buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowShape {
    pub columns: usize,
    /// Rows of one sample.
    pub positions: usize,
}

/// The sizes of one call of attention. `qkv` is (B, T, 3C) with C = heads * head_size: all queries, then all
/// keys, then all values of a position, head after head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub sequences: usize,
    pub positions: usize,
    pub heads: usize,
    pub head_size: usize,
}

/// The rows that a program computes: all positions of some sequences, or the last of a single one. The rows of a generation,
/// which are of any sequences and positions, count as those of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub sequences: usize,
    pub positions: Range<usize>,
}

impl Span {
    /// All `positions` of every sequence.
    pub fn whole(sequences: usize, positions: usize) -> Self {
        Self {
            sequences,
            positions: 0..positions,
        }
    }

    /// Rows of this span in a buffer of all rows.
    pub fn rows(&self) -> Range<usize> {
        debug_assert!(self.sequences == 1 || self.positions.start == 0);
        self.positions.start..self.sequences * self.positions.end
    }
}
