//! The sizes of a model.

use serde::{Deserialize, Serialize};

/// The resolved architecture. L = n_layer, H = n_head, C = n_embd, T = block_size, V = vocab_size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelDims {
    pub n_layer: usize,
    pub n_head: usize,
    pub n_embd: usize,
    pub block_size: usize,
    pub vocab_size: usize,
    pub bias: bool,
    pub dropout: f64,
    pub gelu: Gelu,
}

/// The activation of the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Gelu {
    /// GPT-2's approximation, `gelu_new` in Hugging Face.
    Tanh,
    /// The exact form, PyTorch's `nn.GELU()` default.
    Erf,
}
