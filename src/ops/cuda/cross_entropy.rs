//! Softmax cross-entropy over a chunk of logits: what [`crate::ops::classifier`] does between its products.

use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};

use crate::ops::launch::{Gpu, GpuElement, LaunchError, grid, push_optional, small};

const MOST_THREADS: usize = 768;
/// Pieces of 16 bytes that a thread keeps in registers.
const fn held<T>() -> usize {
    if size_of::<T>() == 2 { 9 } else { 8 }
}

/// The loss of every row into `losses` (R), in nats; `logits` are (R, V), `targets` (R), below V.
///
/// # Errors
/// When the kernel does not start.
pub fn losses<T: GpuElement>(
    gpu: &Gpu,
    logits: &CudaView<T>,
    targets: &CudaView<u32>,
    losses: &mut CudaViewMut<f32>,
) -> Result<(), LaunchError> {
    let (vocab, config) = shape::<T>(logits.len(), targets, losses);
    let kernel = gpu.kernel::<T>("cross_entropy")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(logits).arg(targets).arg(losses);
    push_optional::<f32>(&mut launch, None);
    launch.arg(&vocab);
    // SAFETY: the kernel's arguments in its order; the lengths were compared. Without a scale it writes no
    // logits.
    unsafe { launch.launch(config) }?;
    Ok(())
}

/// As [`losses`], and the logits become `scale * (softmax(logits) - onehot(target))`, with `scale` (1) in the
/// memory of the GPU.
///
/// # Errors
/// When the kernel does not start.
pub fn losses_and_gradients<T: GpuElement>(
    gpu: &Gpu,
    logits: &mut CudaViewMut<T>,
    targets: &CudaView<u32>,
    scale: &CudaView<f32>,
    losses: &mut CudaViewMut<f32>,
) -> Result<(), LaunchError> {
    let (vocab, config) = shape::<T>(logits.len(), targets, losses);
    assert_eq!(scale.len(), 1);
    let kernel = gpu.kernel::<T>("cross_entropy")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(logits).arg(targets).arg(losses);
    launch.arg(scale).arg(&vocab);
    // SAFETY: as above.
    unsafe { launch.launch(config) }?;
    Ok(())
}

/// The vocabulary's size, and a block for every row with as many threads as hold it.
fn shape<T>(
    logits: usize,
    targets: &CudaView<u32>,
    losses: &CudaViewMut<f32>,
) -> (i32, cudarc::driver::LaunchConfig) {
    let rows = targets.len();
    let vocab = logits / rows;
    assert!(logits == rows * vocab && losses.len() == rows);
    // One piece more, for a row that begins within one.
    let pieces = vocab.div_ceil(16 / size_of::<T>()) + 1;
    let threads = pieces.div_ceil(held::<T>()).next_multiple_of(32);
    (small(vocab), grid(rows, threads.min(MOST_THREADS)))
}
