//! Softmax cross-entropy of a chunk of logits on a GPU, between the GEMMs of the classifier.

use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};

use crate::ops::launch::{Gpu, GpuElement, LaunchError, grid, push_optional, small};

/// Most threads of a block.
const MOST_THREADS: usize = 768;
/// Pieces of 16 bytes that a thread keeps in registers.
const fn held<T>() -> usize {
    if size_of::<T>() == 2 { 9 } else { 8 }
}

/// Writes the loss of every row into `losses` (R), in nats. `logits` are (R, V), `targets` (R) and below V.
///
/// # Errors
/// The failure to start the kernel.
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

/// Writes the losses, as [`losses`] does; the logits become `scale * (softmax(logits) - onehot(target))`. `scale` (1)
/// is in the memory of the GPU.
///
/// # Errors
/// The failure to start the kernel.
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

/// The vocabulary's size, and a launch of a block for every row with as many threads as hold it.
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
