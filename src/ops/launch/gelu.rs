//! GELU on a GPU, for GEMMs whose epilogue lacks it: the GPU's [`crate::ops::loops::gelu`].

use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};

use super::{Gpu, GpuElement, LaunchError, THREADS, grid};
use crate::terms::Gelu;

/// Computes `out = gelu(x)`; both of one length.
///
/// # Errors
/// The failure to start the kernel.
pub fn forward<T: GpuElement>(
    gpu: &Gpu,
    form: Gelu,
    x: &CudaView<T>,
    out: &mut CudaViewMut<T>,
) -> Result<(), LaunchError> {
    launch(gpu, forward_kernel(form), x, out)
}

/// Computes `d *= gelu'(x)` in place; both of one length.
///
/// # Errors
/// The failure to start the kernel.
pub fn backward<T: GpuElement>(
    gpu: &Gpu,
    form: Gelu,
    x: &CudaView<T>,
    d: &mut CudaViewMut<T>,
) -> Result<(), LaunchError> {
    launch(gpu, backward_kernel(form), x, d)
}

/// The kernel that follows a GEMM whose epilogue lacks GELU.
#[derive(Clone, Copy)]
pub(in crate::ops) enum AfterProduct {
    Forward(Gelu),
    Backward(Gelu),
}

/// Computes [`forward`] or [`backward`] of `count` elements at the addresses `x` and `out`.
///
/// # Safety
/// `count` elements of type `T` lie at both, and those at `out` are touched by nothing else until the
/// stream has passed here.
pub(in crate::ops) unsafe fn at_addresses<T: GpuElement>(
    gpu: &Gpu,
    after: AfterProduct,
    x: u64,
    out: u64,
    count: usize,
) -> Result<(), LaunchError> {
    let operation = match after {
        AfterProduct::Forward(form) => forward_kernel(form),
        AfterProduct::Backward(form) => backward_kernel(form),
    };
    let blocks = count.div_ceil(16 / size_of::<T>() * THREADS);
    let count = count as i64;
    let kernel = gpu.kernel::<T>(operation)?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(&x).arg(&out).arg(&count);
    // SAFETY: the kernel's arguments in its order, and as the caller promises.
    unsafe { launch.launch(grid(blocks, THREADS)) }?;
    Ok(())
}

fn forward_kernel(form: Gelu) -> &'static str {
    match form {
        Gelu::Tanh => "gelu_tanh_forward",
        Gelu::Erf => "gelu_erf_forward",
    }
}

fn backward_kernel(form: Gelu) -> &'static str {
    match form {
        Gelu::Tanh => "gelu_tanh_backward",
        Gelu::Erf => "gelu_erf_backward",
    }
}

fn launch<T: GpuElement>(
    gpu: &Gpu,
    operation: &'static str,
    x: &CudaView<T>,
    out: &mut CudaViewMut<T>,
) -> Result<(), LaunchError> {
    let len = out.len();
    assert_eq!(x.len(), len);
    // A thread for every 16 bytes.
    let blocks = len.div_ceil(16 / size_of::<T>() * THREADS);
    let count = len as i64;
    let kernel = gpu.kernel::<T>(operation)?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(x).arg(out).arg(&count);
    // SAFETY: the kernel's arguments in its order; the lengths were compared.
    unsafe { launch.launch(grid(blocks, THREADS)) }?;
    Ok(())
}
