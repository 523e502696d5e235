//! Ranking of tiles by an estimate of their times, which decides which are worth a trial. It is never a promise.
//!
//! The driver compiles each kernel before its trial, which takes up to a second. A search over all of them would take
//! a minute before the first step.

use super::tile::{HOPPER, Tile};
use crate::device::CardLimits;
use crate::ops::gemm::Problem;

/// 16-bit multiply-adds per SM and cycle on tensor cores: NVIDIA's white papers of A100 and H100. `mma.sync` reaches
/// 62 % of wgmma's rate on Hopper (Luo and others 2024, arXiv 2402.13499).
const MMA_PER_CYCLE: f64 = 1024.0;
const WGMMA_PER_CYCLE: f64 = 2048.0;
const MMA_ON_HOPPER_PER_CYCLE: f64 = 0.62 * WGMMA_PER_CYCLE;
/// 16-bit elements per SM and cycle from the L2 cache (64 bytes) and from shared memory (128 bytes).
const FROM_CACHE_PER_CYCLE: f64 = 32.0;
const FROM_SHARED_PER_CYCLE: f64 = 64.0;
/// Overhead of a block: its start, the fill of its first buffers, and the store of its part of C.
const CYCLES_PER_BLOCK: f64 = 2000.0;

/// Tensor-core tiles that can compute a problem, each with a number of slices of K whose partial sums fit into
/// `workspace` elements. Those with the smallest estimate come first.
pub fn ranked(
    problem: &Problem,
    limits: &CardLimits,
    sm_count: usize,
    workspace: usize,
) -> Vec<(Tile, usize)> {
    let tiles = Tile::all(problem.inputs)
        .filter(|tile| *tile != Tile::Simple && tile.fits(problem, limits).is_ok());
    let choices = tiles.flat_map(|tile| {
        let slices = tile.split_k_choices(problem, sm_count).into_iter();
        slices
            .filter(move |slices| tile.workspace_elements(problem, *slices) <= workspace)
            .map(move |slices| (tile, slices))
    });
    let is_hopper = limits.compute_capability == HOPPER;
    let estimated = choices.map(|(tile, slices)| {
        let cycles = cycles(tile, slices, problem, sm_count, is_hopper);
        (cycles, (tile, slices))
    });
    let mut choices: Vec<_> = estimated.collect();
    choices.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    choices.into_iter().map(|(_, choice)| choice).collect()
}

/// Cycles until the last SM is done.
fn cycles(tile: Tile, slices: usize, problem: &Problem, sm_count: usize, is_hopper: bool) -> f64 {
    let (bm, bn) = tile.block();
    let (bm, bn) = (bm as f64, bn as f64);
    // Per element of K. Copies hide behind multiply-adds only in part.
    let copied = (bm + bn) / FROM_CACHE_PER_CYCLE;
    let step = match tile {
        Tile::Simple => f64::INFINITY,
        Tile::Wgmma(_) => bm * bn / WGMMA_PER_CYCLE + copied / 2.0,
        Tile::Mma(tile) => {
            let rate = if is_hopper {
                MMA_ON_HOPPER_PER_CYCLE
            } else {
                MMA_PER_CYCLE
            };
            let warps = bm * bn / (tile.wm * tile.wn) as f64;
            let read = warps * (tile.wm + tile.wn) as f64 / FROM_SHARED_PER_CYCLE;
            bm * bn / rate + (copied + read) / 2.0
        }
    };
    let k = problem.k.div_ceil(slices).next_multiple_of(tile.step()) as f64;
    let waves = (tile.blocks(problem) * slices).div_ceil(sm_count) as f64;
    // Sums of slices are written, and read again by another kernel.
    let sums = if slices == 1 {
        0.0
    } else {
        (2 * slices * problem.m * problem.n) as f64 / (sm_count as f64 * FROM_CACHE_PER_CYCLE)
    };
    waves * (k * step + CYCLES_PER_BLOCK) + sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gemm::Epilogue;
    use crate::terms::Inputs;

    fn first(size: [usize; 3], limits: CardLimits, sm_count: usize) -> String {
        let [m, n, k] = size;
        let problem = Problem::forward(m, n, k, Inputs::Bfloat16, Epilogue::None);
        let (tile, slices) = ranked(&problem, &limits, sm_count, 8 << 20)[0];
        format!("{tile} x {slices}")
    }

    const H100: CardLimits = CardLimits {
        compute_capability: HOPPER,
        shared_bytes_per_block: 227 << 10,
    };
    const RTX3060: CardLimits = CardLimits {
        compute_capability: (8, 6),
        shared_bytes_per_block: 99 << 10,
    };

    #[test]
    fn large_tiles_lead_where_there_is_work_for_all_and_small_ones_where_there_is_not() {
        assert_eq!(
            first([65_536, 768, 768], H100, 132),
            "wgmma 128x256x64_s4 x 1"
        );
        assert!(first([65_536, 3072, 768], RTX3060, 28).starts_with("mma 128x256x32"));
        // Two blocks of the largest tile would leave 26 SMs idle.
        assert!(first([256, 256, 64], RTX3060, 28).starts_with("mma 64x64x"));
    }

    #[test]
    fn k_is_cut_where_the_card_would_be_idle() {
        let problem = Problem::weight_gradient(65_536, 768, 768, Inputs::Bfloat16);
        let (_, slices) = ranked(&problem, &H100, 132, 8 << 20)[0];
        assert!(slices > 1);
        // And not where there is no room for the sums.
        assert_eq!(ranked(&problem, &H100, 132, 0)[0].1, 1);
    }

    #[test]
    fn every_kernel_that_fits_is_in_the_ranking_once_for_every_cut() {
        let problem = Problem::forward(4096, 4096, 4096, Inputs::Bfloat16, Epilogue::Bias);
        let ranking = ranked(&problem, &H100, 132, 8 << 20);
        let tiles = Tile::all(Inputs::Bfloat16).filter(|tile| *tile != Tile::Simple);
        assert_eq!(ranking.len(), tiles.count());
        let wgmma = |(tile, _): &(Tile, usize)| matches!(tile, Tile::Wgmma(_));
        assert!(ranking[..2].iter().all(wgmma));
    }
}
