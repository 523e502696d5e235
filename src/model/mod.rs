//! GPT-2 as a fixed sequence of operations over pre-allocated buffers.
//!
//! [`Gpt`] owns every activation and the scratch; weights and gradients are flat buffers in the
//! order of [`ParamLayout`] that the caller passes in. `forward.rs` and `backward.rs` are the
//! model, read top to bottom as nanoGPT's `model.py`.

mod activations;
mod backward;
mod forward;
mod init;
mod params;

pub use activations::Sizes;
pub use forward::Batch;
pub use init::init_weights;
pub use params::{Module, ParamLayout, ParamSpec};

use crate::memory::{Group, Memory, OutOfMemory};
use crate::ops::Element;
use crate::plan::ModelDims;

use activations::{Activations, BackwardScratch, Scratch};
use params::Modules;

/// A GPT-2 of fixed sizes. `T` is the type it computes in.
pub struct Gpt<T> {
    dims: ModelDims,
    modules: Modules,
    sizes: Sizes,
    activations: Activations<T>,
    scratch: Scratch<T>,
    /// Absent in a model that only evaluates or generates.
    backward: Option<BackwardScratch<T>>,
}

impl<T: Element> Gpt<T> {
    /// A model that can train on up to `sizes.sequences` sequences at a time.
    pub fn for_training(
        dims: &ModelDims,
        sizes: Sizes,
        memory: &mut Memory,
    ) -> Result<Self, OutOfMemory> {
        let mut gpt = Self::for_inference(dims, sizes, memory)?;
        gpt.backward = Some(BackwardScratch::new(dims, sizes, memory)?);
        Ok(gpt)
    }

    /// A model without the buffers of the backward pass.
    pub fn for_inference(
        dims: &ModelDims,
        sizes: Sizes,
        memory: &mut Memory,
    ) -> Result<Self, OutOfMemory> {
        Ok(Self {
            dims: dims.clone(),
            modules: Modules::new(&ParamLayout::new(dims), dims.n_layer),
            sizes,
            activations: Activations::new(dims, sizes, memory)?,
            scratch: Scratch::new(dims, sizes, memory)?,
            backward: None,
        })
    }

    pub fn dims(&self) -> &ModelDims {
        &self.dims
    }

    /// A buffer of zeros for the weights, flat in [`ParamLayout`]'s order.
    pub fn weights_buffer(&self, memory: &mut Memory) -> Result<Vec<T>, OutOfMemory> {
        let len = ParamLayout::new(&self.dims).len;
        memory.buffer(Group::Weights, "weights", len)
    }

    /// The most sequences that one call can take.
    pub fn max_sequences(&self) -> usize {
        self.sizes.sequences
    }
}
