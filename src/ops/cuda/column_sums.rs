//! Sums over rows for the gradients of biases, and the second pass of kernels that add up in two.

use cudarc::driver::{CudaView, CudaViewMut, LaunchConfig, PushKernelArg};

use crate::ops::launch::{Gpu, GpuElement, LaunchError, THREADS, grid, push_optional_mut, small};
use crate::ops::partition::column_sum_lines;

pub use crate::ops::partition::column_sum_partials_len as partials_len;

/// Computes `total (N) += sum over rows of x (R, N)`. `partials` is scratch of at least [`partials_len`] elements.
///
/// # Errors
/// The failure to start a kernel.
pub fn add_column_sums<T: GpuElement>(
    gpu: &Gpu,
    x: &CudaView<T>,
    total: &mut CudaViewMut<f32>,
    partials: &mut CudaViewMut<f32>,
) -> Result<(), LaunchError> {
    let columns = total.len();
    let rows = x.len() / columns;
    assert_eq!(x.len(), rows * columns);
    assert!(partials.len() >= partials_len(rows, columns));
    let lines = column_sum_lines(rows, columns);
    // 16 bytes for every lane of a warp.
    let tiles = columns.div_ceil(32 * 16 / size_of::<T>());
    let config = LaunchConfig {
        grid_dim: (tiles as u32, lines as u32, 1),
        ..grid(1, THREADS)
    };
    let numbers = [rows, columns, rows.div_ceil(lines)].map(small);
    let kernel = gpu.kernel::<T>("column_sums")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(x).arg(&mut *partials);
    launch.arg(&numbers[0]).arg(&numbers[1]).arg(&numbers[2]);
    // SAFETY: the kernel's arguments in its order; the lengths were compared.
    unsafe { launch.launch(config) }?;
    add_partials(gpu, &partials.as_view(), lines, columns, total, None)
}

/// Adds the sum over lines of the first C elements of each to `first` (C), and that of the next C to `second` (C).
/// `partials` is (at least `lines`, `pitch`).
pub(super) fn add_partials(
    gpu: &Gpu,
    partials: &CudaView<f32>,
    lines: usize,
    pitch: usize,
    first: &mut CudaViewMut<f32>,
    second: Option<&mut CudaViewMut<f32>>,
) -> Result<(), LaunchError> {
    let columns = first.len();
    assert!(second.as_ref().is_none_or(|second| second.len() == columns));
    let width = columns * if second.is_some() { 2 } else { 1 };
    assert!(partials.len() >= lines * pitch && pitch >= width);
    let numbers = [lines, pitch, columns].map(small);
    let kernel = gpu.kernel::<f32>("add_partials")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(partials).arg(first);
    push_optional_mut(&mut launch, second);
    launch.arg(&numbers[0]).arg(&numbers[1]).arg(&numbers[2]);
    // SAFETY: the kernel's arguments in its order; the lengths were compared.
    unsafe { launch.launch(grid(width.div_ceil(32), 1024)) }?;
    Ok(())
}
