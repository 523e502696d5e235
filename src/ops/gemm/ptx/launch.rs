//! From a problem, a tile and operands to a kernel that runs.

use cudarc::driver::sys::CUresult;
use cudarc::driver::{
    CudaFunction, CudaViewMut, DevicePtrMut, DriverError, LaunchConfig, PushKernelArg,
};

use super::arguments::Arguments;
use super::fits::Misfit;
use super::operands::DeviceOperands;
use super::tensor_map::TensorMap;
use super::tile::{Tile, memory_type};
use crate::ops::cuda::{self, Gpu};
use crate::ops::gemm::Problem;
use crate::ops::gemm::candidate::GemmFailure;

/// Why a product was not launched. Nothing was written then.
#[derive(Debug, thiserror::Error)]
pub enum PtxError {
    #[error(transparent)]
    Misfit(#[from] Misfit),
    #[error(transparent)]
    Kernel(#[from] cuda::LaunchError),
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

impl GemmFailure for PtxError {
    /// Whether the driver had no memory left, for the kernel's code or its launch.
    fn is_out_of_memory(&self) -> bool {
        let error = match self {
            Self::Launch { source, .. } => Some(source.0),
            Self::Kernel(error) => return error.is_out_of_memory(),
            _ => None,
        };
        error == Some(CUresult::CUDA_ERROR_OUT_OF_MEMORY)
    }
}

/// Threads of a block that adds partial sums, and what each of them makes.
const SUM_THREADS: usize = 256;
const SUM_ELEMENTS: usize = 4;

/// gridDim.y, "Technical Specifications per Compute Capability".
const MOST_SLICES: usize = 65_535;

/// Puts a product on the device's stream.
///
/// With `split_k` above one, K is cut into so many slices, whose sums go to the workspace
/// ([`Tile::workspace_elements`]) and are added in the order of the slices: results do not depend on chance.
///
/// # Errors
/// [`PtxError`]; the operands are then as they were.
pub fn launch(
    gpu: &Gpu,
    problem: &Problem,
    tile: Tile,
    split_k: usize,
    operands: &mut DeviceOperands,
    workspace: Option<&mut CudaViewMut<f32>>,
) -> Result<(), PtxError> {
    tile.fits_strides(problem, gpu.limits(), &operands.strides())?;
    operands.check(problem)?;
    if tile != Tile::Simple {
        operands.check_addresses()?;
    }
    let most = match tile {
        Tile::Simple => 1,
        Tile::Mma(_) => MOST_SLICES,
        // None of its slices may be empty.
        Tile::Wgmma(_) => problem.k.div_ceil(tile.step()),
    };
    if !(1..=most).contains(&split_k) {
        return Err(PtxError::SplitK(split_k));
    }
    if problem.m == 0 || problem.n == 0 {
        return Ok(());
    }

    let stream = gpu.stream();
    let needs = tile.workspace_elements(problem, split_k);
    let has = workspace.as_ref().map_or(0, |workspace| workspace.len());
    if needs > has {
        return Err(PtxError::Workspace {
            split_k,
            needs,
            has,
        });
    }
    // The guard lives until both kernels are on the stream.
    let partial = match workspace {
        Some(workspace) if needs > 0 => Some(workspace.device_ptr_mut(stream)),
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
    let shared_bytes = tile.shared_bytes(problem.inputs);
    let product = Function::load(gpu, tile.kernel(problem), shared_bytes)?;
    let sum = match split_k {
        1 => None,
        _ => {
            let name = format!("gemm_{}_split_k_sum", memory_type(problem.inputs));
            Some(Function::load(gpu, name, 0)?)
        }
    };
    let launched = Launched {
        grid: match tile {
            Tile::Wgmma(_) => {
                // Blocks that stay, one per SM, share the pieces of work among them.
                let pieces = tile.blocks(problem) * split_k;
                (pieces.min(gpu.sm_count()), 1)
            }
            _ => (tile.blocks(problem), split_k),
        },
        threads: tile.threads(),
        shared_bytes,
    };
    let maps = match tile {
        Tile::Wgmma(tile) => {
            let addresses = [arguments.a, arguments.b];
            let maps = TensorMap::of_operands(problem, tile, addresses, [strides.a, strides.b]);
            Some(maps.map_err(|source| product.failed(source))?)
        }
        _ => None,
    };
    product.launch(gpu, &launched, &arguments, maps.as_ref())?;
    if let Some(sum) = sum {
        let quads = problem.m * problem.n.div_ceil(SUM_ELEMENTS);
        let launched = Launched {
            grid: (quads.div_ceil(SUM_THREADS), 1),
            threads: SUM_THREADS,
            shared_bytes: 0,
        };
        sum.launch(gpu, &launched, &arguments, None)?;
    }
    Ok(())
}

/// What a launch has besides its arguments.
struct Launched {
    /// Blocks, and slices of K.
    grid: (usize, usize),
    threads: usize,
    shared_bytes: usize,
}

struct Function {
    name: String,
    function: CudaFunction,
}

impl Function {
    fn load(gpu: &Gpu, name: String, shared_bytes: usize) -> Result<Self, PtxError> {
        let function = gpu.kernel_named(&name, shared_bytes)?;
        Ok(Self { name, function })
    }

    fn failed(&self, source: DriverError) -> PtxError {
        PtxError::Launch {
            kernel: self.name.clone(),
            source,
        }
    }

    fn launch(
        &self,
        gpu: &Gpu,
        launched: &Launched,
        arguments: &Arguments,
        maps: Option<&[TensorMap; 2]>,
    ) -> Result<(), PtxError> {
        let failed = |source| self.failed(source);
        let Launched {
            grid: (blocks, slices),
            threads,
            shared_bytes,
        } = *launched;
        let limit = i32::MAX as usize;
        let blocks = u32::try_from(blocks)
            .ok()
            .filter(|blocks| *blocks as usize <= limit)
            .ok_or(Misfit::TooLarge {
                what: "the number of blocks",
                value: blocks,
                limit,
            })?;
        let mut builder = gpu.stream().launch_builder(&self.function);
        builder.arg(arguments);
        for map in maps.into_iter().flatten() {
            builder.arg(map);
        }
        // SAFETY: `Arguments` is what every kernel of this folder takes, and `gemm_wgmma` two maps of A and B. Its addresses come from matrices
        // that outlive the call, with rows and columns that were checked against their sizes; kernels read
        // and write nothing else, and only what was given for writing is written.
        unsafe {
            builder
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
