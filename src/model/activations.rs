//! The buffers of a model: what the forward saves for the backward, and scratch.

use crate::memory::{Group, Memory, OutOfMemory};
use crate::ops::attention::Shape;
use crate::ops::{Element, layer_norm};
use crate::plan::ModelDims;

/// What the buffers depend on besides the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Sequences in a micro-batch, B.
    pub sequences: usize,
    /// Rows of logits that exist at a time.
    pub logits_rows: usize,
    pub threads: usize,
}

/// Output and statistics of one layer norm.
pub(super) struct Norm<T> {
    pub out: Vec<T>,  // (R, C)
    pub mean: Vec<T>, // (R)
    pub rstd: Vec<T>, // (R)
}

impl<T: Element> Norm<T> {
    fn new(name: &str, rows: usize, c: usize, memory: &mut Memory) -> Result<Self, OutOfMemory> {
        let mut buffer =
            |part: &str, len| memory.buffer(Group::Activations, format!("{name}{part}"), len);
        Ok(Self {
            out: buffer("", rows * c)?,
            mean: buffer(".mean", rows)?,
            rstd: buffer(".rstd", rows)?,
        })
    }
}

/// What one block saves.
pub(super) struct Layer<T> {
    pub ln_1: Norm<T>,
    pub qkv: Vec<T>,             // (R, 3C)
    pub attention: Vec<T>,       // (R, C)
    pub lse: Vec<T>,             // (B, H, T)
    pub after_attention: Vec<T>, // (R, C), the residual stream
    pub ln_2: Norm<T>,
    pub fc: Vec<T>,   // (R, 4C), before the activation
    pub gelu: Vec<T>, // (R, 4C)
    pub out: Vec<T>,  // (R, C), the residual stream
}

/// Everything the forward saves.
pub(super) struct Activations<T> {
    pub embedding: Vec<T>, // (R, C)
    pub layers: Vec<Layer<T>>,
    pub ln_f: Norm<T>,
    pub losses: Vec<T>, // (R)
}

impl<T: Element> Activations<T> {
    pub fn new(dims: &ModelDims, sizes: Sizes, memory: &mut Memory) -> Result<Self, OutOfMemory> {
        let (c, rows) = (dims.n_embd, sizes.sequences * dims.block_size);
        let group = Group::Activations;
        let layer = |i: usize, memory: &mut Memory| {
            let name = |part: &str| format!("h.{i}.{part}");
            Ok(Layer {
                ln_1: Norm::new(&name("ln_1"), rows, c, memory)?,
                qkv: memory.buffer(group, name("attn.qkv"), rows * 3 * c)?,
                attention: memory.buffer(group, name("attn.out"), rows * c)?,
                lse: memory.buffer(group, name("attn.lse"), rows * dims.n_head)?,
                after_attention: memory.buffer(group, name("residual"), rows * c)?,
                ln_2: Norm::new(&name("ln_2"), rows, c, memory)?,
                fc: memory.buffer(group, name("mlp.fc"), rows * 4 * c)?,
                gelu: memory.buffer(group, name("mlp.gelu"), rows * 4 * c)?,
                out: memory.buffer(group, name("out"), rows * c)?,
            })
        };
        Ok(Self {
            embedding: memory.buffer(group, "embedding", rows * c)?,
            layers: (0..dims.n_layer)
                .map(|i| layer(i, memory))
                .collect::<Result<_, _>>()?,
            ln_f: Norm::new("ln_f", rows, c, memory)?,
            losses: memory.buffer(group, "losses", rows)?,
        })
    }
}

/// Scratch that both directions use.
pub(super) struct Scratch<T> {
    pub branch: Vec<T>,    // (R, C)
    pub attention: Vec<T>, // see ops::attention::Shape::scratch_len
    pub logits: Vec<T>,    // (chunk, V)
}

impl<T: Element> Scratch<T> {
    pub fn new(dims: &ModelDims, sizes: Sizes, memory: &mut Memory) -> Result<Self, OutOfMemory> {
        let rows = sizes.sequences * dims.block_size;
        let shape = attention_shape(dims, sizes.sequences, dims.block_size);
        let group = Group::Workspace;
        Ok(Self {
            branch: memory.buffer(group, "branch", rows * dims.n_embd)?,
            attention: memory.buffer(group, "attention", shape.scratch_len(sizes.threads))?,
            logits: memory.buffer(group, "logits chunk", sizes.logits_rows * dims.vocab_size)?,
        })
    }
}

/// Gradients of activations, each overwritten layer by layer.
pub(super) struct BackwardScratch<T> {
    pub residual: Vec<T>, // (R, C)
    pub branch: Vec<T>,   // (R, C)
    pub wide: Vec<T>,     // (R, 4C)
    pub partials: Vec<T>, // see ops::layer_norm::partials_len
}

impl<T: Element> BackwardScratch<T> {
    pub fn new(dims: &ModelDims, sizes: Sizes, memory: &mut Memory) -> Result<Self, OutOfMemory> {
        let (c, rows) = (dims.n_embd, sizes.sequences * dims.block_size);
        let group = Group::Workspace;
        Ok(Self {
            residual: memory.buffer(group, "d residual", rows * c)?,
            branch: memory.buffer(group, "d branch", rows * c)?,
            wide: memory.buffer(group, "d wide", rows * 4 * c)?,
            partials: memory.buffer(group, "partials", layer_norm::partials_len(rows, c))?,
        })
    }
}

/// The sizes that attention sees.
pub(super) fn attention_shape(dims: &ModelDims, sequences: usize, positions: usize) -> Shape {
    Shape {
        sequences,
        positions,
        heads: dims.n_head,
        head_size: dims.n_embd / dims.n_head,
    }
}
