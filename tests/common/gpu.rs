//! Results of a GPU against those of the CPU in f64.
#![allow(unused_imports, unused_macros)] // not every test checks every type

use candle_core::Device;
use candle_core::cuda_backend::CudaDevice;
use cudarc::driver::{CudaSlice, DeviceRepr};
use half::{bf16, f16};
use taper::ops::launch::host::{download, upload_new};
use taper::ops::launch::{Gpu, GpuElement};
use taper::terms::Precision;

use super::{Kind, noise};

/// The GPU, or nothing where there is none. On the virtual card there is one.
pub fn open() -> Option<CudaDevice> {
    match Device::new_cuda(0).and_then(|device| device.as_cuda_device().cloned()) {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("VGPU_CARD").is_none() => {
            eprintln!("skipped, for there is no GPU ({error}): use scripts/vgpu");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A GPU's type, to and from f64.
pub trait Rounded: GpuElement + Copy + PartialEq + std::fmt::Debug {
    fn round(x: f64) -> Self;
    fn widen(self) -> f64;

    fn round_all(x: &[f64]) -> Vec<Self> {
        x.iter().map(|&x| Self::round(x)).collect()
    }
    fn widen_all(x: &[Self]) -> Vec<f64> {
        x.iter().map(|&x| x.widen()).collect()
    }
}

macro_rules! rounded {
    ($type:ty, $from:expr) => {
        impl Rounded for $type {
            fn round(x: f64) -> Self {
                $from(x)
            }
            fn widen(self) -> f64 {
                f64::from(self)
            }
        }
    };
}
rounded!(f32, |x| x as f32);
rounded!(bf16, bf16::from_f64);
rounded!(f16, f16::from_f64);

/// Largest error allowed, as a fraction of the largest expected magnitude. Sums are fp32 everywhere; what is
/// multiplied, and what is stored, is rounded to the type: by half of 2^-8 or 2^-11.
pub fn tolerance<T: GpuElement>(kind: Kind) -> f64 {
    match (T::PRECISION, kind) {
        (Precision::Float32, Kind::Forward) => 2e-6,
        (Precision::Float32, Kind::Gradient) => 5e-6,
        (Precision::Float16, Kind::Forward) => 1e-3,
        (Precision::Float16, Kind::Gradient) => 2e-3,
        (Precision::Bfloat16, Kind::Forward) => 8e-3,
        (Precision::Bfloat16, Kind::Gradient) => 16e-3,
    }
}

/// Asserts that `found` is within the tolerance of `kind`.
#[track_caller]
pub fn assert_near<T: Rounded>(what: &str, found: &[T], expected: &[f64], kind: Kind) {
    let used = super::worst(&T::widen_all(found), expected, tolerance::<T>(kind));
    if std::env::var_os("SHOW_ERRORS").is_some() {
        eprintln!("{what}: {:.0} % of what is allowed", used * 100.0);
    }
    assert!(
        used <= 1.0,
        "{what}: worst error is {:.0} % of what is allowed",
        used * 100.0
    );
}

/// As [`open`], ready for launches.
pub fn gpu() -> Option<Gpu> {
    open().map(|device| Gpu::new(&device).unwrap())
}

/// Runs a check for every type that this GPU trains in.
macro_rules! for_each_type {
    ($gpu:ident, $check:ident($($argument:expr),*)) => {
        $check::<f32>(&$gpu $(, $argument)*);
        $check::<half::f16>(&$gpu $(, $argument)*);
        if $crate::common::gpu::trains_in_bf16(&$gpu) {
            $check::<half::bf16>(&$gpu $(, $argument)*);
        }
    };
}
pub(crate) use for_each_type;

pub fn trains_in_bf16(gpu: &Gpu) -> bool {
    gpu.stream().context().compute_capability().unwrap() >= (8, 0)
}

/// Numbers in (-1, 1) that look random, after rounding to `T`.
pub fn rounded_noise<T: Rounded>(len: usize, salt: u64) -> Vec<T> {
    T::round_all(&noise(len, salt))
}

pub fn up<T: DeviceRepr>(gpu: &Gpu, values: &[T]) -> CudaSlice<T> {
    upload_new(gpu.stream(), values).unwrap()
}

/// Memory that nobody wrote: reading it ends a run on the virtual card.
pub fn unwritten<T: DeviceRepr>(gpu: &Gpu, len: usize) -> CudaSlice<T> {
    // SAFETY: only kernels see it, and the virtual card tells if they read it.
    unsafe { gpu.stream().alloc(len) }.unwrap()
}

pub fn down<T: DeviceRepr>(gpu: &Gpu, array: &CudaSlice<T>) -> Vec<T> {
    download(gpu.stream(), array).unwrap()
}
