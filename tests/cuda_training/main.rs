//! Training on a GPU: PyTorch's trajectories, and what a run promises on any device.
#![cfg(feature = "cuda")]

#[path = "../common/mod.rs"]
mod common;
mod parity;

use candle_core::cuda_backend::CudaDevice;
use taper::config::BackendRequest;
use taper::device::DeviceProfile;
use taper::ops::cuda::{GpuElement, OnGpu};
use taper::ops::gemm::{Dispatch, gpu};

/// The GPU, or nothing where there is none. On the virtual card there is one.
fn open() -> Option<CudaDevice> {
    match taper::device::open(0) {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("VGPU_CARD").is_none() => {
            eprintln!("skipped, for there is no GPU ({error}): use scripts/vgpu");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The GPU as a backend, every product by its fallback.
fn backend<T: GpuElement>(device: &CudaDevice, cuda_graph: bool) -> OnGpu<T> {
    let profile = DeviceProfile::gpu(0).unwrap();
    let products = gpu::Gpu::on(device, &profile, BackendRequest::Auto).unwrap();
    let how = (T::PRECISION.into(), cuda_graph);
    OnGpu::new(device, Dispatch::untuned(products), how).unwrap()
}
