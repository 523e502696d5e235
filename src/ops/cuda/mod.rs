//! The operations on a GPU. Only in builds with the feature `cuda`.
//!
//! An operation's file has the name and the functions of its CPU body, over arrays in the memory of a GPU. They start
//! kernels (`kernels/*.cu`) in the stream of a [`Gpu`](crate::ops::launch::Gpu), wait for nothing and allocate
//! nothing. Numbers that differ from step to step are read from the GPU's memory, so that a launch can be captured in
//! a graph.

mod backend;
mod batch;
mod clock;
mod graph;
mod memory;
mod numbers;
mod products;
mod run;
mod values;
mod views;

pub mod adamw;
pub mod attention;
pub mod attention_cached;
pub mod cast;
pub mod column_sums;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod layer_norm;
pub mod outcome;

pub use backend::OnGpu;
pub use memory::{allocate, trim_pool};
