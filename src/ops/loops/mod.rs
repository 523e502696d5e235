//! Loops over slices on the CPU, below the operations and the GEMMs: element types, vector instructions, threads.
//! GELU is here because both the operations and the GEMMs compute it.

pub mod element;
pub mod gelu;
pub mod parallel;
pub(in crate::ops) mod vectorised;

pub use element::Element;
