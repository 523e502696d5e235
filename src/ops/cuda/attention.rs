//! Causal self-attention, as [`crate::ops::attention`] has it; the kernels are `kernels/attention*`.
//!
//! Arrays start at multiples of 16 bytes. lse is fp32 in every precision.

use cudarc::driver::sys::CUfunction_attribute;
use cudarc::driver::{CudaView, CudaViewMut, DeviceRepr, LaunchConfig, PushKernelArg};

use super::dropout::{Mask, Rule, push_mask};
use super::launch::{Gpu, LaunchError, grid, small};
use super::{GpuElement, THREADS};
use crate::memory::Precision;
use crate::ops::attention::Shape;

/// The largest head size that there are kernels for.
pub const MAX_HEAD_SIZE: usize = 128;

/// kernels/attention.cuh has the same struct.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sizes {
    positions: i32,
    heads: i32,
    head_size: i32,
    scale: f32,
}

// SAFETY: plain numbers in C's layout.
unsafe impl DeviceRepr for Sizes {}

impl Sizes {
    fn of(shape: Shape) -> Self {
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

/// Elements of the scratch of [`backward`]: two for every row of every head.
pub fn scratch_len(shape: Shape) -> usize {
    2 * shape.rows()
}

/// The kernels of one head size and type, and what they are launched with.
struct Kernels {
    forward: &'static str,
    backward_keys: &'static str,
    backward_queries: &'static str,
    /// Queries, or keys, of a block.
    tile: usize,
    threads: usize,
    /// Shared memory that a launch asks for.
    forward_bytes: usize,
    backward_bytes: usize,
}

macro_rules! kernels {
    ($end:literal, $fields:expr) => {
        Kernels {
            forward: concat!("attention_forward_", $end),
            backward_keys: concat!("attention_backward_keys_", $end),
            backward_queries: concat!("attention_backward_queries_", $end),
            ..$fields
        }
    };
}

impl Kernels {
    /// 16-bit types have tensor cores for the head sizes that GPTs have. Any other size, and fp32, is left to plain
    /// CUDA cores.
    fn of<T: GpuElement>(head_size: usize, dropout: bool) -> Self {
        let wide = T::PRECISION == Precision::Float32;
        let on_tensor_cores = Self::on_tensor_cores(head_size);
        match (head_size, dropout) {
            (16, false) if !wide => kernels!("16", on_tensor_cores),
            (16, true) if !wide => kernels!("dropout_16", on_tensor_cores),
            (32, false) if !wide => kernels!("32", on_tensor_cores),
            (32, true) if !wide => kernels!("dropout_32", on_tensor_cores),
            (64, false) if !wide => kernels!("64", on_tensor_cores),
            (64, true) if !wide => kernels!("dropout_64", on_tensor_cores),
            (80, false) if !wide => kernels!("80", on_tensor_cores),
            (80, true) if !wide => kernels!("dropout_80", on_tensor_cores),
            (96, false) if !wide => kernels!("96", on_tensor_cores),
            (96, true) if !wide => kernels!("dropout_96", on_tensor_cores),
            (128, false) if !wide => kernels!("128", on_tensor_cores),
            (128, true) if !wide => kernels!("dropout_128", on_tensor_cores),
            (1..=64, _) => kernels!("simple64", Self::simple(32)),
            (65..=MAX_HEAD_SIZE, _) => kernels!("simple128", Self::simple(16)),
            _ => panic!("a head size of {head_size}, where kernels go to {MAX_HEAD_SIZE}"),
        }
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
        }
    }

    /// The tiles of kernels/attention_forward.cuh and kernels/attention_backward.cuh.
    fn on_tensor_cores(head_size: usize) -> Self {
        const STAGES: usize = 2;
        let row_bytes = head_size * 2;
        let (tile, keys) = if head_size <= 64 { (128, 64) } else { (64, 32) };
        let passing = 32; // rows, of each of two arrays
        let statistics_bytes = passing * 8;
        Self {
            tile,
            threads: 128,
            forward_bytes: (tile + STAGES * 2 * keys) * row_bytes,
            backward_bytes: 2 * tile * row_bytes
                + STAGES * (2 * passing * row_bytes + statistics_bytes),
            ..Self::simple(0)
        }
    }

    /// A block for every tile, of every head, of every sequence.
    fn grid(&self, shape: Shape, shared_bytes: usize) -> LaunchConfig {
        let blocks = [
            shape.positions.div_ceil(self.tile),
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

/// `out` (B, T, C) and `lse` (B, H, T) from `qkv` (B, T, 3C). `dropout` is that of [`Site::Attention`] with head 0.
///
/// [`Site::Attention`]: crate::ops::dropout::Site::Attention
///
/// # Errors
/// When the kernel does not start.
///
/// # Panics
/// If a length is wrong, or a head larger than [`MAX_HEAD_SIZE`].
pub fn forward<T: GpuElement>(
    gpu: &Gpu,
    shape: Shape,
    dropout: Option<Mask>,
    qkv: &CudaView<T>,
    out: &mut CudaViewMut<T>,
    lse: &mut CudaViewMut<f32>,
) -> Result<(), LaunchError> {
    let len = shape.rows() * shape.head_size;
    assert_eq!(qkv.len(), 3 * len, "packed queries, keys, values");
    assert_eq!(out.len(), len, "attention output");
    assert_eq!(lse.len(), shape.rows(), "log-sum-exp of attention");
    let kernels = Kernels::of::<T>(shape.head_size, dropout.is_some());
    let (sizes, rule) = (Sizes::of(shape), Rule::of(dropout));
    let kernel = gpu.kernel::<T>(kernels.forward)?;
    let mut launch = gpu.launch(&kernel);
    launch.arg(qkv).arg(out).arg(lse).arg(&sizes);
    push_mask(&mut launch, dropout, &rule);
    // SAFETY: the kernel's arguments in its order, and arrays of the lengths that were checked.
    unsafe { launch.launch(kernels.grid(shape, kernels.forward_bytes)) }?;
    Ok(())
}

/// What the forward read and saved.
#[derive(Clone, Copy)]
pub struct Saved<'a, T> {
    pub qkv: &'a CudaView<'a, T>,   // (B, T, 3C)
    pub out: &'a CudaView<'a, T>,   // (B, T, C)
    pub lse: &'a CudaView<'a, f32>, // (B, H, T)
}

/// `dqkv` (B, T, 3C) from `dout` (B, T, C). `scratch` has [`scratch_len`] elements.
///
/// # Errors
/// When a kernel does not start.
///
/// # Panics
/// As [`forward`].
pub fn backward<T: GpuElement>(
    gpu: &Gpu,
    shape: Shape,
    dropout: Option<Mask>,
    dout: &CudaView<T>,
    saved: Saved<T>,
    dqkv: &mut CudaViewMut<T>,
    scratch: &mut CudaViewMut<f32>,
) -> Result<(), LaunchError> {
    let len = shape.rows() * shape.head_size;
    let Saved { qkv, out, lse } = saved;
    assert_eq!(qkv.len(), 3 * len, "packed queries, keys, values");
    assert_eq!(dqkv.len(), 3 * len, "gradient of qkv");
    assert_eq!(out.len(), len, "attention output");
    assert_eq!(dout.len(), len, "gradient of attention");
    assert_eq!(lse.len(), shape.rows(), "log-sum-exp of attention");
    assert_eq!(scratch.len(), scratch_len(shape), "scratch of attention");
    row_statistics(gpu, shape, dout, saved, scratch)?;
    let kernels = Kernels::of::<T>(shape.head_size, dropout.is_some());
    let (sizes, rule) = (Sizes::of(shape), Rule::of(dropout));
    let statistics = scratch.as_view();
    for operation in [kernels.backward_keys, kernels.backward_queries] {
        let kernel = gpu.kernel::<T>(operation)?;
        // Beyond 48 KiB, a kernel must be told.
        kernel.set_attribute(
            CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
            small(kernels.backward_bytes),
        )?;
        let mut launch = gpu.launch(&kernel);
        launch
            .arg(qkv)
            .arg(dout)
            .arg(&statistics)
            .arg(&mut *dqkv)
            .arg(&sizes);
        push_mask(&mut launch, dropout, &rule);
        // SAFETY: as in `forward`. One writes the keys' and values' parts of dqkv, the other the queries'.
        unsafe { launch.launch(kernels.grid(shape, kernels.backward_bytes)) }?;
    }
    Ok(())
}

/// What the backward needs to know of every row, into `scratch`.
fn row_statistics<T: GpuElement>(
    gpu: &Gpu,
    shape: Shape,
    dout: &CudaView<T>,
    saved: Saved<T>,
    scratch: &mut CudaViewMut<f32>,
) -> Result<(), LaunchError> {
    const LANES_PER_ROW: usize = 8;
    let (sizes, rows) = (Sizes::of(shape), shape.rows() as i64);
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
