//! Every memory-bound kernel against the CPU body of its operation in f64, whose own oracle is candle's
//! autograd (tests/ops/): in every type, at widths that 16 bytes divide and at others. Two launches give the
//! same bits.
//!
//! Without a GPU, run this on the virtual one:
//! `scripts/vgpu rtx3060 -- cargo test --release --features cuda --test cuda_ops`.
#![cfg(feature = "cuda")]

#[path = "../common/mod.rs"]
mod common;

mod adamw;
mod attention_cached;
mod column_sums;
mod cross_entropy;
mod dropout;
mod embedding;
mod gelu;
mod layer_norm;
mod outcome;
