//! GELU, as [`crate::ops::gelu`] has it, where no product's epilogue computes it.

use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};

use super::launch::{Gpu, LaunchError, grid};
use super::{GpuElement, THREADS};
use crate::config::Gelu;

/// `out = gelu(x)`; both of one length.
///
/// # Errors
/// When the kernel does not start.
pub fn forward<T: GpuElement>(
    gpu: &Gpu,
    form: Gelu,
    x: &CudaView<T>,
    out: &mut CudaViewMut<T>,
) -> Result<(), LaunchError> {
    let operation = match form {
        Gelu::Tanh => "gelu_tanh_forward",
        Gelu::Erf => "gelu_erf_forward",
    };
    launch(gpu, operation, x, out)
}

/// `d *= gelu'(x)`, in place.
///
/// # Errors
/// When the kernel does not start.
pub fn backward<T: GpuElement>(
    gpu: &Gpu,
    form: Gelu,
    x: &CudaView<T>,
    d: &mut CudaViewMut<T>,
) -> Result<(), LaunchError> {
    let operation = match form {
        Gelu::Tanh => "gelu_tanh_backward",
        Gelu::Erf => "gelu_erf_backward",
    };
    launch(gpu, operation, x, d)
}

fn launch<T: GpuElement>(
    gpu: &Gpu,
    operation: &'static str,
    x: &CudaView<T>,
    out: &mut CudaViewMut<T>,
) -> Result<(), LaunchError> {
    let len = out.len();
    assert_eq!(x.len(), len);
    // 16 bytes for every thread.
    let blocks = len.div_ceil(16 / size_of::<T>() * THREADS);
    let count = len as i64;
    let kernel = gpu.kernel::<T>(operation)?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(x).arg(out).arg(&count);
    // SAFETY: the kernel's arguments in its order; the lengths were compared.
    unsafe { launch.launch(grid(blocks, THREADS)) }?;
    Ok(())
}
