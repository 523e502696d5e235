//! The terms that every room speaks in: plain values, with their names and spellings.
//!
//! This is the bottom floor: it imports no other room of the crate. A term belongs here once two rooms that
//! do not import each other need it; everything that acts on it belongs to a room above.

mod choice;
mod disk;
mod file_error;
mod file_id;
mod gemm;
mod home;
mod launch;
mod model;
mod precision;
mod shell;
mod text_file;
mod vector_extension;

pub use choice::{Choice, NamedChoice};
pub use disk::{free_bytes, nearest_existing};
pub use file_error::FileError;
pub use file_id::FileId;
pub use gemm::{Effort, GemmBackend};
pub use home::expand_home;
pub use launch::{Engine, Job, Purpose, Recompute, Rung};
pub use model::{Gelu, ModelDims};
pub use precision::{GpuInputs, Inputs, Precision};
pub use shell::shell_word;
pub use text_file::{NotUtf8, read_text};
pub use vector_extension::VectorExtension;
