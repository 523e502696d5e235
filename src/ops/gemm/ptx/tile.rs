//! Our kernels by their tiles.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use crate::ops::gemm::{Layout, Problem};
use crate::terms::{GpuInputs, Inputs, Precision};

/// A kernel, up to types and transposes, which the problem decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tile {
    /// kernels/gemm_simple.cu: every problem on every GPU, in fp32 arithmetic on CUDA cores.
    Simple,
    /// kernels/gemm_mma.cuh: tensor cores by `mma.sync`.
    Mma(Mma),
    /// kernels/gemm_wgmma.cuh: tensor cores of compute capability 9.0 by `wgmma`, fed by the copy engine.
    Wgmma(Wgmma),
}

/// Each block computes 128 x BN of C, with K in steps of 64 through `stages` buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Wgmma {
    pub bn: usize,
    pub stages: usize,
}

impl Wgmma {
    pub const BM: usize = 128;
    pub const BK: usize = 64;
    /// One warpgroup copies, two multiply.
    const THREADS: usize = 384;
    /// Staging of the sums of the 8 warps that multiply: 16 rows of 32 sums each, padded by 8.
    const SUM_BYTES: usize = 8 * 16 * (32 + 8) * size_of::<f32>();
    /// Two barriers per buffer.
    const BARRIER_BYTES: usize = 2 * size_of::<u64>();
}

/// Each block computes BM x BN of C, each warp WM x WN, with K in steps of BK through `stages` buffers. All sizes
/// are in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mma {
    pub bm: usize,
    pub bn: usize,
    pub bk: usize,
    pub wm: usize,
    pub wn: usize,
    pub stages: usize,
}

const fn mma(bm: usize, bn: usize, bk: usize, wm: usize, wn: usize, stages: usize) -> Tile {
    Tile::Mma(Mma {
        bm,
        bn,
        bk,
        wm,
        wn,
        stages,
    })
}

/// kernels/gemm_mma_bf16.cu and gemm_mma_f16.cu
const SIXTEEN_BITS: [Tile; 12] = [
    mma(128, 256, 32, 64, 64, 4),
    mma(256, 128, 32, 64, 64, 4),
    mma(128, 256, 64, 64, 64, 3),
    mma(256, 128, 64, 64, 64, 3),
    mma(128, 128, 32, 64, 64, 4),
    mma(128, 128, 64, 64, 32, 3),
    mma(128, 64, 32, 64, 32, 4),
    mma(128, 64, 64, 64, 32, 3),
    mma(64, 128, 32, 32, 64, 4),
    mma(64, 128, 64, 32, 64, 3),
    mma(64, 64, 32, 32, 32, 4),
    mma(64, 64, 64, 32, 32, 3),
];

/// kernels/gemm_wgmma_bf16.cu and gemm_wgmma_f16.cu
const WGMMA: [Tile; 2] = [
    Tile::Wgmma(Wgmma { bn: 256, stages: 4 }),
    Tile::Wgmma(Wgmma { bn: 128, stages: 6 }),
];

/// kernels/gemm_mma_tf32.cu
const TF32: [Tile; 6] = [
    mma(128, 128, 16, 64, 32, 4),
    mma(128, 128, 32, 64, 32, 3),
    mma(128, 64, 32, 64, 32, 3),
    mma(64, 128, 32, 32, 64, 3),
    mma(64, 64, 16, 32, 32, 4),
    mma(64, 64, 32, 32, 32, 3),
];

/// kernels/gemm_mma_f16_turing.cu
const TURING: [Tile; 4] = [
    mma(128, 128, 32, 64, 32, 2),
    mma(128, 64, 32, 64, 32, 2),
    mma(64, 128, 32, 32, 64, 2),
    mma(64, 64, 32, 32, 32, 2),
];

/// First compute capability with `cp.async`, bf16 and tf32.
pub(super) const AMPERE: (u32, u32) = (8, 0);
/// The only compute capability with `wgmma`.
pub(super) const HOPPER: (u32, u32) = (9, 0);
/// Oldest compute capability that nvcc 13 compiles for.
pub(super) const TURING_CAPABILITY: (u32, u32) = (7, 5);

impl Tile {
    /// Every tile for inputs of a type, whatever the card. The first is [`Tile::Simple`], which always runs.
    pub fn all(inputs: Inputs) -> impl Iterator<Item = Tile> {
        let lists: [&[Tile]; 3] = match inputs.on_gpu() {
            None | Some(GpuInputs::Float32) => [&[], &[], &[]],
            Some(GpuInputs::Tf32) => [&TF32, &[], &[]],
            Some(GpuInputs::Bfloat16) => [&WGMMA, &SIXTEEN_BITS, &[]],
            Some(GpuInputs::Float16) => [&WGMMA, &SIXTEEN_BITS, &TURING],
        };
        let tensor_cores = lists.into_iter().flatten().copied();
        std::iter::once(Tile::Simple).chain(tensor_cores)
    }

    /// Oldest compute capability that can run the kernel.
    pub(super) fn compute_capability(&self) -> (u32, u32) {
        match self {
            Tile::Wgmma(_) => HOPPER,
            Tile::Mma(tile) if tile.stages > 2 => AMPERE,
            Tile::Simple | Tile::Mma(_) => TURING_CAPABILITY,
        }
    }

    /// Dynamic shared memory of a block. The simple kernel has static shared memory only.
    pub fn shared_bytes(&self, inputs: Inputs) -> usize {
        match self {
            Tile::Simple => 0,
            Tile::Mma(tile) => {
                tile.stages * (tile.bm + tile.bn) * tile.bk * inputs.element_bytes() as usize
            }
            Tile::Wgmma(tile) => {
                let rows = Wgmma::BM + tile.bn;
                let buffer = rows * Wgmma::BK * inputs.element_bytes() as usize;
                tile.stages * (buffer + Wgmma::BARRIER_BYTES) + Wgmma::SUM_BYTES
            }
        }
    }

    /// Rows and columns of C that a block computes.
    pub fn block(&self) -> (usize, usize) {
        match self {
            Tile::Simple => (64, 64),
            Tile::Mma(tile) => (tile.bm, tile.bn),
            Tile::Wgmma(tile) => (Wgmma::BM, tile.bn),
        }
    }

    /// Elements of K in one step.
    pub fn step(&self) -> usize {
        match self {
            Tile::Simple => 16,
            Tile::Mma(tile) => tile.bk,
            Tile::Wgmma(_) => Wgmma::BK,
        }
    }

    /// Threads of a block.
    pub fn threads(&self) -> usize {
        match self {
            Tile::Simple => 256,
            Tile::Mma(tile) => tile.bm / tile.wm * (tile.bn / tile.wn) * 32,
            Tile::Wgmma(_) => Wgmma::THREADS,
        }
    }

    /// Blocks that cover C, without split-K.
    pub fn blocks(&self, problem: &Problem) -> usize {
        let (bm, bn) = self.block();
        problem.m.div_ceil(bm) * problem.n.div_ceil(bn)
    }

    /// Numbers of slices that K may be cut into, one first. More than one only while the slices do not overfill
    /// the card, and each is long enough to be worth a partial sum.
    pub fn split_k_choices(&self, problem: &Problem, sm_count: usize) -> Vec<usize> {
        const TILES_PER_SLICE: usize = 8;
        if *self == Tile::Simple {
            return vec![1];
        }
        let longest = problem.k.div_ceil(self.step()) / TILES_PER_SLICE;
        let fills = |slices: &usize| {
            *slices == 1 || (self.blocks(problem) * slices <= 2 * sm_count && *slices <= longest)
        };
        [1, 2, 3, 4, 6, 8, 12, 16]
            .into_iter()
            .filter(fills)
            .collect()
    }

    /// Elements (fp32) of the workspace that partial sums need.
    pub fn workspace_elements(&self, problem: &Problem, split_k: usize) -> usize {
        if split_k > 1 {
            split_k * problem.m * problem.n.next_multiple_of(4)
        } else {
            0
        }
    }

    /// Name of the kernel in kernels/.
    pub fn kernel(&self, problem: &Problem) -> String {
        let tile = match self {
            Tile::Simple => return format!("gemm_{}_simple", memory_type(problem.inputs)),
            Tile::Mma(tile) => tile.to_string(),
            Tile::Wgmma(tile) => format!("wgmma_{tile}"),
        };
        let inputs = if problem.inputs == Inputs::Tf32 {
            "tf32"
        } else {
            memory_type(problem.inputs)
        };
        let letter = |layout| match layout {
            Layout::AsIs => 'n',
            Layout::Transposed => 't',
        };
        let (a, b) = (letter(problem.a), letter(problem.b));
        format!("gemm_{inputs}_{tile}_{a}{b}")
    }
}

/// Name of the inputs' precision in memory. Kernels without tensor cores have no other in their names.
pub(super) fn memory_type(inputs: Inputs) -> &'static str {
    match inputs.storage() {
        Precision::Float32 => "f32",
        Precision::Bfloat16 => "bf16",
        Precision::Float16 => "f16",
    }
}

/// `128x256x32_s4`
impl Display for Mma {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}x{}x{}_s{}", self.bm, self.bn, self.bk, self.stages)
    }
}

/// `128x256x64_s4`
impl Display for Wgmma {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (bm, bk) = (Wgmma::BM, Wgmma::BK);
        write!(f, "{bm}x{}x{bk}_s{}", self.bn, self.stages)
    }
}

/// `simple`, `mma 128x256x32_s4`, `wgmma 128x256x64_s4`
impl Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Tile::Simple => f.pad("simple"),
            Tile::Mma(tile) => f.pad(&format!("mma {tile}")),
            Tile::Wgmma(tile) => f.pad(&format!("wgmma {tile}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gemm::{Epilogue, OutputType};

    fn plain([m, n, k]: [usize; 3], inputs: Inputs) -> Problem {
        Problem {
            m,
            n,
            k,
            a: Layout::AsIs,
            b: Layout::AsIs,
            inputs,
            output: OutputType::LikeInputs,
            accumulate: false,
            epilogue: Epilogue::None,
        }
    }

    #[test]
    fn k_is_cut_only_while_the_card_is_not_full_and_slices_are_long() {
        let tile = mma(64, 64, 32, 32, 32, 4);
        let choices = |size, sm_count| {
            let problem = plain(size, Inputs::Bfloat16);
            tile.split_k_choices(&problem, sm_count)
        };
        // Four blocks on 28 SMs; 64 tiles of K.
        assert_eq!(choices([128, 128, 2048], 28), [1, 2, 3, 4, 6, 8]);
        // 16 blocks.
        assert_eq!(choices([256, 256, 2048], 28), [1, 2, 3]);
        assert_eq!(choices([1024, 1024, 2048], 28), [1]);
        assert_eq!(choices([128, 128, 256], 28), [1]);
        let problem = plain([10, 6, 2048], Inputs::Bfloat16);
        assert_eq!(Tile::Simple.split_k_choices(&problem, 28), [1]);
        // Rows of eight: whole vectors of four.
        assert_eq!(tile.workspace_elements(&problem, 3), 3 * 10 * 8);
        assert_eq!(tile.workspace_elements(&problem, 1), 0);
    }
}
