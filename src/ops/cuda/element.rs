//! The floating-point types that a GPU computes in.

use candle_core::WithDType;
use cudarc::driver::{DeviceRepr, ValidAsZeroBits};
use half::{bf16, f16};

use crate::memory::Precision;

/// A type that a GPU computes in.
pub trait GpuElement: WithDType + DeviceRepr + ValidAsZeroBits {
    const PRECISION: Precision;
    /// How the names of kernels for it end.
    const SUFFIX: &'static str;
}

impl GpuElement for f32 {
    const PRECISION: Precision = Precision::Float32;
    const SUFFIX: &'static str = "f32";
}

impl GpuElement for bf16 {
    const PRECISION: Precision = Precision::Bfloat16;
    const SUFFIX: &'static str = "bf16";
}

impl GpuElement for f16 {
    const PRECISION: Precision = Precision::Float16;
    const SUFFIX: &'static str = "f16";
}
