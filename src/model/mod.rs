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

pub use activations::{Engine, Purpose, Recompute, Rung};
pub use forward::Batch;
pub use init::init_weights;
pub use params::{Module, ParamLayout, ParamSpec};

use std::rc::Rc;

use crate::memory::{AllocationError, Host, Memory, Planned};
use crate::ops::Element;
use crate::ops::gemm::{Effort, Inputs, Problem, Products, cpu};
use crate::plan::ModelDims;

use activations::{Activations, BackwardScratch, Buffers, Scratch};
use params::Modules;

/// A GPT-2 of fixed sizes. `T` is the type it computes in.
pub struct Gpt<T: Element> {
    products: Rc<Products<T>>,
    dims: ModelDims,
    modules: Modules,
    rung: Rung,
    activations: Activations<Vec<T>, Vec<T>>,
    scratch: Scratch<Vec<T>, Vec<T>>,
    backward: Option<BackwardScratch<Vec<T>, Vec<T>>>,
}

impl<T: Element> Gpt<T> {
    /// A model that takes up to `rung.micro_batch` sequences at a time, on `threads` threads and with
    /// `products`.
    ///
    /// # Errors
    /// When the memory for its buffers is refused; those already made are released.
    pub fn new(
        dims: &ModelDims,
        rung: Rung,
        (threads, products): (usize, &Rc<Products<T>>),
        purpose: Purpose,
        memory: &mut Memory,
    ) -> Result<Self, AllocationError> {
        let engine = Engine::Cpu { threads };
        let buffers = Buffers::new(dims, rung, engine, purpose, &mut Host::<T>::new(memory))?;
        Ok(Self {
            products: products.clone(),
            dims: dims.clone(),
            modules: Modules::new(&ParamLayout::new(dims), dims.n_layer),
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

    /// The most sequences that one call can take.
    pub fn max_sequences(&self) -> usize {
        self.rung.micro_batch
    }
}

/// The most that one product of the model takes beside its operands on `threads` threads of the CPU, with
/// the candidates of `effort`, in bytes: see [`cpu::packed_bytes`].
pub fn packed_bytes(dims: &ModelDims, rung: Rung, threads: usize, effort: Effort) -> usize {
    let problems = Problem::of_training(dims, rung, Inputs::Float32);
    let bytes = problems
        .iter()
        .map(|(_, problem)| cpu::packed_bytes(problem, threads, effort, size_of::<f32>()));
    bytes.max().unwrap_or(0)
}

/// Notes in `memory` every buffer that [`Gpt::new`] would make.
pub fn plan_buffers(
    dims: &ModelDims,
    rung: Rung,
    engine: Engine,
    purpose: Purpose,
    memory: &mut Planned,
) {
    let Ok(_) = Buffers::new(dims, rung, engine, purpose, memory);
}
