//! From a problem, a tile and operands to a kernel that runs.

use candle_core::cuda_backend::CudaDevice;
use cudarc::driver::sys::{CUfunction_attribute as Attribute, CUresult};
use cudarc::driver::{
    CudaFunction, CudaViewMut, DevicePtrMut, DriverError, LaunchConfig, PushKernelArg,
};

use super::arguments::Arguments;
use super::operands::Operands;
use super::tile::{CardLimits, Tile, Unavailable, memory_type};
use crate::ops::gemm::Problem;
use crate::ops::kernels::{self, Kernel, KernelError};

/// Why a product was not launched. Nothing was written then.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error("{name} {what}")]
    Operand { name: &'static str, what: String },
    #[error("{split_k} slices need a workspace of {needs} elements, there are {has}")]
    Workspace {
        split_k: usize,
        needs: usize,
        has: usize,
    },
    #[error("K cannot be cut into {0} slices")]
    SplitK(usize),
    #[error("`{kernel}` was not launched: {source}")]
    Launch { kernel: String, source: DriverError },
}

impl LaunchError {
    /// Whether the driver had no memory left, for the kernel's code or its launch.
    pub fn is_out_of_memory(&self) -> bool {
        let error = match self {
            Self::Launch { source, .. } => Some(source.0),
            Self::Kernel(error) => error.status(),
            _ => None,
        };
        error == Some(CUresult::CUDA_ERROR_OUT_OF_MEMORY)
    }
}

/// What a block may ask for before its function is told otherwise: "Technical Specifications per Compute
/// Capability" of the CUDA C++ Programming Guide.
const SHARED_BYTES_WITHOUT_ASKING: usize = 48 << 10;

/// Threads of a block that adds partial sums, and what each of them makes.
const SUM_THREADS: usize = 256;
const SUM_ELEMENTS: usize = 4;

/// gridDim.y, "Technical Specifications per Compute Capability".
const MOST_SLICES: usize = 65_535;

impl CardLimits {
    /// Of a GPU that is open.
    ///
    /// # Errors
    /// [`KernelError::Limits`]
    pub fn of(device: &CudaDevice) -> Result<Self, KernelError> {
        Ok(Self {
            compute_capability: kernels::compute_capability(device)?,
            shared_bytes_per_block: kernels::shared_bytes_per_block(device)?,
        })
    }
}

/// Puts a product on the device's stream.
///
/// With `split_k` above one, K is cut into so many slices, whose sums go to the workspace
/// ([`Tile::workspace_elements`]) and are added in the order of the slices: results do not depend on chance.
///
/// # Errors
/// [`LaunchError`]; the operands are then as they were.
pub fn launch(
    device: &CudaDevice,
    problem: &Problem,
    tile: Tile,
    split_k: usize,
    operands: &mut Operands,
    workspace: Option<&mut CudaViewMut<f32>>,
) -> Result<(), LaunchError> {
    let limits = CardLimits::of(device)?;
    tile.fits_strides(problem, &limits, &operands.strides())?;
    operands.check(problem)?;
    if tile != Tile::Simple {
        operands.check_addresses()?;
    }
    let most = if tile == Tile::Simple { 1 } else { MOST_SLICES };
    if !(1..=most).contains(&split_k) {
        return Err(LaunchError::SplitK(split_k));
    }
    if problem.m == 0 || problem.n == 0 {
        return Ok(());
    }

    let stream = device.cuda_stream();
    let needs = tile.workspace_elements(problem, split_k);
    let has = workspace.as_ref().map_or(0, |workspace| workspace.len());
    if needs > has {
        return Err(LaunchError::Workspace {
            split_k,
            needs,
            has,
        });
    }
    // The guard lives until both kernels are on the stream.
    let partial = match workspace {
        Some(workspace) if needs > 0 => Some(workspace.device_ptr_mut(&stream)),
        _ => None,
    };
    let mut arguments = Arguments {
        a: operands.a.address(),
        b: operands.b.address(),
        c: operands.c.address(),
        bias: operands.bias.as_ref().map_or(0, |bias| bias.address()),
        aux: operands.aux.as_ref().map_or(0, |aux| aux.address()),
        partial: partial.as_ref().map_or(0, |(address, _)| *address),
        ..Arguments::of(problem, split_k)
    };
    let strides = operands.strides();
    arguments.row_a = strides.a as i64;
    arguments.row_b = strides.b as i64;
    arguments.row_c = strides.c as i64;
    arguments.row_aux = strides.aux.unwrap_or(0) as i64;

    // Found and loaded before the first is launched.
    let capability = limits.compute_capability;
    let product = Function::load(device, &tile.kernel(problem), capability)?;
    let sum = match split_k {
        1 => None,
        _ => {
            let name = format!("gemm_{}_split_k_sum", memory_type(problem.inputs));
            Some(Function::load(device, &name, capability)?)
        }
    };
    let grid = (tile.blocks(problem), split_k);
    let shared_bytes = tile.shared_bytes(problem.inputs);
    product.launch(device, grid, tile.threads(), shared_bytes, &arguments)?;
    if let Some(sum) = sum {
        let quads = problem.m * problem.n.div_ceil(SUM_ELEMENTS);
        let grid = (quads.div_ceil(SUM_THREADS), 1);
        sum.launch(device, grid, SUM_THREADS, 0, &arguments)?;
    }
    Ok(())
}

struct Function {
    kernel: Kernel,
    function: CudaFunction,
}

impl Function {
    fn load(device: &CudaDevice, name: &str, capability: (u32, u32)) -> Result<Self, LaunchError> {
        let kernel = Kernel::find(name, capability)?;
        let function = kernel.load(device)?;
        Ok(Self { kernel, function })
    }

    fn launch(
        &self,
        device: &CudaDevice,
        (blocks, slices): (usize, usize),
        threads: usize,
        shared_bytes: usize,
        arguments: &Arguments,
    ) -> Result<(), LaunchError> {
        let failed = |source| LaunchError::Launch {
            kernel: self.kernel.name.into(),
            source,
        };
        if shared_bytes > SHARED_BYTES_WITHOUT_ASKING {
            let limit = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            self.function
                .set_attribute(limit, shared_bytes as i32)
                .map_err(failed)?;
        }
        let limit = i32::MAX as usize;
        let blocks = u32::try_from(blocks)
            .ok()
            .filter(|blocks| *blocks as usize <= limit)
            .ok_or(Unavailable::TooLarge {
                what: "the number of blocks",
                value: blocks,
                limit,
            })?;
        let stream = device.cuda_stream();
        // SAFETY: `Arguments` is what every kernel of this folder takes. Its addresses come from matrices
        // that outlive the call, with rows and columns that were checked against their sizes; kernels read
        // and write nothing else, and only what was given for writing is written.
        unsafe {
            stream
                .launch_builder(&self.function)
                .arg(arguments)
                .launch(LaunchConfig {
                    grid_dim: (blocks, slices as u32, 1),
                    block_dim: (threads as u32, 1, 1),
                    shared_mem_bytes: shared_bytes as u32,
                })
                .map_err(failed)?;
        }
        Ok(())
    }
}
