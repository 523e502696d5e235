//! Dropout and the residual add on a GPU. Masks are those of [`crate::ops::cpu::dropout`], bit for bit.

use cudarc::driver::{CudaView, CudaViewMut, DeviceRepr, LaunchArgs, PushKernelArg};

use crate::ops::backend::{DropoutSite, RowShape};
use crate::ops::launch::{Gpu, GpuElement, LaunchError, THREADS, grid, push_optional, small};
use crate::rng::{Seed, Stream};

/// Mask of one site. The micro-step is read from the GPU's memory, so that a launch fits every one.
#[derive(Clone, Copy)]
pub struct MaskView<'a> {
    /// Probability of dropping an element, in (0, 1).
    pub p: f64,
    pub seed: Seed,
    /// Site; for attention weights that of head 0, from which the kernel counts on.
    pub site: DropoutSite,
    /// Step, and index within it of the micro-batch's first sequence.
    pub header: &'a CudaView<'a, u32>,
}

/// Numbers of one site's mask, for kernels. `DropoutRule` of kernels/dropout.cuh is the same struct.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct DropoutRule {
    key: [u32; 2],
    tag: u32,
    threshold: u32,
    keep: f32,
    /// Padding: a key is aligned to eight bytes.
    _unused: u32,
}

// SAFETY: plain numbers in C's layout.
unsafe impl DeviceRepr for DropoutRule {}

impl DropoutRule {
    pub fn of(mask: Option<MaskView>) -> Self {
        let Some(mask) = mask else {
            return Self::default();
        };
        Self {
            key: mask.seed.key(),
            tag: mask.seed.tag(Stream::Dropout, mask.site.number()),
            threshold: (mask.p * 2f64.powi(32)) as u32,
            keep: (1.0 / (1.0 - mask.p)) as f32,
            _unused: 0,
        }
    }
}

/// Adds a kernel's last two arguments, `header` and `rule`.
pub(super) fn push_mask<'a>(
    launch: &mut LaunchArgs<'a>,
    mask: Option<MaskView<'a>>,
    rule: &'a DropoutRule,
) {
    let header = mask.map(|mask| mask.header);
    assert!(
        header.is_none_or(|header| header.len() == 2),
        "the step and the first sample"
    );
    push_optional(launch, header);
    launch.arg(rule);
}

/// Number of blocks for an array of rows, with 16 bytes for every thread. The kernels count elements in 32 bits.
pub(super) fn row_blocks<T>(elements: usize) -> usize {
    assert!(elements <= 1 << 31, "{elements} elements");
    elements.div_ceil(16 / size_of::<T>() * THREADS)
}

/// Computes `out = x + dropout(branch)`, all (R, C).
///
/// # Errors
/// The failure to start the kernel.
pub fn residual_forward<T: GpuElement>(
    gpu: &Gpu,
    x: &CudaView<T>,
    branch: &CudaView<T>,
    out: &mut CudaViewMut<T>,
    RowShape { columns, positions }: RowShape,
    mask: Option<MaskView>,
) -> Result<(), LaunchError> {
    let len = out.len();
    assert!(x.len() == len && branch.len() == len && len.is_multiple_of(columns));
    let (rows, columns) = (small(len / columns), small(columns));
    let (positions, rule) = (small(positions), DropoutRule::of(mask));
    let kernel = gpu.kernel::<T>("residual")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(x).arg(branch).arg(out);
    launch.arg(&rows).arg(&columns).arg(&positions);
    push_mask(&mut launch, mask, &rule);
    // SAFETY: the kernel's arguments in its order, and arrays of rows * columns elements.
    unsafe { launch.launch(grid(row_blocks::<T>(len), THREADS)) }?;
    Ok(())
}

/// Multiplies `x` (R, C) by a mask in place: the embedding's dropout in both directions.
///
/// # Errors
/// The failure to start the kernel.
pub fn mask_in_place<T: GpuElement>(
    gpu: &Gpu,
    x: &mut CudaViewMut<T>,
    rows: RowShape,
    mask: MaskView,
) -> Result<(), LaunchError> {
    launch_mask(gpu, None, x, rows, mask)
}

/// Computes `out = dropout(x)`, both (R, C): the backward of [`residual_forward`] with respect to the branch.
///
/// # Errors
/// The failure to start the kernel.
pub fn mask<T: GpuElement>(
    gpu: &Gpu,
    x: &CudaView<T>,
    out: &mut CudaViewMut<T>,
    rows: RowShape,
    mask: MaskView,
) -> Result<(), LaunchError> {
    assert_eq!(x.len(), out.len());
    launch_mask(gpu, Some(x), out, rows, mask)
}

fn launch_mask<T: GpuElement>(
    gpu: &Gpu,
    x: Option<&CudaView<T>>,
    out: &mut CudaViewMut<T>,
    RowShape { columns, positions }: RowShape,
    mask: MaskView,
) -> Result<(), LaunchError> {
    let len = out.len();
    assert!(len.is_multiple_of(columns));
    let (rows, columns) = (small(len / columns), small(columns));
    let (positions, rule) = (small(positions), DropoutRule::of(Some(mask)));
    let kernel = gpu.kernel::<T>("mask")?;
    let mut launch = gpu.launch(&kernel);
    push_optional(&mut launch, x);
    launch.arg(out).arg(&rows).arg(&columns).arg(&positions);
    push_mask(&mut launch, Some(mask), &rule);
    // SAFETY: the kernel's arguments in its order, and arrays of rows * columns elements.
    unsafe { launch.launch(grid(row_blocks::<T>(len), THREADS)) }?;
    Ok(())
}
