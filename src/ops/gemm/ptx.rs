//! Our own kernels as candidates for a product: what each needs, and how it is launched.
//!
//! [`Tile`] says which kernels there are (kernels/gemm_simple.cu, kernels/gemm_mma.cuh) and where one can run; it
//! needs no GPU. `launch`, in builds with CUDA, runs one.

mod tile;

#[cfg(feature = "cuda")]
mod arguments;
#[cfg(feature = "cuda")]
mod launch;
#[cfg(feature = "cuda")]
mod operands;

pub use tile::{CardLimits, Mma, Tile, Unavailable};

#[cfg(feature = "cuda")]
pub use launch::{LaunchError, launch};
#[cfg(feature = "cuda")]
pub use operands::{DeviceMatrix, Operands};
