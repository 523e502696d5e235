//! Attention of generation on a GPU, over cached keys and values: see [`crate::ops::cpu::attention::cached`].

use cudarc::driver::{CudaView, CudaViewMut, LaunchConfig, PushKernelArg};

use super::attention::{AttentionShape, MAX_HEAD_SIZE};
use super::dropout::row_blocks;
use crate::ops::backend::Shape;
use crate::ops::launch::{Gpu, GpuElement, LaunchError, THREADS, grid, small};

/// Threads of a block that attends: kernels/attention_cached.cu has as many.
const ATTENDING_THREADS: u32 = 128;

fn columns(slots: Shape) -> usize {
    slots.heads * slots.head_size
}

fn cache_len(slots: Shape) -> usize {
    2 * slots.sequences * slots.positions * columns(slots)
}

/// A launch over the keys and values of `rows`, one element at a time.
fn over_elements(slots: Shape, rows: usize) -> LaunchConfig {
    // Blocks for 16 bytes a thread; the grid walks over the rest.
    grid(row_blocks::<f32>(2 * rows * columns(slots)), THREADS)
}

/// Copies the keys and values of `qkv` (R, 3C) into the cache, at the places (R) of the rows.
///
/// # Errors
/// The failure to start the kernel.
///
/// # Panics
/// If a length is wrong.
pub fn store<T: GpuElement>(
    gpu: &Gpu,
    slots: Shape,
    qkv: &CudaView<T>,
    places: &CudaView<u32>,
    cache: &mut CudaViewMut<T>,
) -> Result<(), LaunchError> {
    let rows = places.len();
    assert_eq!(
        qkv.len(),
        3 * rows * columns(slots),
        "packed queries, keys, values"
    );
    assert_eq!(cache.len(), cache_len(slots), "cached keys and values");
    let (sizes, row_count) = (AttentionShape::of(slots), small(rows));
    let kernel = gpu.kernel::<T>("attention_cache_store")?;
    let mut launch = gpu.launch(&kernel);
    launch
        .arg(qkv)
        .arg(places)
        .arg(cache)
        .arg(&row_count)
        .arg(&sizes);
    // SAFETY: the kernel's arguments in its order; the lengths were compared, and places are those of slots.
    unsafe { launch.launch(over_elements(slots, rows)) }?;
    Ok(())
}

/// Copies keys and values from places (R) to places of the cache. No place is both.
///
/// # Errors
/// The failure to start the kernel.
///
/// # Panics
/// If a length is wrong.
pub fn copy<T: GpuElement>(
    gpu: &Gpu,
    slots: Shape,
    [from, to]: [&CudaView<u32>; 2],
    cache: &mut CudaViewMut<T>,
) -> Result<(), LaunchError> {
    let rows = from.len();
    assert_eq!(rows, to.len(), "places");
    assert_eq!(cache.len(), cache_len(slots), "cached keys and values");
    let (sizes, row_count) = (AttentionShape::of(slots), small(rows));
    let kernel = gpu.kernel::<T>("attention_cache_copy")?;
    let mut launch = gpu.launch(&kernel);
    launch
        .arg(from)
        .arg(to)
        .arg(cache)
        .arg(&row_count)
        .arg(&sizes);
    // SAFETY: as in `store`.
    unsafe { launch.launch(over_elements(slots, rows)) }?;
    Ok(())
}

/// Computes `out` (R, C) from the queries of `qkv` (R, 3C) at `places` (R) and the cache, which has the keys and values of
/// every position up to theirs.
///
/// # Errors
/// The failure to start the kernel.
///
/// # Panics
/// If a length is wrong, or a head larger than [`MAX_HEAD_SIZE`].
pub fn forward<T: GpuElement>(
    gpu: &Gpu,
    slots: Shape,
    qkv: &CudaView<T>,
    places: &CudaView<u32>,
    cache: &CudaView<T>,
    out: &mut CudaViewMut<T>,
) -> Result<(), LaunchError> {
    let rows = places.len();
    assert_eq!(
        qkv.len(),
        3 * rows * columns(slots),
        "packed queries, keys, values"
    );
    assert_eq!(out.len(), rows * columns(slots), "attention output");
    assert_eq!(cache.len(), cache_len(slots), "cached keys and values");
    assert!(slots.head_size <= MAX_HEAD_SIZE, "size of a head");
    let sizes = AttentionShape::of(slots);
    let config = LaunchConfig {
        grid_dim: (small(rows) as u32, small(slots.heads) as u32, 1),
        block_dim: (ATTENDING_THREADS, 1, 1),
        shared_mem_bytes: 0,
    };
    let kernel = gpu.kernel::<T>("attention_cached")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(qkv).arg(places).arg(cache).arg(out).arg(&sizes);
    // SAFETY: as in `store`.
    unsafe { launch.launch(config) }?;
    Ok(())
}
