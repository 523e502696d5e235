//! A training step as data: that it is whole, that mistakes in it are found, and the products that are in it.

mod edit;
mod flow;
mod gemms;
mod planted;
mod presets;
mod stale;
mod symbols;
mod validate;

use taper::model::{Program, gpt2};
use taper::terms::{Engine, Gelu, ModelDims, Precision, Purpose, Recompute, Rung};

fn dims(dropout: f64) -> ModelDims {
    ModelDims {
        n_layer: 3,
        n_head: 2,
        n_embd: 16,
        block_size: 32,
        vocab_size: 50,
        bias: true,
        dropout,
        gelu: Gelu::Tanh,
    }
}

/// Of 128 rows, whose logits come in two chunks.
fn rung(recompute: Recompute) -> Rung {
    Rung {
        micro_batch: 4,
        recompute,
        logits_rows: 100,
    }
}

fn training(dims: &ModelDims, recompute: Recompute) -> Program {
    let (purpose, engine) = (Purpose::Training, Engine::Cuda);
    gpt2(dims, rung(recompute), purpose, engine, Precision::Bfloat16)
}
