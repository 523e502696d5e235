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

pub(crate) use activations::ModelBuffers;
pub use init::{init_values, init_weights};
pub use params::{FlatGradients, Module, ParamLayout, ParamSpec};

use std::rc::Rc;

use crate::memory::{AllocationError, Memory, Planned};
use crate::ops::backend::Backend;
use crate::ops::gemm::{Problem, cpu};
use crate::terms::{Effort, Engine, Inputs, ModelDims, Purpose, Rung, VectorExtension};

use activations::{Activations, BackwardScratch, Scratch};
use params::Modules;

/// A GPT-2 of fixed sizes on the device of `B`.
pub struct Gpt<B: Backend> {
    backend: Rc<B>,
    dims: ModelDims,
    modules: Modules,
    rung: Rung,
    activations: Activations<B::Compute, B::Full>,
    scratch: Scratch<B::Compute, B::Full>,
    backward: Option<BackwardScratch<B::Compute, B::Full>>,
}

impl<B: Backend> Gpt<B> {
    /// A model that takes up to `rung.micro_batch` sequences at a time.
    ///
    /// # Errors
    /// The refusal of memory for a buffer; buffers made before it are released.
    pub fn new(
        dims: &ModelDims,
        rung: Rung,
        backend: &Rc<B>,
        purpose: Purpose,
        memory: &mut Memory,
    ) -> Result<Self, AllocationError> {
        let engine = backend.engine();
        let buffers =
            ModelBuffers::new(dims, rung, engine, purpose, &mut backend.allocator(memory))?;
        Ok(Self {
            backend: backend.clone(),
            dims: dims.clone(),
            modules: ParamLayout::with_modules(dims).1,
            rung,
            activations: buffers.activations,
            scratch: buffers.scratch,
            backward: buffers.backward,
        })
    }

    pub fn dims(&self) -> &ModelDims {
        &self.dims
    }

    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// Largest number of sequences of one call.
    pub fn max_sequences(&self) -> usize {
        self.rung.micro_batch
    }
}

/// Most bytes that the model's GEMMs of `inputs` take beside their operands, on `threads` threads of a CPU with
/// `extensions`, with the candidates of `effort`: see [`cpu::packed_bytes`].
pub fn packed_bytes(
    dims: &ModelDims,
    rung: Rung,
    inputs: Inputs,
    threads: usize,
    effort: Effort,
    extensions: &[VectorExtension],
) -> usize {
    let gemms = Problem::of_training(dims, rung, inputs);
    let problems: Vec<Problem> = gemms.iter().map(|gemm| gemm.problem).collect();
    cpu::packed_bytes(&problems, threads, effort, extensions)
}

/// Notes every buffer that [`Gpt::new`] would make in `memory`.
pub fn plan_buffers(
    dims: &ModelDims,
    rung: Rung,
    engine: Engine,
    purpose: Purpose,
    memory: &mut Planned,
) {
    let Ok(_) = ModelBuffers::new(dims, rung, engine, purpose, memory);
}
