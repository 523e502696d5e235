//! Launches of our GEMM kernels.

use cudarc::driver::{
    CudaFunction, CudaViewMut, DevicePtrMut, DriverError, LaunchConfig, PushKernelArg,
};

use super::arguments::Arguments;
use super::fits::Misfit;
use super::operands::DeviceOperands;
use super::tensor_map::TensorMap;
use super::tile::{Tile, memory_type};
use crate::ops::gemm::Problem;
use crate::ops::gemm::candidate::GemmFailure;
use crate::ops::launch::{Gpu, LaunchError, is_out_of_memory};

/// Reason that a GEMM was not launched. Nothing was written then.
#[derive(Debug, thiserror::Error)]
pub enum PtxError {
    #[error(transparent)]
    Misfit(#[from] Misfit),
    #[error(transparent)]
    Kernel(#[from] LaunchError),
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
        match self {
            Self::Launch { source, .. } => is_out_of_memory(source),
            Self::Kernel(error) => error.is_out_of_memory(),
            Self::Misfit(_) | Self::Operand { .. } | Self::Workspace { .. } | Self::SplitK(_) => {
                false
            }
        }
    }
}

/// Threads of a block that adds partial sums.
const SUM_THREADS: usize = 256;
/// Elements of C that each of these threads adds.
const SUM_ELEMENTS: usize = 4;

/// Largest gridDim.y: "Technical Specifications per Compute Capability".
const MOST_SLICES: usize = 65_535;

/// Puts a GEMM on the device's stream.
///
/// K is cut into `split_k` slices. Their partial sums go to the workspace
/// ([`Tile::workspace_elements`]) and are added in the order of the slices: the results are deterministic.
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
    check(gpu, problem, tile, split_k, operands)?;
    if problem.m == 0 || problem.n == 0 {
        return Ok(());
    }
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
        Some(workspace) if needs > 0 => Some(workspace.device_ptr_mut(gpu.stream())),
        _ => None,
    };
    let partial_address = partial.as_ref().map_or(0, |(address, _)| *address);
    let arguments = Arguments::new(problem, split_k, operands, partial_address);
    // Both are loaded before the first is launched.
    let gemm = Function::load(gpu, tile.kernel(problem), tile.shared_bytes(problem.inputs))?;
    let sum = if split_k > 1 {
        let name = format!("gemm_{}_split_k_sum", memory_type(problem.inputs));
        Some(Function::load(gpu, name, 0)?)
    } else {
        None
    };
    let maps = match tile {
        Tile::Simple | Tile::Mma(_) => None,
        Tile::Wgmma(tile) => {
            let maps = TensorMap::of_operands(problem, tile, operands);
            Some(maps.map_err(|source| gemm.failed(source))?)
        }
    };
    let grid = Grid::of_gemm(gpu, problem, tile, split_k);
    gemm.launch(gpu, &grid, &arguments, maps.as_ref())?;
    if let Some(sum) = sum {
        sum.launch(gpu, &Grid::of_sum(problem), &arguments, None)?;
    }
    Ok(())
}

/// Checks everything but the workspace, which an empty C does not need.
fn check(
    gpu: &Gpu,
    problem: &Problem,
    tile: Tile,
    split_k: usize,
    operands: &DeviceOperands,
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
    Ok(())
}

/// Grid of a launch, and the threads and dynamic shared memory of each block.
struct Grid {
    /// gridDim.x
    blocks: usize,
    /// gridDim.y: slices of K.
    slices: usize,
    threads: usize,
    shared_bytes: usize,
}

impl Grid {
    fn of_gemm(gpu: &Gpu, problem: &Problem, tile: Tile, split_k: usize) -> Self {
        let blocks = tile.blocks(problem);
        let (blocks, slices) = match tile {
            Tile::Simple | Tile::Mma(_) => (blocks, split_k),
            // Persistent blocks, one per SM, share the pieces of work among them.
            Tile::Wgmma(_) => ((blocks * split_k).min(gpu.sm_count()), 1),
        };
        Self {
            blocks,
            slices,
            threads: tile.threads(),
            shared_bytes: tile.shared_bytes(problem.inputs),
        }
    }

    /// Grid of the kernel that adds the partial sums.
    fn of_sum(problem: &Problem) -> Self {
        let quads = problem.m * problem.n.div_ceil(SUM_ELEMENTS);
        Self {
            blocks: quads.div_ceil(SUM_THREADS),
            slices: 1,
            threads: SUM_THREADS,
            shared_bytes: 0,
        }
    }

    fn config(&self) -> Result<LaunchConfig, Misfit> {
        let limit = i32::MAX as usize;
        if self.blocks > limit {
            return Err(Misfit::TooLarge {
                what: "the number of blocks",
                value: self.blocks,
                limit,
            });
        }
        Ok(LaunchConfig {
            grid_dim: (self.blocks as u32, self.slices as u32, 1),
            block_dim: (self.threads as u32, 1, 1),
            shared_mem_bytes: self.shared_bytes as u32,
        })
    }
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
        grid: &Grid,
        arguments: &Arguments,
        maps: Option<&[TensorMap; 2]>,
    ) -> Result<(), PtxError> {
        let config = grid.config()?;
        let mut builder = gpu.stream().launch_builder(&self.function);
        builder.arg(arguments);
        for map in maps.into_iter().flatten() {
            builder.arg(map);
        }
        // SAFETY: every kernel of this folder takes `Arguments`, and `gemm_wgmma` two maps of A and B. The
        // addresses are those of matrices that outlive the call, whose rows and columns were checked against
        // their sizes. Kernels read and write nothing else, and write only what was given for writing.
        unsafe { builder.launch(config) }.map_err(|source| self.failed(source))?;
        Ok(())
    }
}
