//! Our own GEMM kernels as candidates: their requirements and their launches.
//!
//! [`Tile`] lists the kernels (kernels/gemm_simple.cu, gemm_mma.cuh, gemm_wgmma.cuh) and says where each can run.
//! [`ranked`] sorts those that are worth a trial. Neither needs a GPU. `launch`, in builds with CUDA, runs one.

mod fits;
mod rank;
mod tile;

#[cfg(feature = "cuda")]
mod arguments;
#[cfg(feature = "cuda")]
mod launch;
#[cfg(feature = "cuda")]
mod operands;
#[cfg(feature = "cuda")]
mod tensor_map;

pub use fits::Misfit;
pub use rank::ranked;
pub use tile::{Mma, Tile, Wgmma};

#[cfg(feature = "cuda")]
pub use launch::{PtxError, launch};
#[cfg(feature = "cuda")]
pub(super) use operands::dtype;
#[cfg(feature = "cuda")]
pub use operands::{DeviceMatrix, DeviceOperands};
