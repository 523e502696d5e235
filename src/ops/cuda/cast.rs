//! Casts of fp32 weights to the type that the model computes in.

use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};

use crate::ops::launch::{Gpu, GpuElement, LaunchError, THREADS, grid};

/// Computes `out = x`, rounded to nearest.
///
/// # Errors
/// The failure to start the kernel.
pub fn cast<T: GpuElement>(
    gpu: &Gpu,
    x: &CudaView<f32>,
    out: &mut CudaViewMut<T>,
) -> Result<(), LaunchError> {
    let len = out.len();
    assert_eq!(x.len(), len);
    let count = len as i64;
    let kernel = gpu.kernel::<T>("cast")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(x).arg(out).arg(&count);
    // SAFETY: the kernel's arguments in its order; the lengths were compared.
    unsafe { launch.launch(grid(len.div_ceil(4 * THREADS), THREADS)) }?;
    Ok(())
}
