//! The buffers of a model: activations, which the forward leaves for the backward, and scratch.

use crate::memory::{Allocator, Group};
use crate::ops::backend::Shape;
use crate::ops::partition;
use crate::terms::{Engine, ModelDims, Purpose, Recompute, Rung};

/// Mean and reciprocal deviation of every row of one layer norm.
pub(super) struct RowStats<F> {
    pub mean: F, // (R)
    pub rstd: F, // (R)
}

impl<F> RowStats<F> {
    fn new<A: Allocator<Full = F>>(
        name: &str,
        rows: usize,
        memory: &mut A,
    ) -> Result<Self, A::Error> {
        let group = Group::Activations;
        Ok(Self {
            mean: memory.full(group, format_args!("{name}.mean"), rows)?,
            rstd: memory.full(group, format_args!("{name}.rstd"), rows)?,
        })
    }
}

/// Activations of a block that are expensive to recompute.
pub(super) struct Kept<C, F> {
    pub qkv: C,             // (R, 3C)
    pub attention: C,       // (R, C)
    pub lse: F,             // (B, H, T)
    pub after_attention: C, // (R, C), the residual stream
    pub ln_2: RowStats<F>,
    pub fc: C, // (R, 4C), before the activation
}

/// Activations of a block that are cheap to recompute.
pub(super) struct Cheap<C> {
    pub ln_1: C, // (R, C)
    pub ln_2: C, // (R, C)
    pub gelu: C, // (R, 4C)
}

/// Every buffer that the forward writes, apart from scratch.
pub(super) struct Activations<C, F> {
    pub embedding: C, // (R, C)
    /// The residual stream after every block, (R, C).
    pub outs: Vec<C>,
    /// One for every block, or one shared by all: see [`slot`].
    pub kept: Vec<Kept<C, F>>,
    /// One for every element of `kept`.
    pub ln_1_stats: Vec<RowStats<F>>,
    pub cheap: Vec<Cheap<C>>,
    pub ln_f: C, // (R, C)
    pub ln_f_stats: RowStats<F>,
    pub losses: F, // (R)
}

/// The residual stream that enters block `index`; with `index` the number of blocks, the final norm.
pub(super) fn input_of<'a, C>(embedding: &'a C, outs: &'a [C], index: usize) -> &'a C {
    match index.checked_sub(1) {
        Some(previous) => &outs[previous],
        None => embedding,
    }
}

/// Index in `buffers`, one per block or one for all, of the buffer that block `index` uses.
pub(super) fn slot<T>(buffers: &[T], index: usize) -> usize {
    index.min(buffers.len() - 1)
}

impl<C, F> Activations<C, F> {
    pub fn new<A: Allocator<Compute = C, Full = F>>(
        dims: &ModelDims,
        rung: Rung,
        memory: &mut A,
    ) -> Result<Self, A::Error> {
        let (c, rows) = (dims.n_embd, rung.micro_batch * dims.block_size);
        let group = Group::Activations;
        let (kept, cheap) = match rung.recompute {
            Recompute::None => (dims.n_layer, dims.n_layer),
            Recompute::GeluLn => (dims.n_layer, 1),
            Recompute::Block => (1, 1),
        };
        Ok(Self {
            embedding: memory.compute(group, format_args!("embedding"), rows * c)?,
            outs: (0..dims.n_layer)
                .map(|i| memory.compute(group, format_args!("h.{i}.out"), rows * c))
                .collect::<Result<_, _>>()?,
            kept: (0..kept)
                .map(|i| Kept::new(&block_name(kept, i), dims, rows, memory))
                .collect::<Result<_, _>>()?,
            ln_1_stats: (0..kept)
                .map(|i| RowStats::new(&format!("{}.ln_1", block_name(kept, i)), rows, memory))
                .collect::<Result<_, _>>()?,
            cheap: (0..cheap)
                .map(|i| Cheap::new(&block_name(cheap, i), rows, c, memory))
                .collect::<Result<_, _>>()?,
            ln_f: memory.compute(group, format_args!("ln_f"), rows * c)?,
            ln_f_stats: RowStats::new("ln_f", rows, memory)?,
            losses: memory.full(group, format_args!("losses"), rows)?,
        })
    }
}

/// Name of a block's buffers: `h.3`, or `h.*` for those that all blocks share.
fn block_name(count: usize, index: usize) -> String {
    match count {
        1 => "h.*".into(),
        _ => format!("h.{index}"),
    }
}

impl<C, F> Kept<C, F> {
    fn new<A: Allocator<Compute = C, Full = F>>(
        block: &str,
        dims: &ModelDims,
        rows: usize,
        memory: &mut A,
    ) -> Result<Self, A::Error> {
        let (c, group) = (dims.n_embd, Group::Activations);
        Ok(Self {
            qkv: memory.compute(group, format_args!("{block}.attn.qkv"), rows * 3 * c)?,
            attention: memory.compute(group, format_args!("{block}.attn.out"), rows * c)?,
            lse: memory.full(group, format_args!("{block}.attn.lse"), rows * dims.n_head)?,
            after_attention: memory.compute(group, format_args!("{block}.residual"), rows * c)?,
            ln_2: RowStats::new(&format!("{block}.ln_2"), rows, memory)?,
            fc: memory.compute(group, format_args!("{block}.mlp.fc"), rows * 4 * c)?,
        })
    }
}

impl<C> Cheap<C> {
    fn new<A: Allocator<Compute = C>>(
        block: &str,
        rows: usize,
        c: usize,
        memory: &mut A,
    ) -> Result<Self, A::Error> {
        let group = Group::Activations;
        Ok(Self {
            ln_1: memory.compute(group, format_args!("{block}.ln_1"), rows * c)?,
            ln_2: memory.compute(group, format_args!("{block}.ln_2"), rows * c)?,
            gelu: memory.compute(group, format_args!("{block}.mlp.gelu"), rows * 4 * c)?,
        })
    }
}

/// Scratch that both directions use.
pub(super) struct Scratch<C, F> {
    pub branch: C,    // (R, C)
    pub attention: F, // see ops::partition::attention_scratch_len
    pub logits: C,    // (chunk, V)
}

impl<C, F> Scratch<C, F> {
    pub fn new<A: Allocator<Compute = C, Full = F>>(
        dims: &ModelDims,
        rung: Rung,
        engine: Engine,
        purpose: Purpose,
        memory: &mut A,
    ) -> Result<Self, A::Error> {
        let rows = rung.micro_batch * dims.block_size;
        let shape = attention_shape(dims, rung.micro_batch, dims.block_size);
        let attention = partition::attention_scratch_len(engine, purpose, shape);
        let group = Group::Workspaces;
        Ok(Self {
            branch: memory.compute(group, format_args!("branch"), rows * dims.n_embd)?,
            attention: memory.full(group, format_args!("attention"), attention)?,
            logits: memory.compute(
                Group::Classifier,
                format_args!("logits"),
                rung.logits_rows * dims.vocab_size,
            )?,
        })
    }
}

/// Gradient of the residual stream, and that of a branch's output or input.
pub(super) struct Streams<C> {
    pub residual: C, // (R, C)
    pub branch: C,   // (R, C)
}

/// Gradients of activations, each overwritten layer by layer.
pub(super) struct BackwardScratch<C, F> {
    pub streams: Streams<C>,
    pub wide: C,     // (R, 4C)
    pub partials: F, // see ops::partition::partials_len
}

impl<C, F> BackwardScratch<C, F> {
    pub fn new<A: Allocator<Compute = C, Full = F>>(
        dims: &ModelDims,
        rung: Rung,
        engine: Engine,
        memory: &mut A,
    ) -> Result<Self, A::Error> {
        let (c, rows) = (dims.n_embd, rung.micro_batch * dims.block_size);
        let group = Group::Workspaces;
        Ok(Self {
            streams: Streams {
                residual: memory.compute(group, format_args!("d residual"), rows * c)?,
                branch: memory.compute(group, format_args!("d branch"), rows * c)?,
            },
            wide: memory.compute(group, format_args!("d wide"), rows * 4 * c)?,
            partials: memory.full(
                group,
                format_args!("partials"),
                partition::partials_len(engine, rows, c),
            )?,
        })
    }
}

/// Every buffer that depends on the rung.
pub(crate) struct ModelBuffers<C, F> {
    pub(super) activations: Activations<C, F>,
    pub(super) scratch: Scratch<C, F>,
    /// Absent in a model that only evaluates or generates.
    pub(super) backward: Option<BackwardScratch<C, F>>,
}

impl<C, F> ModelBuffers<C, F> {
    pub fn new<A: Allocator<Compute = C, Full = F>>(
        dims: &ModelDims,
        rung: Rung,
        engine: Engine,
        purpose: Purpose,
        memory: &mut A,
    ) -> Result<Self, A::Error> {
        Ok(Self {
            activations: Activations::new(dims, rung, memory)?,
            scratch: Scratch::new(dims, rung, engine, purpose, memory)?,
            backward: match purpose {
                Purpose::Training => Some(BackwardScratch::new(dims, rung, engine, memory)?),
                Purpose::Inference => None,
            },
        })
    }
}

/// Sizes of a call of attention.
pub(super) fn attention_shape(dims: &ModelDims, sequences: usize, positions: usize) -> Shape {
    Shape {
        sequences,
        positions,
        heads: dims.n_head,
        head_size: dims.n_embd / dims.n_head,
    }
}
