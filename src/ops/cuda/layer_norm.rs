//! Layer normalisation on a GPU, alone and with the residual add before it: see [`crate::ops::cpu::layer_norm`].

use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};

use super::column_sums::add_partials;
use super::dropout::{DropoutRule, MaskView, push_mask};
use crate::ops::launch::{Gpu, GpuElement, LaunchError, grid, push_optional, small};
use crate::ops::partition::norm_block_rows;

pub use crate::ops::partition::norm_partials_len as partials_len;

/// Rows of a block of the forward.
const FORWARD_ROWS: usize = 8;
/// Threads of a block of the forward: a warp for every row.
const FORWARD_THREADS: usize = 32 * FORWARD_ROWS;
/// Most threads of a block of the backward.
const MOST_BACKWARD_THREADS: usize = 512;

/// Scale and shift, (C) each.
pub struct AffineViews<'a, T> {
    pub weight: &'a CudaView<'a, T>,
    pub bias: Option<&'a CudaView<'a, T>>,
}

/// Statistics of every row for the backward, (R) each.
pub struct NormStatsViews<'a, 'b> {
    pub mean: &'a mut CudaViewMut<'b, f32>,
    pub rstd: &'a mut CudaViewMut<'b, f32>,
}

/// Normalises the rows of `x` into `out`, (R, C) each.
///
/// # Errors
/// The failure to start the kernel.
pub fn forward<T: GpuElement>(
    gpu: &Gpu,
    x: &CudaView<T>,
    affine: AffineViews<T>,
    out: &mut CudaViewMut<T>,
    stats: NormStatsViews,
) -> Result<(), LaunchError> {
    let rows = checked_rows(out.len(), &affine, &stats);
    assert_eq!(x.len(), out.len());
    let (row_count, columns) = (small(rows), small(affine.weight.len()));
    let kernel = gpu.kernel::<T>("layer_norm_forward")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(x).arg(affine.weight);
    push_optional(&mut launch, affine.bias);
    launch.arg(out).arg(stats.mean).arg(stats.rstd);
    launch.arg(&row_count).arg(&columns);
    // SAFETY: the kernel's arguments in its order; the lengths were compared.
    unsafe { launch.launch(grid(rows.div_ceil(FORWARD_ROWS), FORWARD_THREADS)) }?;
    Ok(())
}

/// The residual stream before and after a branch is added to it, (R, C) each.
pub struct ResidualViews<'a, 'b, T> {
    pub x: &'a CudaView<'b, T>,
    pub branch: &'a CudaView<'b, T>,
    pub after: &'a mut CudaViewMut<'b, T>,
    /// Rows of one sample.
    pub positions: usize,
}

/// Computes `after = x + dropout(branch)` and its norm `out` in one pass. The bits are those of
/// [`residual_forward`](super::dropout::residual_forward) followed by [`forward`].
///
/// # Errors
/// The failure to start the kernel.
pub fn residual_forward<T: GpuElement>(
    gpu: &Gpu,
    residual: ResidualViews<T>,
    mask: Option<MaskView>,
    affine: AffineViews<T>,
    out: &mut CudaViewMut<T>,
    stats: NormStatsViews,
) -> Result<(), LaunchError> {
    let len = out.len();
    let rows = checked_rows(len, &affine, &stats);
    let ResidualViews {
        x, branch, after, ..
    } = residual;
    assert!(x.len() == len && branch.len() == len && after.len() == len);
    let (row_count, columns) = (small(rows), small(affine.weight.len()));
    let (positions, rule) = (small(residual.positions), DropoutRule::of(mask));
    let kernel = gpu.kernel::<T>("residual_layer_norm_forward")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(x).arg(branch).arg(after).arg(affine.weight);
    push_optional(&mut launch, affine.bias);
    launch.arg(out).arg(stats.mean).arg(stats.rstd);
    launch.arg(&row_count).arg(&columns).arg(&positions);
    push_mask(&mut launch, mask, &rule);
    // SAFETY: the kernel's arguments in its order; the lengths were compared.
    unsafe { launch.launch(grid(rows.div_ceil(FORWARD_ROWS), FORWARD_THREADS)) }?;
    Ok(())
}

/// Number of rows of `len` elements, after a check of every length.
fn checked_rows<T>(len: usize, affine: &AffineViews<T>, stats: &NormStatsViews) -> usize {
    let columns = affine.weight.len();
    let rows = len / columns;
    assert_eq!(len, rows * columns);
    assert!(affine.bias.is_none_or(|bias| bias.len() == columns));
    assert!(stats.mean.len() == rows && stats.rstd.len() == rows);
    rows
}

/// Inputs and saved results of the forward.
pub struct NormSavedViews<'a, T> {
    pub x: &'a CudaView<'a, T>,      // (R, C)
    pub weight: &'a CudaView<'a, T>, // (C)
    pub mean: &'a CudaView<'a, f32>, // (R)
    pub rstd: &'a CudaView<'a, f32>, // (R)
}

/// Adds the gradient through the normalisation to `dx` (R, C), and those of the weight and the bias to `dweight` and
/// `dbias` (C).
/// `partials` is scratch of at least [`partials_len`] elements.
///
/// # Errors
/// The failure to start a kernel.
pub fn backward<T: GpuElement>(
    gpu: &Gpu,
    dout: &CudaView<T>,
    saved: NormSavedViews<T>,
    dx: &mut CudaViewMut<T>,
    dweight: &mut CudaViewMut<f32>,
    dbias: Option<&mut CudaViewMut<f32>>,
    partials: &mut CudaViewMut<f32>,
) -> Result<(), LaunchError> {
    let (rows, columns) = (saved.mean.len(), saved.weight.len());
    assert!([dout.len(), saved.x.len(), dx.len()] == [rows * columns; 3]);
    assert_eq!(saved.rstd.len(), rows);
    assert!(partials.len() >= partials_len(rows, columns));
    let block_rows = norm_block_rows(rows);
    let blocks = rows.div_ceil(block_rows);
    // A thread for every 16 bytes of a row.
    let threads = columns.div_ceil(16 / size_of::<T>()).next_multiple_of(32);
    let config = grid(blocks, threads.min(MOST_BACKWARD_THREADS));
    let numbers = [rows, columns, block_rows].map(small);
    let kernel = gpu.kernel::<T>("layer_norm_backward")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(dout).arg(saved.x).arg(saved.weight);
    launch.arg(saved.mean).arg(saved.rstd);
    launch.arg(dx).arg(&mut *partials);
    launch.arg(&numbers[0]).arg(&numbers[1]).arg(&numbers[2]);
    // SAFETY: the kernel's arguments in its order; the lengths were compared.
    unsafe { launch.launch(config) }?;
    add_partials(
        gpu,
        &partials.as_view(),
        blocks,
        2 * columns,
        dweight,
        dbias,
    )
}
