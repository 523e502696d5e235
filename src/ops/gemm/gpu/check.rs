//! Fills the operands of a product and compares its results, as [`crate::ops::gemm::check`] does on the host.

use cudarc::driver::{CudaView, CudaViewMut, DeviceRepr, PushKernelArg, ValidAsZeroBits};

use crate::ops::gemm::candidate::Operand;
use crate::ops::gemm::check::{Comparison, Mismatch, Tolerance};
use crate::ops::launch::{Gpu, GpuElement, LaunchError, THREADS, grid, small};

/// Most blocks of a kernel, enough for any card; each writes one finding.
pub(super) const MOST_BLOCKS: usize = 1024;

/// The findings of a block; kernels/gemm_check.cu has the same struct.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    /// `i64::MAX` where every element is close enough.
    first: i64,
    got: f32,
    want: f32,
    largest_error: f32,
    unused: u32,
}

// SAFETY: plain numbers in C's layout, which zeros are.
unsafe impl DeviceRepr for Found {}
// SAFETY: as above.
unsafe impl ValidAsZeroBits for Found {}

impl From<Found> for Comparison {
    fn from(found: Found) -> Self {
        let Found {
            first, got, want, ..
        } = found;
        Self {
            first: (first != i64::MAX).then_some(Mismatch {
                index: first as usize,
                got,
                want,
            }),
            largest_error: found.largest_error,
        }
    }
}

/// [`Tolerance`] as the kernel takes it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Bound {
    same_bits: u32,
    absolute: f32,
    relative: f32,
    floored: f32,
    floor: f32,
}

// SAFETY: plain numbers in C's layout.
unsafe impl DeviceRepr for Bound {}

impl From<&Tolerance> for Bound {
    fn from(tolerance: &Tolerance) -> Self {
        Self {
            same_bits: tolerance.same_bits.into(),
            absolute: tolerance.absolute,
            relative: tolerance.relative,
            floored: tolerance.floored,
            floor: tolerance.floor,
        }
    }
}

/// Blocks for `count` elements of `T`, 16 bytes for every thread and more where those would be too many.
fn blocks<T>(count: usize) -> usize {
    let elements = 16 / size_of::<T>() * THREADS;
    count.div_ceil(elements).clamp(1, MOST_BLOCKS)
}

/// Sets `count` elements to [`Fill::value`](crate::ops::gemm::check::Fill::value) of an operand; `bits` are those of
/// random numbers, and 0 asks for integers.
///
/// # Safety
/// They lie at `to`, and nothing else touches them until the stream has passed here.
pub(super) unsafe fn fill<T: GpuElement>(
    gpu: &Gpu,
    to: u64,
    count: usize,
    operand: Operand,
    bits: u32,
) -> Result<(), LaunchError> {
    let (length, operand, bits) = (count as i64, operand as i32, bits as i32);
    let kernel = gpu.kernel::<T>("gemm_fill")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(&to).arg(&length).arg(&operand).arg(&bits);
    // SAFETY: the kernel's arguments in its order, and as the caller promises.
    unsafe { launch.launch(grid(blocks::<T>(count), THREADS)) }?;
    Ok(())
}

/// Copies the elements at `places` to `out`, one after the other.
///
/// # Safety
/// There are such elements at `from`.
pub(super) unsafe fn gather<T: GpuElement>(
    gpu: &Gpu,
    from: u64,
    places: &CudaView<i64>,
    out: &mut CudaViewMut<f32>,
) -> Result<(), LaunchError> {
    assert!(out.len() >= places.len());
    let count = small(places.len());
    let kernel = gpu.kernel::<T>("gemm_gather")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(&from).arg(places).arg(&count).arg(out);
    // SAFETY: the kernel's arguments in its order, and as the caller promises.
    unsafe { launch.launch(grid(1, THREADS)) }?;
    Ok(())
}

/// Compares `count` elements with as many others. Returns how many blocks do, each of which writes to `out` what it
/// found.
///
/// # Safety
/// They lie at both addresses.
pub(super) unsafe fn compare<T: GpuElement>(
    gpu: &Gpu,
    got: u64,
    want: u64,
    count: usize,
    tolerance: &Tolerance,
    out: &mut CudaViewMut<Found>,
) -> Result<usize, LaunchError> {
    let (blocks, length) = (blocks::<T>(count), count as i64);
    assert!(out.len() >= blocks);
    let bound = Bound::from(tolerance);
    let kernel = gpu.kernel::<T>("gemm_compare")?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(&got).arg(&want).arg(&length).arg(&bound);
    launch.arg(out);
    // SAFETY: the kernel's arguments in its order, and as the caller promises.
    unsafe { launch.launch(grid(blocks, THREADS)) }?;
    Ok(blocks)
}
