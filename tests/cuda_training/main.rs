//! Training on a GPU: PyTorch's trajectories, and what a run promises on any device.
#![cfg(feature = "cuda")]

#[path = "../common/mod.rs"]
mod common;
mod memory;
mod outliers;
mod overflow;
mod parity;
mod refusals;
mod rungs;
mod sampling;
#[path = "../recovery/toy.rs"]
#[allow(dead_code, reason = "what only the CPU's tests ask of it")]
mod toy;

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::cuda_backend::CudaDevice;
use cudarc::driver::result;
use cudarc::driver::sys::CUmemPool_attribute;
use taper::device::DeviceProfile;
use taper::ops::backend::Backend;
use taper::ops::cuda::OnGpu;
use taper::ops::gemm::{Dispatch, gpu};
use taper::ops::launch::GpuElement;
use taper::terms::{Gelu, GemmBackend, ModelDims, Recompute, Rung};

/// The GPU. It is the process's: what one test holds of its memory, all others see, so there is one test at
/// a time.
struct Card {
    device: CudaDevice,
    _alone: MutexGuard<'static, ()>,
}

impl Deref for Card {
    type Target = CudaDevice;

    fn deref(&self) -> &CudaDevice {
        &self.device
    }
}

impl Card {
    /// Bytes of all buffers that are there when nothing is under way: what the driver's memory pool counts, which
    /// neither the size of its blocks nor the code of kernels and libraries, loaded when they are first used,
    /// can change.
    fn used_bytes(&self) -> u64 {
        let context = self.cuda_stream().context().clone();
        context.synchronize().unwrap();
        let mut used = 0u64;
        // SAFETY: the pool is the device's, and this attribute a number of 64 bits.
        unsafe {
            let pool = result::device::get_mem_pool(context.cu_device()).unwrap();
            let which = CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT;
            result::mem_pool::get_attribute(pool, which, (&raw mut used).cast()).unwrap();
        }
        used
    }

    /// What is free for everybody, when the pool keeps nothing.
    fn free_bytes(&self) -> u64 {
        let context = self.cuda_stream().context().clone();
        taper::ops::cuda::trim_pool(&context).unwrap();
        context.mem_get_info().unwrap().0 as u64
    }
}

/// The GPU, or nothing where there is none. On the virtual card there is one.
fn open() -> Option<Card> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    match taper::device::open(0) {
        Ok(device) => Some(Card {
            device,
            _alone: alone,
        }),
        Err(error) if std::env::var_os("VGPU_CARD").is_none() => {
            eprintln!("skipped, for there is no GPU ({error}): use scripts/vgpu");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The GPU as a backend, every product by its fallback.
fn backend<T: GpuElement>(device: &CudaDevice, cuda_graph: bool) -> Box<dyn Backend> {
    backend_of::<T>(device, GemmBackend::Auto, cuda_graph)
}

fn backend_of<T: GpuElement>(
    device: &CudaDevice,
    products: GemmBackend,
    cuda_graph: bool,
) -> Box<dyn Backend> {
    let profile = DeviceProfile::gpu(0).unwrap();
    let products = gpu::GpuGemm::on(device, &profile, products).unwrap();
    let products = Dispatch::untuned(products);
    Box::new(OnGpu::<T>::new(device, products, T::PRECISION.into(), cuda_graph).unwrap())
}

fn dims(dropout: f64) -> ModelDims {
    ModelDims {
        n_layer: 2,
        n_head: 2,
        n_embd: 32,
        block_size: 8,
        vocab_size: 101,
        bias: true,
        dropout,
        gelu: Gelu::Tanh,
    }
}

fn rung(micro_batch: usize, recompute: Recompute, logits_rows: usize) -> Rung {
    Rung {
        micro_batch,
        recompute,
        logits_rows,
    }
}
