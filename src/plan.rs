//! Config x DeviceProfile x DatasetInfo -> Plan: every number the run uses, with its reason.
//!
//! A pure function. After it, no code reads `Config`, an environment variable or the machine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::Gelu;
use crate::rng::Seed;

/// An automatic decision and why it was made. Printed once at launch, stored in the checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice<T> {
    pub value: T,
    pub because: String,
}

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

/// Everything a run needs to know, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub model: ModelDims,
    pub seed: Seed,
    pub max_iters: u64,
    pub log_interval: u64,
    /// Sequences per optimizer step: micro_batch * gradient_accumulation_steps.
    pub sequences_per_step: usize,
    pub micro_batch: Choice<usize>,
    pub gradient_accumulation_steps: usize,
    pub threads: Choice<usize>,
    pub dtype: Choice<&'static str>,
    pub out_dir: PathBuf,
}
