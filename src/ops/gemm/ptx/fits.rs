//! Requirements of a kernel: on the GPU, and on the alignment of operands.

use super::tile::{AMPERE, HOPPER, Tile};
use crate::device::CardLimits;
use crate::ops::gemm::{Epilogue, Problem};

/// Reason that a kernel cannot compute a problem on a card. A value, not a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    #[error("needs compute capability {}.{}, this GPU has {}.{}", .needs.0, .needs.1, .has.0, .has.1)]
    ComputeCapability { needs: (u32, u32), has: (u32, u32) },
    #[error("made for compute capability 7.5; this GPU has better ones")]
    ForOlderGpus,
    #[error("made for compute capability 9.0 alone, this GPU has {}.{}", .has.0, .has.1)]
    ForHopper { has: (u32, u32) },
    #[error("K is zero, and the copy engine copies something")]
    NoProducts,
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

/// Size and alignment of the widest memory access of these kernels.
pub(super) const VECTOR_BYTES: usize = 16;

impl Tile {
    /// Checks that this kernel can compute a problem with dense operands on a card.
    ///
    /// # Errors
    /// The first requirement that is not met.
    pub fn fits(&self, problem: &Problem, limits: &CardLimits) -> Result<(), Misfit> {
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

    /// Checks that this kernel can compute a problem with operands of these row strides on a card.
    ///
    /// # Errors
    /// The first requirement that is not met.
    pub(super) fn fits_strides(
        &self,
        problem: &Problem,
        limits: &CardLimits,
        strides: &Strides,
    ) -> Result<(), Misfit> {
        let needs = self.compute_capability();
        let has = limits.compute_capability;
        if !Tile::all(problem.inputs).any(|tile| tile == *self) {
            return Err(Misfit::Inputs);
        }
        if has < needs {
            return Err(Misfit::ComputeCapability { needs, has });
        }
        if matches!(self, Tile::Mma(_)) && needs < AMPERE && has >= AMPERE {
            return Err(Misfit::ForOlderGpus);
        }
        if let Tile::Wgmma(_) = self {
            if has > HOPPER {
                return Err(Misfit::ForHopper { has });
            }
            if problem.k == 0 {
                return Err(Misfit::NoProducts);
            }
        }
        let needs = self.shared_bytes(problem.inputs);
        let has = limits.shared_bytes_per_block;
        if needs > has {
            return Err(Misfit::SharedMemory { needs, has });
        }
        // Kernels count rows and columns, padded to tiles, in 32 bits.
        let limit = (i32::MAX / 2) as usize;
        for (what, value) in [("M", problem.m), ("N", problem.n), ("K", problem.k)] {
            if value > limit {
                return Err(Misfit::TooLarge { what, value, limit });
            }
        }
        match self {
            Tile::Simple => Ok(()),
            Tile::Mma(_) | Tile::Wgmma(_) => strides.check_alignment(problem),
        }
    }
}

/// Row strides of the operands, in elements.
pub(super) struct Strides {
    pub a: usize,
    pub b: usize,
    pub c: usize,
    pub aux: Option<usize>,
}

impl Strides {
    /// Checks that every row begins at a multiple of 16 bytes.
    fn check_alignment(&self, problem: &Problem) -> Result<(), Misfit> {
        let input = problem.inputs.element_bytes() as usize;
        let output = problem.output_precision().element_bytes() as usize;
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
                return Err(Misfit::Alignment {
                    what,
                    elements,
                    multiple,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gemm::{Layout, OutputType};
    use crate::terms::Inputs;

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

    const T4: CardLimits = card((7, 5), 64);
    const RTX3060: CardLimits = card((8, 6), 99);
    const H100: CardLimits = card((9, 0), 227);

    const fn card(compute_capability: (u32, u32), kib: usize) -> CardLimits {
        CardLimits {
            compute_capability,
            shared_bytes_per_block: kib << 10,
        }
    }

    /// "fits", or the reason that the tile of this name does not.
    fn verdict(tile: &str, problem: &Problem, limits: &CardLimits) -> String {
        let found = Tile::all(problem.inputs).find(|found| found.to_string() == tile);
        match found.expect("a tile").fits(problem, limits) {
            Ok(()) => "fits".to_string(),
            Err(misfit) => misfit.to_string(),
        }
    }

    #[test]
    fn a_card_says_which_tiles_it_cannot_run() {
        let [bf16, f16] = [Inputs::Bfloat16, Inputs::Float16].map(|inputs| plain([64; 3], inputs));
        let large = "mma 128x256x64_s3";
        for (tile, problem, limits, expected) in [
            (large, bf16, H100, "fits"),
            (
                large,
                bf16,
                RTX3060,
                "needs 147456 bytes of shared memory per block, this GPU has 101376",
            ),
            (
                large,
                bf16,
                T4,
                "needs compute capability 8.0, this GPU has 7.5",
            ),
            ("mma 128x256x32_s4", bf16, RTX3060, "fits"),
            ("mma 64x64x32_s2", f16, T4, "fits"),
            (
                "mma 64x64x32_s2",
                f16,
                H100,
                "made for compute capability 7.5; this GPU has better ones",
            ),
            ("wgmma 128x256x64_s4", bf16, H100, "fits"),
            (
                "wgmma 128x128x64_s6",
                f16,
                RTX3060,
                "needs compute capability 9.0, this GPU has 8.6",
            ),
            (
                "wgmma 128x256x64_s4",
                bf16,
                card((10, 0), 227),
                "made for compute capability 9.0 alone, this GPU has 10.0",
            ),
        ] {
            assert_eq!(verdict(tile, &problem, &limits), expected, "{tile}");
        }
    }

    #[test]
    fn a_tile_says_which_problems_it_cannot_compute() {
        for (tile, size, inputs, expected) in [
            (
                "mma 64x64x32_s4",
                [64, 64, 100],
                Inputs::Bfloat16,
                "rows of A must be whole multiples of 8 elements, not 100",
            ),
            (
                "mma 64x64x16_s4",
                [64, 50257, 64],
                Inputs::Tf32,
                "rows of B must be whole multiples of 4 elements, not 50257",
            ),
            (
                "wgmma 128x256x64_s4",
                [64, 64, 0],
                Inputs::Bfloat16,
                "K is zero, and the copy engine copies something",
            ),
        ] {
            let problem = plain(size, inputs);
            assert_eq!(verdict(tile, &problem, &H100), expected, "{tile}");
        }
        let simple = plain([64, 50257, 100], Inputs::Tf32);
        assert_eq!(verdict("simple", &simple, &T4), "fits");
        let tile = Tile::all(Inputs::Bfloat16).last().expect("tiles");
        let fp32 = plain([64; 3], Inputs::Float32);
        let misfit = tile.fits(&fp32, &H100).expect_err("no tile of fp32");
        assert_eq!(misfit.to_string(), "no such tile for these inputs");
    }
}
