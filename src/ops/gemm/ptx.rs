//! Our own kernels as candidates for a product: what each needs, and how it is launched.
//!
//! [`Tile`] says which kernels there are (kernels/gemm_simple.cu, gemm_mma.cuh, gemm_wgmma.cuh) and where one can run; it
//! needs no GPU; `ranked` says which are worth a trial. `launch`, in builds with CUDA, runs one.

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

pub use fits::{CardLimits, Misfit};
pub use rank::ranked;
pub use tile::{Mma, Tile, Wgmma};

#[cfg(feature = "cuda")]
pub use launch::{PtxError, launch};
#[cfg(feature = "cuda")]
pub(super) use operands::dtype;
#[cfg(feature = "cuda")]
pub use operands::{DeviceMatrix, DeviceOperands};
