//! The kernels by their tiles, and where they can run.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use crate::device::Cuda;
use crate::ops::gemm::{Epilogue, Inputs, OutputType, Problem, Stored};

/// A kernel but for types and transposes, which the problem decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tile {
    /// kernels/gemm_simple.cu: every problem on every GPU, in fp32 arithmetic on CUDA cores.
    Simple,
    /// kernels/gemm_mma.cuh: tensor cores by `mma.sync`.
    Mma(Mma),
}

/// BM x BN of C are made by a block, WM x WN by a warp, with K by BK through `stages` buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mma {
    pub bm: usize,
    pub bn: usize,
    /// In elements, as all.
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

/// What a GPU must have, and where it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CardLimits {
    /// (major, minor)
    pub compute_capability: (u32, u32),
    /// The most that one block may ask for.
    pub shared_bytes_per_block: usize,
}

impl From<&Cuda> for CardLimits {
    fn from(card: &Cuda) -> Self {
        Self {
            compute_capability: card.compute_capability,
            shared_bytes_per_block: card.shared_memory_per_block_bytes as usize,
        }
    }
}

/// Why a kernel cannot compute a problem on a card. A value, not a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    #[error("needs compute capability {}.{}, this GPU has {}.{}", .needs.0, .needs.1, .has.0, .has.1)]
    ComputeCapability { needs: (u32, u32), has: (u32, u32) },
    #[error("made for compute capability 7.5; this GPU has better ones")]
    ForOlderGpus,
    #[error("needs {needs} bytes of shared memory per block, this GPU has {has}")]
    SharedMemory { needs: usize, has: usize },
    #[error("no such tile for these inputs")]
    Inputs,
    #[error("rows of {what} must be whole multiples of {multiple} elements, not {elements}")]
    Alignment {
        what: &'static str,
        elements: usize,
        multiple: usize,
    },
    #[error("{what} is {value}, more than {limit}")]
    TooLarge {
        what: &'static str,
        value: usize,
        limit: usize,
    },
}

/// The compute capability that has `cp.async`, bf16 and tf32.
const AMPERE: (u32, u32) = (8, 0);
/// What nvcc 13 compiles for at the oldest.
const TURING_CAPABILITY: (u32, u32) = (7, 5);

/// What an instruction of these kernels moves at most, and what it must be aligned to.
pub(super) const VECTOR_BYTES: usize = 16;

impl Tile {
    /// Every tile for inputs of a type, on whatever card; the one that always runs is the first.
    pub fn all(inputs: Inputs) -> impl Iterator<Item = Tile> {
        let (ampere, turing): (&[Tile], &[Tile]) = match inputs {
            Inputs::Float32 => (&[], &[]),
            Inputs::Tf32 => (&TF32, &[]),
            Inputs::Bfloat16 => (&SIXTEEN_BITS, &[]),
            Inputs::Float16 => (&SIXTEEN_BITS, &TURING),
        };
        let tensor_cores = ampere.iter().chain(turing).copied();
        std::iter::once(Tile::Simple).chain(tensor_cores)
    }

    /// Whether this kernel can compute a problem on a card; rows are taken to lie one after the other.
    ///
    /// # Errors
    /// What is missing.
    pub fn fits(&self, problem: &Problem, limits: &CardLimits) -> Result<(), Unavailable> {
        let aux = matches!(
            problem.epilogue,
            Epilogue::BiasGelu(_) | Epilogue::GeluBackward(_)
        );
        self.fits_strides(
            problem,
            limits,
            &Strides {
                a: problem.a_shape().1,
                b: problem.b_shape().1,
                c: problem.n,
                aux: aux.then_some(problem.n),
            },
        )
    }

    /// As [`Tile::fits`], for operands whose rows lie further apart.
    pub(super) fn fits_strides(
        &self,
        problem: &Problem,
        limits: &CardLimits,
        strides: &Strides,
    ) -> Result<(), Unavailable> {
        let needs = self.compute_capability();
        let has = limits.compute_capability;
        if !Tile::all(problem.inputs).any(|tile| tile == *self) {
            return Err(Unavailable::Inputs);
        }
        if has < needs {
            return Err(Unavailable::ComputeCapability { needs, has });
        }
        if matches!(self, Tile::Mma(_)) && needs < AMPERE && has >= AMPERE {
            return Err(Unavailable::ForOlderGpus);
        }
        let needs = self.shared_bytes(problem.inputs);
        let has = limits.shared_bytes_per_block;
        if needs > has {
            return Err(Unavailable::SharedMemory { needs, has });
        }
        // Kernels count rows and columns, padded to tiles, in 32 bits.
        let limit = (i32::MAX / 2) as usize;
        for (what, value) in [("M", problem.m), ("N", problem.n), ("K", problem.k)] {
            if value > limit {
                return Err(Unavailable::TooLarge { what, value, limit });
            }
        }
        match self {
            Tile::Simple => Ok(()),
            Tile::Mma(_) => strides.aligned(problem),
        }
    }

    fn compute_capability(&self) -> (u32, u32) {
        match self {
            Tile::Mma(tile) if tile.stages > 2 => AMPERE,
            Tile::Simple | Tile::Mma(_) => TURING_CAPABILITY,
        }
    }

    /// Shared memory of a block that is asked for at launch. The simple kernel brings its own.
    pub fn shared_bytes(&self, inputs: Inputs) -> usize {
        match self {
            Tile::Simple => 0,
            Tile::Mma(tile) => {
                tile.stages * (tile.bm + tile.bn) * tile.bk * inputs.element_bytes() as usize
            }
        }
    }

    /// Rows and columns of C that a block makes.
    pub fn block(&self) -> (usize, usize) {
        match self {
            Tile::Simple => (64, 64),
            Tile::Mma(tile) => (tile.bm, tile.bn),
        }
    }

    pub fn threads(&self) -> usize {
        match self {
            Tile::Simple => 256,
            Tile::Mma(tile) => tile.bm / tile.wm * (tile.bn / tile.wn) * 32,
        }
    }

    /// The number of blocks that a problem is cut into, before K is.
    pub fn blocks(&self, problem: &Problem) -> usize {
        let (bm, bn) = self.block();
        problem.m.div_ceil(bm) * problem.n.div_ceil(bn)
    }

    /// Into how many slices K may be cut, one upwards: more while the card would still not be full, and every
    /// slice is long enough to be worth a partial sum.
    pub fn split_k_choices(&self, problem: &Problem, sm_count: usize) -> Vec<usize> {
        const TILES_PER_SLICE: usize = 8;
        let Tile::Mma(tile) = self else {
            return vec![1];
        };
        let longest = problem.k.div_ceil(tile.bk) / TILES_PER_SLICE;
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
        match split_k {
            0 | 1 => 0,
            _ => split_k * problem.m * problem.n.next_multiple_of(4),
        }
    }

    /// The name of the kernel in kernels/.
    pub fn kernel(&self, problem: &Problem) -> String {
        match self {
            Tile::Simple => format!("gemm_{}_simple", memory_type(problem.inputs)),
            Tile::Mma(tile) => {
                let inputs = match problem.inputs {
                    Inputs::Tf32 => "tf32",
                    other => memory_type(other),
                };
                let letter = |stored| match stored {
                    Stored::AsIs => 'n',
                    Stored::Transposed => 't',
                };
                let (a, b) = (letter(problem.a), letter(problem.b));
                format!("gemm_{inputs}_{tile}_{a}{b}")
            }
        }
    }
}

/// The name of the inputs' type in memory. What does not multiply on tensor cores knows no other.
pub(super) fn memory_type(inputs: Inputs) -> &'static str {
    match inputs {
        Inputs::Float32 | Inputs::Tf32 => "f32",
        Inputs::Bfloat16 => "bf16",
        Inputs::Float16 => "f16",
    }
}

/// `128x256x32_s4`
impl Display for Mma {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}x{}x{}_s{}", self.bm, self.bn, self.bk, self.stages)
    }
}

/// `simple`, `mma 128x256x32_s4`
impl Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Tile::Simple => f.pad("simple"),
            Tile::Mma(tile) => f.pad(&format!("mma {tile}")),
        }
    }
}

/// Elements from one row to the next.
pub(super) struct Strides {
    pub a: usize,
    pub b: usize,
    pub c: usize,
    pub aux: Option<usize>,
}

impl Strides {
    /// Whether every row begins where 16 bytes can be moved at once.
    fn aligned(&self, problem: &Problem) -> Result<(), Unavailable> {
        let input = problem.inputs.element_bytes() as usize;
        let output = match problem.output {
            OutputType::Float32 => size_of::<f32>(),
            OutputType::LikeInputs => input,
        };
        let rows = [
            ("A", Some(self.a), input),
            ("B", Some(self.b), input),
            ("C", Some(self.c), output),
            ("the auxiliary matrix", self.aux, input),
        ];
        for (what, stride, bytes) in rows {
            let multiple = VECTOR_BYTES / bytes;
            if let Some(elements) = stride
                && !elements.is_multiple_of(multiple)
            {
                return Err(Unavailable::Alignment {
                    what,
                    elements,
                    multiple,
                });
            }
        }
        Ok(())
    }
}
