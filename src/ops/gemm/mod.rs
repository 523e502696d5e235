//! Matrix products: what they are, and what computes them.
//!
//! [`problem`] says what a product of the training step is. [`cpu`] computes it on the CPU.

pub mod cpu;
pub mod problem;
pub mod ptx;

pub use cpu::{Matrix, Output, gemm, packed_bytes};
pub(super) use cpu::{MatrixMut, gemm_sequential};
pub use problem::{Epilogue, Inputs, OutputType, Problem, Stored};
