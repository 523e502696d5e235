//! The floating-point types that a GPU computes in.

use candle_core::WithDType;
use cudarc::driver::{DeviceRepr, ValidAsZeroBits};
use half::{bf16, f16};

use crate::terms::Precision;

/// A type that a GPU computes in.
pub trait GpuElement: WithDType + DeviceRepr + ValidAsZeroBits {
    const PRECISION: Precision;
    /// Suffix of the names of its kernels.
    const SUFFIX: &'static str;

    fn from_full(value: f32) -> Self;
    fn to_full(self) -> f32;
}

impl GpuElement for f32 {
    const PRECISION: Precision = Precision::Float32;
    const SUFFIX: &'static str = "f32";

    fn from_full(value: f32) -> Self {
        value
    }

    fn to_full(self) -> f32 {
        self
    }
}

impl GpuElement for bf16 {
    const PRECISION: Precision = Precision::Bfloat16;
    const SUFFIX: &'static str = "bf16";

    fn from_full(value: f32) -> Self {
        bf16::from_f32(value)
    }

    fn to_full(self) -> f32 {
        self.to_f32()
    }
}

impl GpuElement for f16 {
    const PRECISION: Precision = Precision::Float16;
    const SUFFIX: &'static str = "f16";

    fn from_full(value: f32) -> Self {
        f16::from_f32(value)
    }

    fn to_full(self) -> f32 {
        self.to_f32()
    }
}
