//! Causal self-attention on a GPU, by `kernels/attention*`: see [`crate::ops::cpu::attention`].
//!
//! Arrays start at multiples of 16 bytes. lse is fp32 in every precision.

use cudarc::driver::{CudaView, CudaViewMut, DeviceRepr, LaunchConfig, PushKernelArg};

use super::dropout::{DropoutRule, MaskView, push_mask};
use crate::ops::backend::Shape;
use crate::ops::launch::{Gpu, GpuElement, LaunchError, THREADS, grid, small};
use crate::ops::partition::ATTENTION_STATISTICS;
use crate::terms::Precision;

pub use crate::ops::partition::gpu_attention_len as scratch_len;

/// Largest head size that has kernels.
pub const MAX_HEAD_SIZE: usize = 128;

/// Sizes of a call, for its kernels. `AttentionShape` of kernels/attention.cuh is the same struct.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct AttentionShape {
    positions: i32,
    heads: i32,
    head_size: i32,
    scale: f32,
}

// SAFETY: plain numbers in C's layout.
unsafe impl DeviceRepr for AttentionShape {}

impl AttentionShape {
    pub(super) fn of(shape: Shape) -> Self {
        Self {
            positions: small(shape.positions),
            heads: small(shape.heads),
            head_size: small(shape.head_size),
            scale: (1.0 / (shape.head_size as f64).sqrt()) as f32,
        }
    }
}

impl Shape {
    /// Rows of all heads: B * H * T.
    fn rows(self) -> usize {
        self.sequences * self.heads * self.positions
    }
}

/// Bytes of the statistics of one row, in fp32.
const STATISTICS_BYTES: usize = ATTENTION_STATISTICS * size_of::<f32>();

/// Kernels of one head size and type, and their launch parameters.
struct Kernels {
    forward: &'static str,
    backward_keys: &'static str,
    backward_queries: &'static str,
    /// Queries or keys of a block.
    tile: usize,
    threads: usize,
    /// Shared memory of a block of the forward.
    forward_bytes: usize,
    /// Shared memory of a block of the backward.
    backward_bytes: usize,
    /// Whether the forward computes the last queries alone in a grid of fewer blocks.
    takes_last: bool,
}

/// Builds [`Kernels`] whose names end in `$end`.
macro_rules! named {
    ($end:literal, $rest:expr) => {
        Kernels {
            forward: concat!("attention_forward_", $end),
            backward_keys: concat!("attention_backward_keys_", $end),
            backward_queries: concat!("attention_backward_queries_", $end),
            ..$rest
        }
    };
}

impl Kernels {
    /// Kernels on tensor cores, if `T` and the head size have them and they fit the GPU; else on plain CUDA cores.
    fn of<T: GpuElement>(gpu: &Gpu, shape: Shape, dropout: bool) -> Result<Self, LaunchError> {
        if T::PRECISION != Precision::Float32
            && let Some(kernels) = Self::on_tensor_cores(shape.head_size, dropout)
            && kernels.backward_bytes <= gpu.limits().shared_bytes_per_block
        {
            return Ok(kernels);
        }
        Ok(match shape.head_size {
            1..=64 => named!("simple64", Self::simple(32)),
            65..=MAX_HEAD_SIZE => named!("simple128", Self::simple(16)),
            size => panic!("a head size of {size}, where kernels end at {MAX_HEAD_SIZE}"),
        })
    }

    /// Kernels on tensor cores, for the head sizes that GPTs have and two smaller ones.
    fn on_tensor_cores(head_size: usize, dropout: bool) -> Option<Self> {
        let tiles = Self::tensor_core_tiles(head_size);
        Some(match (head_size, dropout) {
            (16, false) => named!("16", tiles),
            (32, false) => named!("32", tiles),
            (64, false) => named!("64", tiles),
            (80, false) => named!("80", tiles),
            (96, false) => named!("96", tiles),
            (128, false) => named!("128", tiles),
            (16, true) => named!("dropout_16", tiles),
            (32, true) => named!("dropout_32", tiles),
            (64, true) => named!("dropout_64", tiles),
            (80, true) => named!("dropout_80", tiles),
            (96, true) => named!("dropout_96", tiles),
            (128, true) => named!("dropout_128", tiles),
            _ => return None,
        })
    }

    fn simple(tile: usize) -> Self {
        Self {
            forward: "",
            backward_keys: "",
            backward_queries: "",
            tile,
            threads: THREADS,
            forward_bytes: 0,
            backward_bytes: 0,
            takes_last: true,
        }
    }

    /// Tiles and shared memory of kernels/attention_forward.cuh and kernels/attention_backward.cuh.
    fn tensor_core_tiles(head_size: usize) -> Self {
        let row_bytes = 2 * head_size;
        let (tile, keys) = if head_size <= 64 { (128, 64) } else { (64, 32) };
        let passing = 32;
        // Two stages: one is read while the other fills.
        let stage_bytes = 2 * passing * row_bytes + passing * STATISTICS_BYTES;
        Self {
            tile,
            threads: 128,
            forward_bytes: (tile + 2 * 2 * keys) * row_bytes,
            backward_bytes: 2 * tile * row_bytes + 2 * stage_bytes,
            takes_last: false,
            ..Self::simple(0)
        }
    }

    /// Launch of a block for every tile with a row from `first` on, of every head of every sequence.
    fn grid(&self, shape: Shape, first: usize, shared_bytes: usize) -> LaunchConfig {
        let blocks = [
            shape.positions.div_ceil(self.tile) - first / self.tile,
            shape.heads,
            shape.sequences,
        ];
        let [x, y, z] = blocks.map(|blocks| small(blocks) as u32);
        LaunchConfig {
            grid_dim: (x, y, z),
            block_dim: (small(self.threads) as u32, 1, 1),
            shared_mem_bytes: small(shared_bytes) as u32,
        }
    }
}

/// Computes `out` (B, T, C) and `lse` (B, H, T) from `qkv` (B, T, 3C), for the queries from `first` on and those that
/// share a tile with them; on tensor cores for all of them. `dropout` is that of [`DropoutSite::Attention`] with head 0.
///
/// [`DropoutSite::Attention`]: crate::ops::backend::DropoutSite::Attention
///
/// # Errors
/// The failure to start the kernel.
///
/// # Panics
/// If a length is wrong, or a head larger than [`MAX_HEAD_SIZE`].
pub fn forward<T: GpuElement>(
    gpu: &Gpu,
    shape: Shape,
    first: usize,
    dropout: Option<MaskView>,
    qkv: &CudaView<T>,
    out: &mut CudaViewMut<T>,
    lse: &mut CudaViewMut<f32>,
) -> Result<(), LaunchError> {
    let len = shape.rows() * shape.head_size;
    assert_eq!(qkv.len(), 3 * len, "packed queries, keys, values");
    assert_eq!(out.len(), len, "attention output");
    assert_eq!(lse.len(), shape.rows(), "log-sum-exp of attention");
    let kernels = Kernels::of::<T>(gpu, shape, dropout.is_some())?;
    let first = if kernels.takes_last { first } else { 0 };
    let (sizes, rule) = (AttentionShape::of(shape), DropoutRule::of(dropout));
    let kernel = gpu.kernel::<T>(kernels.forward)?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(qkv).arg(out).arg(lse).arg(&sizes);
    push_mask(&mut launch, dropout, &rule);
    // SAFETY: the kernel's arguments in its order, and arrays of the lengths that were checked.
    unsafe { launch.launch(kernels.grid(shape, first, kernels.forward_bytes)) }?;
    Ok(())
}

/// Input and saved results of the forward.
#[derive(Clone, Copy)]
pub struct AttentionSavedViews<'a, T> {
    pub qkv: &'a CudaView<'a, T>,   // (B, T, 3C)
    pub out: &'a CudaView<'a, T>,   // (B, T, C)
    pub lse: &'a CudaView<'a, f32>, // (B, H, T)
}

/// Computes `dqkv` (B, T, 3C) from `dout` (B, T, C). `scratch` has [`scratch_len`] elements.
///
/// # Errors
/// The failure to start a kernel.
///
/// # Panics
/// If a length is wrong, or a head larger than [`MAX_HEAD_SIZE`].
pub fn backward<T: GpuElement>(
    gpu: &Gpu,
    shape: Shape,
    dropout: Option<MaskView>,
    dout: &CudaView<T>,
    saved: AttentionSavedViews<T>,
    dqkv: &mut CudaViewMut<T>,
    scratch: &mut CudaViewMut<f32>,
) -> Result<(), LaunchError> {
    let len = shape.rows() * shape.head_size;
    let AttentionSavedViews { qkv, out, lse } = saved;
    assert_eq!(qkv.len(), 3 * len, "packed queries, keys, values");
    assert_eq!(dqkv.len(), 3 * len, "gradient of qkv");
    assert_eq!(out.len(), len, "attention output");
    assert_eq!(dout.len(), len, "gradient of attention");
    assert_eq!(lse.len(), shape.rows(), "log-sum-exp of attention");
    assert_eq!(scratch.len(), scratch_len(shape), "scratch of attention");
    row_statistics(gpu, shape, dout, saved, scratch)?;
    let kernels = Kernels::of::<T>(gpu, shape, dropout.is_some())?;
    let (sizes, rule) = (AttentionShape::of(shape), DropoutRule::of(dropout));
    let statistics = scratch.as_view();
    for operation in [kernels.backward_keys, kernels.backward_queries] {
        let kernel = gpu.kernel_with_shared::<T>(operation, kernels.backward_bytes)?;
        let mut launch = gpu.launch(&kernel);
        launch
            .arg(qkv)
            .arg(dout)
            .arg(&statistics)
            .arg(&mut *dqkv)
            .arg(&sizes);
        push_mask(&mut launch, dropout, &rule);
        // SAFETY: as in `forward`. One writes the keys' and values' parts of dqkv, the other the queries'.
        unsafe { launch.launch(kernels.grid(shape, 0, kernels.backward_bytes)) }?;
    }
    Ok(())
}

/// Writes the statistics of every row that the backward reads into `scratch`.
fn row_statistics<T: GpuElement>(
    gpu: &Gpu,
    shape: Shape,
    dout: &CudaView<T>,
    saved: AttentionSavedViews<T>,
    scratch: &mut CudaViewMut<f32>,
) -> Result<(), LaunchError> {
    const LANES_PER_ROW: usize = 8;
    let (sizes, rows) = (AttentionShape::of(shape), shape.rows() as i64);
    let kernel = gpu.kernel::<T>("attention_row_statistics")?;
    let mut launch = gpu.launch(&kernel);
    launch
        .arg(saved.lse)
        .arg(saved.out)
        .arg(dout)
        .arg(scratch)
        .arg(&sizes)
        .arg(&rows);
    let blocks = shape.rows().div_ceil(THREADS / LANES_PER_ROW);
    // SAFETY: as in `forward`.
    unsafe { launch.launch(grid(blocks, THREADS)) }?;
    Ok(())
}
