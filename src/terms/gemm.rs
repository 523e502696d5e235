//! The choice of GEMM code.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

/// Effort of the search for the fastest GEMM candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// No search: the fallback computes every GEMM.
    Off,
    Limited,
    Full,
}

impl Display for Effort {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Effort::Off => "off",
            Effort::Limited => "limited",
            Effort::Full => "full",
        })
    }
}

/// The code that may compute GEMMs: `gemm.backend` of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GemmBackend {
    /// The faster code for each GEMM; each is the other's fallback.
    Auto,
    /// NVIDIA's library.
    Cublaslt,
    /// taper's own kernels.
    Ptx,
    /// On a CPU in float32, fused multiply-adds: no bf16 pieces.
    Fma,
}

impl Display for GemmBackend {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            GemmBackend::Auto => "auto",
            GemmBackend::Cublaslt => "cublaslt",
            GemmBackend::Ptx => "ptx",
            GemmBackend::Fma => "fma",
        })
    }
}
