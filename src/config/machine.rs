//! Keys about the machine: the sections `system` and `gemm`.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::MemoryLimit;
use crate::terms::GemmBackend;

/// The machine and its precision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SystemConfig {
    /// Device that computes.
    pub device: DeviceRequest,
    /// The precision of the computation.
    pub dtype: DtypeRequest,
    /// CPU threads, at most the cores that the process may use. When absent, all of them. taper's own key.
    pub threads: Option<usize>,
    /// The most memory of the device that taper may hold, such as `11.69GiB` or a number of bytes. When absent, what is
    /// free. taper's own key.
    pub memory_limit: Option<MemoryLimit>,
    /// Activations that the backward pass computes again instead of keeping them: less memory, same numbers, more work.
    /// taper's own key: nanoGPT keeps them all.
    pub recompute: RecomputeRequest,
    /// Whether float32 GEMMs on a GPU may multiply in TF32, with 10 bits of fraction. taper's own key: nanoGPT always
    /// allows it.
    pub tf32: bool,
    /// Whether a GPU does micro-steps from recorded graphs: the same numbers, fewer launches. taper's own key.
    pub cuda_graph: GraphRequest,
}

/// GEMMs, the matrix products.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GemmConfig {
    /// Effort of the search for the fastest GEMM code. taper's own key.
    pub autotune: AutotuneRequest,
    /// Code that computes GEMMs. taper's own key: nanoGPT's `backend` is PyTorch's between processes.
    pub backend: GemmBackend,
}

impl Default for SystemConfig {
    fn default() -> Self {
        Self {
            device: DeviceRequest::Auto,
            dtype: DtypeRequest::Auto,
            threads: None,
            memory_limit: None,
            recompute: RecomputeRequest::Auto,
            tf32: false,
            cuda_graph: GraphRequest::Auto,
        }
    }
}

impl Default for GemmConfig {
    fn default() -> Self {
        Self {
            autotune: AutotuneRequest::Auto,
            backend: GemmBackend::Auto,
        }
    }
}

/// The device asked for: `auto`, `cpu`, `cuda` or `cuda:1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceRequest {
    /// The first GPU that taper can use here, else the CPU.
    #[default]
    Auto,
    Cpu,
    /// The GPU with this number, as CUDA counts.
    Cuda(usize),
}

/// A text that names no device.
#[derive(Debug, thiserror::Error)]
#[error("expected {}", DeviceRequest::EXPECTED)]
pub struct NotADevice;

impl DeviceRequest {
    pub(super) const EXPECTED: &str =
        "`auto`, `cpu`, `cuda`, or a GPU by its number, such as `cuda:1`";

    /// `cuda` -> 0, `cuda:1` -> 1, as PyTorch calls a GPU of this machine.
    pub fn ordinal(name: &str) -> Option<usize> {
        match name.strip_prefix("cuda")? {
            "" => Some(0),
            // CUDA counts in 31 bits; nobody has as many as 16.
            number => Some(number.strip_prefix(':')?.parse::<u16>().ok()?.into()),
        }
    }
}

impl FromStr for DeviceRequest {
    type Err = NotADevice;

    fn from_str(text: &str) -> Result<Self, NotADevice> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            name => Self::ordinal(name).map(Self::Cuda).ok_or(NotADevice),
        }
    }
}

impl TryFrom<String> for DeviceRequest {
    type Error = NotADevice;

    fn try_from(text: String) -> Result<Self, NotADevice> {
        text.parse()
    }
}

impl From<DeviceRequest> for String {
    fn from(request: DeviceRequest) -> String {
        match request {
            DeviceRequest::Auto => "auto".into(),
            DeviceRequest::Cpu => "cpu".into(),
            DeviceRequest::Cuda(0) => "cuda".into(),
            DeviceRequest::Cuda(ordinal) => format!("cuda:{ordinal}"),
        }
    }
}

/// The precision asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DtypeRequest {
    /// The fastest that taper can use here.
    Auto,
    Float32,
    Bfloat16,
    Float16,
}

/// The activations to recompute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecomputeRequest {
    /// The fastest that fits.
    Auto,
    /// Nothing: every activation is kept.
    None,
    /// The outputs of GELUs and layer norms.
    #[serde(rename = "gelu+ln")]
    GeluLn,
    /// Everything inside a transformer block: only its input is kept.
    Block,
}

/// Whether micro-steps are recorded as CUDA graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GraphRequest {
    /// On where kernels are so short that launching them takes longer.
    Auto,
    On,
    Off,
}

/// The effort of the search asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AutotuneRequest {
    /// Full, but limited on a small card, one with fewer than 68 SMs, and off on the CPU.
    Auto,
    Full,
    Limited,
    Off,
}
