//! Causal self-attention on a GPU: `kernels/attention*`. [`crate::ops::attention`] is the definition.
//!
//! Arrays start at multiples of 16 bytes. Nothing waits for the GPU, and nothing is allocated.

use candle_core::cuda_backend::CudaDevice;
use cudarc::driver::{
    CudaFunction, CudaView, CudaViewMut, DeviceRepr, LaunchArgs, LaunchConfig, PushKernelArg,
};

use super::{GpuElement, LaunchError};
use crate::ops::attention::Shape;
use crate::ops::dropout::Site;
use crate::ops::kernels::{Kernel, compute_capability};
use crate::rng::{Seed, Stream};

/// The largest head size that there are kernels for.
pub const MAX_HEAD_SIZE: usize = 128;

/// Which dropout applies to the weights of this layer's attention.
#[derive(Clone, Copy)]
pub struct WeightDropout<'a> {
    /// Probability of dropping a weight, in (0, 1).
    pub p: f64,
    pub seed: Seed,
    pub layer: usize,
    /// In device memory, so that a captured step can be replayed: the step, and the index within it of the
    /// micro-batch's first sequence.
    pub moment: &'a CudaView<'a, u32>, // (2)
}

/// Elements of the scratch of [`backward`]: two for every row of every head.
pub fn scratch_len(shape: Shape) -> usize {
    2 * shape.sequences * shape.heads * shape.positions
}

/// As in kernels/attention.cuh.
#[repr(C)]
#[derive(Clone, Copy)]
struct ShapeArgument {
    positions: i32,
    heads: i32,
    head_size: i32,
    scale: f32,
}

/// As in kernels/attention.cuh.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct DropoutArgument {
    threshold: u32,
    keep: f32,
    key: [u32; 2],
    tag: u32,
}

// SAFETY: plain numbers, laid out as the kernels' structs.
unsafe impl DeviceRepr for ShapeArgument {}
// SAFETY: as above.
unsafe impl DeviceRepr for DropoutArgument {}

impl ShapeArgument {
    fn of(shape: Shape) -> Self {
        Self {
            positions: shape.positions as i32,
            heads: shape.heads as i32,
            head_size: shape.head_size as i32,
            scale: (1.0 / (shape.head_size as f64).sqrt()) as f32,
        }
    }
}

impl DropoutArgument {
    fn of(dropout: Option<WeightDropout>) -> Self {
        let Some(dropout) = dropout else {
            return Self::default();
        };
        let site = Site::Attention {
            layer: dropout.layer,
            head: 0,
        };
        Self {
            threshold: (dropout.p * 2f64.powi(32)) as u32,
            keep: (1.0 / (1.0 - dropout.p)) as f32,
            key: dropout.seed.key(),
            tag: dropout.seed.tag(Stream::Dropout, site.number()),
        }
    }
}

/// The kernels of one call.
struct Kernels<'a> {
    device: &'a CudaDevice,
    shape: Shape,
    /// How their names end.
    variant: String,
    /// Rows of a block.
    tile: usize,
    threads: u32,
}

impl<'a> Kernels<'a> {
    fn of<T: GpuElement>(
        device: &'a CudaDevice,
        shape: Shape,
        dropout: bool,
    ) -> Result<Self, LaunchError> {
        let size = shape.head_size;
        assert!(
            (1..=MAX_HEAD_SIZE).contains(&size),
            "head size {size}: the plan refuses what there is no kernel for"
        );
        let narrow = size <= 64;
        let width = if narrow { 64 } else { 128 };
        Ok(Self {
            device,
            shape,
            variant: format!("{}_simple{width}", T::SUFFIX),
            tile: if narrow { 32 } else { 16 },
            threads: 256,
        })
    }

    fn load(&self, operation: &str) -> Result<CudaFunction, LaunchError> {
        let name = format!("attention_{operation}_{}", self.variant);
        Ok(Kernel::find(&name, compute_capability(self.device)?)?.load(self.device)?)
    }

    /// A block for every tile of rows, of every head, of every sequence.
    fn grid(&self) -> LaunchConfig {
        let Shape {
            sequences,
            positions,
            heads,
            ..
        } = self.shape;
        LaunchConfig {
            grid_dim: (
                positions.div_ceil(self.tile) as u32,
                heads as u32,
                sequences as u32,
            ),
            block_dim: (self.threads, 1, 1),
            shared_mem_bytes: 0,
        }
    }
}

/// `out` (B, T, C) and `lse` (B, H, T) from `qkv` (B, T, 3C).
///
/// # Errors
/// [`LaunchError`]: no such kernel for this GPU, or the driver refuses.
pub fn forward<T: GpuElement>(
    device: &CudaDevice,
    shape: Shape,
    dropout: Option<WeightDropout>,
    qkv: &CudaView<T>,
    out: &mut CudaViewMut<T>,
    lse: &mut CudaViewMut<f32>,
) -> Result<(), LaunchError> {
    let rows = shape.sequences * shape.heads * shape.positions;
    assert_eq!(
        qkv.len(),
        3 * rows * shape.head_size,
        "packed queries, keys, values"
    );
    assert_eq!(out.len(), rows * shape.head_size, "attention output");
    assert_eq!(lse.len(), rows, "log-sum-exp of attention");
    let kernels = Kernels::of::<T>(device, shape, dropout.is_some())?;
    let function = kernels.load("forward")?;
    let (sizes, mask) = (ShapeArgument::of(shape), DropoutArgument::of(dropout));
    let stream = device.cuda_stream();
    let mut launch = stream.launch_builder(&function);
    launch.arg(qkv).arg(out).arg(lse).arg(&sizes).arg(&mask);
    push_moment(&mut launch, &dropout);
    // SAFETY: the arguments are the kernel's, and the lengths were checked.
    unsafe { launch.launch(kernels.grid()) }?;
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
/// As [`forward`].
pub fn backward<T: GpuElement>(
    device: &CudaDevice,
    shape: Shape,
    dropout: Option<WeightDropout>,
    dout: &CudaView<T>,
    saved: Saved<T>,
    dqkv: &mut CudaViewMut<T>,
    scratch: &mut CudaViewMut<f32>,
) -> Result<(), LaunchError> {
    let rows = shape.sequences * shape.heads * shape.positions;
    let Saved { qkv, out, lse } = saved;
    assert_eq!(
        qkv.len(),
        3 * rows * shape.head_size,
        "packed queries, keys, values"
    );
    assert_eq!(dqkv.len(), qkv.len(), "gradient of qkv");
    assert_eq!(out.len(), rows * shape.head_size, "attention output");
    assert_eq!(dout.len(), out.len(), "gradient of attention");
    assert_eq!(lse.len(), rows, "log-sum-exp of attention");
    assert_eq!(scratch.len(), scratch_len(shape), "scratch of attention");
    row_statistics(device, shape, dout, saved, scratch)?;
    let kernels = Kernels::of::<T>(device, shape, dropout.is_some())?;
    let (sizes, mask) = (ShapeArgument::of(shape), DropoutArgument::of(dropout));
    let stream = device.cuda_stream();
    let statistics = scratch.as_view();
    for operation in ["backward_keys", "backward_queries"] {
        let function = kernels.load(operation)?;
        let mut launch = stream.launch_builder(&function);
        launch
            .arg(qkv)
            .arg(dout)
            .arg(&statistics)
            .arg(&mut *dqkv)
            .arg(&sizes)
            .arg(&mask);
        push_moment(&mut launch, &dropout);
        // SAFETY: as in `forward`. One writes the keys' and values' part of dqkv, the other the queries'.
        unsafe { launch.launch(kernels.grid()) }?;
    }
    Ok(())
}

/// Fills `scratch` with what the backward needs of every row.
fn row_statistics<T: GpuElement>(
    device: &CudaDevice,
    shape: Shape,
    dout: &CudaView<T>,
    saved: Saved<T>,
    scratch: &mut CudaViewMut<f32>,
) -> Result<(), LaunchError> {
    const ROWS_PER_BLOCK: usize = 32;
    let name = format!("attention_row_statistics_{}", T::SUFFIX);
    let function = Kernel::find(&name, compute_capability(device)?)?.load(device)?;
    let (sizes, rows) = (ShapeArgument::of(shape), saved.lse.len());
    let count = rows as i64;
    let stream = device.cuda_stream();
    let mut launch = stream.launch_builder(&function);
    launch
        .arg(saved.lse)
        .arg(saved.out)
        .arg(dout)
        .arg(scratch)
        .arg(&sizes)
        .arg(&count);
    let grid = LaunchConfig {
        grid_dim: (rows.div_ceil(ROWS_PER_BLOCK) as u32, 1, 1),
        block_dim: (256, 1, 1),
        shared_mem_bytes: 0,
    };
    // SAFETY: as in `forward`.
    unsafe { launch.launch(grid) }?;
    Ok(())
}

/// The last argument: null where there is no dropout.
fn push_moment<'a>(launch: &mut LaunchArgs<'a>, dropout: &'a Option<WeightDropout<'a>>) {
    const NULL: &u64 = &0;
    match dropout {
        Some(dropout) => launch.arg(dropout.moment),
        None => launch.arg(NULL),
    };
}
