//! Token plus position embedding on a GPU, with dropout: see [`crate::ops::cpu::embedding`].

use std::ops::Range;

use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};

use super::dropout::{DropoutRule, MaskView, push_mask, row_blocks};
use crate::ops::launch::{Gpu, GpuElement, LaunchError, THREADS, grid, small};
use crate::ops::partition::EMBEDDING_WINDOW;

pub use crate::ops::partition::embedding_heads_len as heads_len;

/// Both embeddings.
pub struct EmbeddingTableViews<'a, T> {
    pub wte: &'a CudaView<'a, T>, // (V, C)
    pub wpe: &'a CudaView<'a, T>, // (at least all positions, C)
}

/// Computes `out = dropout(wte[token] + wpe[position])`. Tokens are (B, T) row-major and below V, `out` is (R, C).
/// The position of row r is `positions.start + r % positions.len()`.
///
/// # Errors
/// The failure to start the kernel.
pub fn forward<T: GpuElement>(
    gpu: &Gpu,
    tokens: &CudaView<u32>,
    tables: EmbeddingTableViews<T>,
    out: &mut CudaViewMut<T>,
    positions: Range<usize>,
    mask: Option<MaskView>,
) -> Result<(), LaunchError> {
    let (rows, len) = (tokens.len(), out.len());
    let columns = len / rows;
    assert_eq!(len, rows * columns);
    assert!(tables.wpe.len() >= (positions.start + positions.len().min(rows)) * columns);
    let config = grid(row_blocks::<T>(len), THREADS);
    let numbers = [rows, columns, positions.len(), positions.start].map(small);
    let rule = DropoutRule::of(mask);
    let kernel = gpu.kernel::<T>("embedding_forward")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(tokens).arg(tables.wte).arg(tables.wpe).arg(out);
    let [rows, columns, positions, first] = &numbers;
    launch.arg(rows).arg(columns).arg(positions).arg(first);
    push_mask(&mut launch, mask, &rule);
    // SAFETY: the kernel's arguments in its order; the lengths were compared, and tokens are below V.
    unsafe { launch.launch(config) }?;
    Ok(())
}

/// Computes `out = wte[token] + wpe[place % positions]` of generation. Tokens and places are (R), `out` is (R, C).
///
/// # Errors
/// The failure to start the kernel.
pub fn forward_at<T: GpuElement>(
    gpu: &Gpu,
    [tokens, places]: [&CudaView<u32>; 2],
    tables: EmbeddingTableViews<T>,
    out: &mut CudaViewMut<T>,
    positions: usize,
) -> Result<(), LaunchError> {
    let (rows, len) = (tokens.len(), out.len());
    let columns = len / rows;
    assert!(len == rows * columns && places.len() == rows);
    assert!(tables.wpe.len() >= positions * columns);
    let config = grid(row_blocks::<T>(len), THREADS);
    let numbers = [rows, columns, positions].map(small);
    let kernel = gpu.kernel::<T>("embedding_at")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(tokens).arg(places);
    launch.arg(tables.wte).arg(tables.wpe).arg(out);
    let [rows, columns, positions] = &numbers;
    launch.arg(rows).arg(columns).arg(positions);
    // SAFETY: the kernel's arguments in its order; the lengths were compared, and tokens are below V.
    unsafe { launch.launch(config) }?;
    Ok(())
}

/// Tokens of a micro-batch, and its rows in their order, (R) each.
pub struct Sorted<'a> {
    pub tokens: &'a CudaView<'a, u32>,
    /// Rows by token: see [`rows_by_token`](crate::ops::backend::rows_by_token).
    pub order: &'a CudaView<'a, u32>,
}

/// Computes `dwte[token] += dout[row]` and `dwpe[position] += dout[row]`, from the first position on, each in row
/// order. `dout` (R, C) is the gradient of the sum, masked already. `heads` is scratch of at least [`heads_len`]
/// elements.
///
/// # Errors
/// The failure to start a kernel.
pub fn backward<T: GpuElement>(
    gpu: &Gpu,
    dout: &CudaView<T>,
    Sorted { tokens, order }: Sorted,
    dwte: &mut CudaViewMut<f32>,
    dwpe: &mut CudaViewMut<f32>,
    positions: usize,
    heads: &mut CudaViewMut<f32>,
) -> Result<(), LaunchError> {
    let rows = tokens.len();
    let columns = dout.len() / rows;
    assert!(order.len() == rows && dout.len() == rows * columns);
    assert!(rows.is_multiple_of(positions) && dwpe.len() >= positions * columns);
    assert!(heads.len() >= heads_len(rows, columns));
    let config = grid(row_blocks::<T>(positions * columns), THREADS);
    let numbers = [rows, columns, positions, rows / positions].map(small);
    let [row_count, column_count, position_count, samples] = &numbers;

    let kernel = gpu.kernel::<T>("embedding_positions_backward")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(dout).arg(dwpe);
    launch.arg(samples).arg(position_count).arg(column_count);
    // SAFETY: the kernel's arguments in its order; the lengths were compared.
    unsafe { launch.launch(config) }?;

    let windows = rows.div_ceil(EMBEDDING_WINDOW);
    let kernel = gpu.kernel::<T>("embedding_tokens_backward")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(tokens).arg(order).arg(dout);
    launch.arg(&mut *dwte).arg(&mut *heads);
    launch.arg(row_count).arg(column_count);
    // SAFETY: as above; tokens are below V, and the order is one of the rows.
    unsafe { launch.launch(grid(windows, threads::<T>(columns))) }?;
    if windows == 1 {
        return Ok(());
    }
    let kernel = gpu.kernel::<f32>("embedding_tokens_join")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(tokens).arg(order).arg(heads).arg(dwte);
    launch.arg(row_count).arg(column_count);
    // SAFETY: as above.
    unsafe { launch.launch(grid(windows - 1, threads::<f32>(columns))) }?;
    Ok(())
}

/// Threads of a block: one for every 16 bytes of a row.
fn threads<T>(columns: usize) -> usize {
    let pieces = columns.div_ceil(16 / size_of::<T>());
    pieces.next_multiple_of(32).min(THREADS)
}
