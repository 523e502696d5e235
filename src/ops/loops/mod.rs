//! Loops over slices on the CPU, below the operations and the GEMMs: numbers, vectors, threads; and GELU, which both
//! need.

pub mod element;
pub mod gelu;
pub mod parallel;
pub(in crate::ops) mod vectorised;

pub use element::Element;
