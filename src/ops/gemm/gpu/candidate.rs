//! Ways to compute a GEMM on a GPU, and their errors.

use std::fmt::{self, Display};

use cudarc::driver::DriverError;

use super::cublaslt::LtError;
use crate::ops::gemm::candidate::{GemmFailure, Unavailable};
use crate::ops::gemm::ptx::{PtxError, Tile};
use crate::ops::launch::{LaunchError, is_out_of_memory};

/// A way to compute a GEMM on a GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GpuCandidate {
    /// An algorithm of cuBLASLt, number `rank` of its heuristic. The rank is no part of the candidate's name: it may
    /// differ in another process.
    CublasLt {
        rank: usize,
        fingerprint: u32,
        /// A kernel of ours applies GELU, or its slope, afterwards.
        then_gelu: bool,
    },
    /// Placeholder where cuBLASLt has no algorithm; never available.
    NoCublasLt,
    Ptx {
        tile: Tile,
        split_k: usize,
    },
}

impl Display for GpuCandidate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            GpuCandidate::CublasLt {
                fingerprint,
                then_gelu,
                ..
            } => {
                let after = if *then_gelu { ", then gelu" } else { "" };
                f.pad(&format!("cublaslt #{fingerprint:08x}{after}"))
            }
            GpuCandidate::NoCublasLt => f.pad("cublaslt"),
            GpuCandidate::Ptx { tile, split_k: 1 } => f.pad(&format!("ptx {tile}")),
            GpuCandidate::Ptx { tile, split_k } => f.pad(&format!("ptx {tile} split-k {split_k}")),
        }
    }
}

/// Reason that a GEMM was not computed.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    #[error(transparent)]
    Ptx(#[from] PtxError),
    #[error(transparent)]
    CublasLt(#[from] LtError),
    #[error(transparent)]
    Gelu(#[from] LaunchError),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error(transparent)]
    Driver(#[from] DriverError),
}

impl GemmFailure for GpuError {
    fn is_out_of_memory(&self) -> bool {
        match self {
            GpuError::Ptx(error) => error.is_out_of_memory(),
            GpuError::CublasLt(error) => error.is_out_of_memory(),
            GpuError::Gelu(error) => error.is_out_of_memory(),
            GpuError::Unavailable(_) => false,
            GpuError::Driver(error) => is_out_of_memory(error),
        }
    }
}
