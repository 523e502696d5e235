//! Layer normalisation, as [`crate::ops::cpu::layer_norm`] has it, alone and with the residual add before it.

use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};

use super::column_sums::add_partials;
use super::dropout::{Mask, Rule, push_mask};
use crate::ops::launch::{Gpu, GpuElement, LaunchError, grid, push_optional, small};
use crate::ops::partition::norm_block_rows;

pub use crate::ops::partition::norm_partials_len as partials_len;

/// Threads of a block of the forward: eight rows.
const FORWARD_ROWS: usize = 8;
const FORWARD_THREADS: usize = 32 * FORWARD_ROWS;
/// The most threads of a block of the backward.
const MOST_BACKWARD_THREADS: usize = 512;

/// Scale and shift, (C) each.
pub struct Affine<'a, T> {
    pub weight: &'a CudaView<'a, T>,
    pub bias: Option<&'a CudaView<'a, T>>,
}

/// The per-row statistics that the backward needs, (R) each.
pub struct Stats<'a, 'b> {
    pub mean: &'a mut CudaViewMut<'b, f32>,
    pub rstd: &'a mut CudaViewMut<'b, f32>,
}

/// `x` and `out` are (R, C).
///
/// # Errors
/// When the kernel does not start.
pub fn forward<T: GpuElement>(
    gpu: &Gpu,
    x: &CudaView<T>,
    affine: Affine<T>,
    out: &mut CudaViewMut<T>,
    stats: Stats,
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
pub struct Residual<'a, 'b, T> {
    pub x: &'a CudaView<'b, T>,
    pub branch: &'a CudaView<'b, T>,
    pub after: &'a mut CudaViewMut<'b, T>,
    /// Rows of one sample.
    pub positions: usize,
}

/// `after = x + dropout(branch)` and `out` its norm, in one pass: bit for bit what
/// [`residual_forward`](super::dropout::residual_forward) and then [`forward`] would give.
///
/// # Errors
/// When the kernel does not start.
pub fn residual_forward<T: GpuElement>(
    gpu: &Gpu,
    residual: Residual<T>,
    mask: Option<Mask>,
    affine: Affine<T>,
    out: &mut CudaViewMut<T>,
    stats: Stats,
) -> Result<(), LaunchError> {
    let len = out.len();
    let rows = checked_rows(len, &affine, &stats);
    let Residual {
        x, branch, after, ..
    } = residual;
    assert!(x.len() == len && branch.len() == len && after.len() == len);
    let (row_count, columns) = (small(rows), small(affine.weight.len()));
    let (positions, rule) = (small(residual.positions), Rule::of(mask));
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

/// The rows of `len` elements.
fn checked_rows<T>(len: usize, affine: &Affine<T>, stats: &Stats) -> usize {
    let columns = affine.weight.len();
    let rows = len / columns;
    assert_eq!(len, rows * columns);
    assert!(affine.bias.is_none_or(|bias| bias.len() == columns));
    assert!(stats.mean.len() == rows && stats.rstd.len() == rows);
    rows
}

/// What the forward read and saved.
pub struct Saved<'a, T> {
    pub x: &'a CudaView<'a, T>,      // (R, C)
    pub weight: &'a CudaView<'a, T>, // (C)
    pub mean: &'a CudaView<'a, f32>, // (R)
    pub rstd: &'a CudaView<'a, f32>, // (R)
}

/// Adds to `dx` (R, C) the gradient through the normalisation, to `dweight` and `dbias` (C) theirs.
/// `partials` is scratch of at least [`partials_len`] elements.
///
/// # Errors
/// When a kernel does not start.
pub fn backward<T: GpuElement>(
    gpu: &Gpu,
    dout: &CudaView<T>,
    saved: Saved<T>,
    dx: &mut CudaViewMut<T>,
    (dweight, dbias): (&mut CudaViewMut<f32>, Option<&mut CudaViewMut<f32>>),
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
