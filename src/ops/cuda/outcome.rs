//! The outcome of a step in the memory of the GPU: the loss, the norm of the gradients, and whether the weights may
//! change. A step waits for the GPU only to read it back.

use cudarc::driver::{CudaView, CudaViewMut, DeviceRepr, PushKernelArg, ValidAsZeroBits};

use crate::ops::launch::{Gpu, LaunchError, THREADS, grid, small};

/// Outcome of a step; all zeros before its first micro-step. kernels/outcome.cuh has the same struct.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Sum over all tokens so far, in nats.
    pub loss: f64,
    /// Global L2 norm before clipping.
    pub gradient_norm: f64,
    /// Factor that AdamW multiplies the gradients by: the clip factor over the loss scale.
    pub gradient_scale: f32,
    /// Whether loss and gradients are finite, 1 or 0; if not, AdamW changes nothing.
    pub is_finite: u32,
}

// SAFETY: plain numbers in C's layout, which zeros are.
unsafe impl DeviceRepr for Outcome {}
// SAFETY: as above.
unsafe impl ValidAsZeroBits for Outcome {}

/// Adds the losses (R) of a micro-step, `positions` to a sample, one sample after the other: the sum over a step has
/// the same bits at every micro-batch.
///
/// # Errors
/// The failure to start the kernel.
pub fn add_losses(
    gpu: &Gpu,
    losses: &CudaView<f32>,
    positions: usize,
    outcome: &mut CudaViewMut<Outcome>,
) -> Result<(), LaunchError> {
    assert!(losses.len().is_multiple_of(positions) && outcome.len() == 1);
    let (samples, positions) = (small(losses.len() / positions), small(positions));
    let kernel = gpu.kernel::<f32>("add_losses")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(losses).arg(&samples).arg(&positions);
    launch.arg(outcome);
    // SAFETY: the kernel's arguments in its order; the lengths were compared.
    unsafe { launch.launch(grid(1, 1024)) }?;
    Ok(())
}

/// Number of blocks that sum the gradients' squares: enough for any card, and a function of the length alone, so
/// that every card adds in one order.
fn blocks(gradients: usize) -> usize {
    const MOST: usize = 1024;
    gradients.div_ceil(4 * THREADS).min(MOST)
}

/// Elements of the `partials` that [`finish`] needs.
pub fn partials_len(gradients: usize) -> usize {
    blocks(gradients)
}

/// Gradients of a step, and the numbers that scale them.
pub struct StepGradientViews<'a> {
    /// Gradients of all parameters, flat.
    pub gradients: &'a CudaView<'a, f32>,
    /// Factor that the loss was multiplied by, (1).
    pub loss_scale: &'a CudaView<'a, f32>,
    /// Largest norm; 0 turns clipping off.
    pub clip: f64,
}

/// Sets all fields of `outcome` but the loss, which is complete. `partials` is scratch of at least [`partials_len`]
/// elements.
///
/// # Errors
/// The failure to start a kernel.
pub fn finish(
    gpu: &Gpu,
    step: StepGradientViews,
    outcome: &mut CudaViewMut<Outcome>,
    partials: &mut CudaViewMut<f32>,
) -> Result<(), LaunchError> {
    let len = step.gradients.len();
    assert!(outcome.len() == 1 && step.loss_scale.len() == 1);
    assert!(partials.len() >= partials_len(len));
    let (count, blocks) = (len as i64, blocks(len));
    let kernel = gpu.kernel::<f32>("sum_squares")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(step.gradients).arg(&count).arg(&mut *partials);
    // SAFETY: the kernel's arguments in its order, and a partial sum for every block.
    unsafe { launch.launch(grid(blocks, THREADS)) }?;

    let (count, clip) = (small(blocks), step.clip);
    let kernel = gpu.kernel::<f32>("finish_outcome")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(partials).arg(&count).arg(step.loss_scale);
    launch.arg(&clip).arg(outcome);
    // SAFETY: as above.
    unsafe { launch.launch(grid(1, 1024)) }?;
    Ok(())
}
