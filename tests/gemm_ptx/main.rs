//! Our kernels for matrix products: every tile, transpose, epilogue and type, ragged sizes, gaps between rows.
//!
//! On the virtual GPU, where accesses out of bounds, reads of what was never written and races end the run:
//! `scripts/vgpu rtx3060 -- cargo test --release --features cuda --test gemm_ptx`. On a card, too.
#![cfg(feature = "cuda")]

mod case;
mod expected;
mod refusals;

use candle_core::cuda_backend::CudaDevice;
use case::{Case, EPILOGUES, INPUTS, LAYOUTS, gpu, plain, round, tiles};
use taper::ops::gemm::ptx::{Misfit, Tile};
use taper::ops::gemm::{Layout, OutputType, Problem};
use taper::ops::launch::{Gpu, kernels};
use taper::terms::Inputs;

/// Reproducible: the bits of `at` and `seed`, mixed (splitmix64).
fn mixed(seed: u64, at: usize) -> u64 {
    let mut x = (seed << 40 ^ at as u64).wrapping_add(1);
    x = x.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// DeviceOperands so small and whole that no sum is rounded, in whatever order: A in -2..=2, B in quarters of that.
fn whole(problem: Problem, gap: usize) -> Case {
    let Problem { m, n, k, .. } = problem;
    let small = |seed, count, unit: f32| -> Vec<f32> {
        (0..count)
            .map(|at| (mixed(seed, at) % 5) as f32 * unit - 2.0 * unit)
            .collect()
    };
    Case {
        problem,
        a: small(1, m * k, 1.0),
        b: small(2, k * n, 0.25),
        c: small(3, m * n, 1.0),
        bias: small(4, n, 0.5),
        aux: small(5, m * n, 0.75),
        gap,
    }
}

/// DeviceOperands between -1 and 1, as the inputs' type holds them.
fn random(problem: Problem, gap: usize) -> Case {
    let Problem { m, n, k, .. } = problem;
    let uniform = |seed, count| -> Vec<f32> {
        (0..count)
            .map(|at| (mixed(seed, at) >> 40) as f32 / (1 << 23) as f32 - 1.0)
            .map(|x| round(x, problem.inputs))
            .collect()
    };
    Case {
        problem,
        a: uniform(1, m * k),
        b: uniform(2, k * n),
        // Whatever type C has, it holds these.
        c: uniform(3, m * n),
        bias: uniform(4, n),
        aux: uniform(5, m * n),
        gap,
    }
}

/// Sums are exact, and so is all but GELU.
#[track_caller]
fn check_whole(device: &CudaDevice, problem: Problem, tile: Tile, split_k: usize, gap: usize) {
    let case = whole(problem, gap);
    let name = format!("{tile}, {problem}, {split_k} slices");
    let written = case
        .run(device, tile, split_k)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let (sums, _) = expected::sums(&case);
    expected::check(&name, &case, &written, &sums, &vec![0.0; sums.len()]);
}

/// BM, BN and BK of a tile.
fn block(tile: Tile) -> [usize; 3] {
    let (bm, bn) = tile.block();
    [bm, bn, tile.step()]
}

#[test]
fn every_tile_multiplies_every_transpose_of_ragged_matrices() {
    let Some(device) = gpu() else { return };
    for inputs in INPUTS {
        for tile in tiles(&device, inputs) {
            let [bm, bn, bk] = block(tile);
            for (turn, (a, b)) in LAYOUTS.into_iter().enumerate() {
                // Two blocks in one direction, alternately; more tiles of K than buffers; nothing a multiple
                // of anything.
                let (m, n) = match turn % 2 {
                    0 => (bm + 9, bn - 5),
                    _ => (bm - 7, bn + 3),
                };
                let problem = Problem {
                    a,
                    b,
                    output: OutputType::Float32,
                    accumulate: turn % 2 == 0,
                    ..plain([m, n, bk + 6], inputs)
                };
                check_whole(&device, problem, tile, 1, 0);
            }
        }
    }
}

#[test]
fn every_epilogue_is_right_for_every_type_and_output() {
    let Some(device) = gpu() else { return };
    for inputs in INPUTS {
        // The epilogue depends on the width of a warp's part alone: 32 and 64 columns.
        let narrow = |tile: &Tile| block(*tile)[..2] == [64, 64];
        let wide = |tile: &Tile| matches!(tile, Tile::Mma(mma) if mma.wn == 64 && mma.bm == 64);
        let all = tiles(&device, inputs);
        let chosen = all
            .iter()
            .filter(|tile| narrow(tile))
            .chain(all.iter().find(|tile| wide(tile)))
            .chain(all.iter().find(|tile| matches!(tile, Tile::Wgmma(_))));
        for &tile in chosen {
            for (turn, epilogue) in EPILOGUES.into_iter().cycle().take(24).enumerate() {
                let problem = Problem {
                    epilogue,
                    accumulate: turn / 6 % 2 == 0,
                    output: match turn / 12 {
                        0 => OutputType::Float32,
                        _ => OutputType::LikeInputs,
                    },
                    ..plain([41, 77, 19], inputs)
                };
                check_whole(&device, problem, tile, 1, 8 * (turn % 2));
            }
        }
    }
}

/// The error that fp32 sums of K products may have, each product and each sum off by a unit in the last place, for
/// tensor cores truncate: gamma_K sum |a| |b| of Higham, "Accuracy and Stability of Numerical Algorithms", 2nd
/// edition, equation (3.5), with u = 2^-23 (Fasi, Higham, Mikaitis and Pranesh, "Numerical behavior of NVIDIA
/// tensor cores", 2021). TF32 rounds both factors by 2^-11 at most.
fn allowed(problem: &Problem, absolute: &[f64]) -> Vec<f64> {
    let ku = problem.k as f64 * 2f64.powi(-23);
    let factors = match problem.inputs {
        Inputs::Tf32 => 2.0 * 2f64.powi(-11) + 2f64.powi(-22),
        _ => 0.0,
    };
    let relative = ku / (1.0 - ku) + factors;
    absolute.iter().map(|sum| sum * relative + 1e-30).collect()
}

#[track_caller]
fn check_random(device: &CudaDevice, problem: Problem, tile: Tile, split_k: usize) {
    let case = random(problem, 0);
    let name = format!("{tile}, {problem}, {split_k} slices");
    let written = case
        .run(device, tile, split_k)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let (sums, absolute) = expected::sums(&case);
    let allowed = allowed(&problem, &absolute);
    expected::check(&name, &case, &written, &sums, &allowed);
}

#[test]
fn random_products_are_within_the_error_bound_of_f64() {
    let Some(device) = gpu() else { return };
    for inputs in INPUTS {
        for (turn, tile) in tiles(&device, inputs).into_iter().enumerate() {
            let (a, b) = LAYOUTS[turn % 4];
            let problem = Problem {
                a,
                b,
                epilogue: EPILOGUES[turn % 6],
                output: match turn % 3 {
                    0 => OutputType::Float32,
                    _ => OutputType::LikeInputs,
                },
                ..plain([37, 50, 300], inputs)
            };
            check_random(&device, problem, tile, 1);
        }
    }
}

#[test]
fn tf32_is_rounded_to_the_nearest_and_not_cut_off() {
    let Some(device) = gpu() else { return };
    let [m, n, k] = [16, 8, 8];
    for tile in tiles(&device, Inputs::Tf32).into_iter().skip(1) {
        for (a, b) in LAYOUTS {
            let problem = Problem {
                a,
                b,
                ..plain([m, n, k], Inputs::Tf32)
            };
            // Neighbours of one are 2^-10 apart.
            let case = Case {
                a: vec![1.0 + 0.75 * 2f32.powi(-10); m * k],
                b: vec![1.0 - 0.25 * 2f32.powi(-11); k * n],
                ..whole(problem, 0)
            };
            let written = case.run(&device, tile, 1).expect("a product");
            let expected = k as f32 * (1.0 + 2f32.powi(-10));
            assert_eq!(written.c, vec![expected; m * n], "{tile}, {problem}");
        }
    }
}

#[test]
fn rows_may_lie_apart_and_what_lies_between_is_not_touched() {
    let Some(device) = gpu() else { return };
    for inputs in INPUTS {
        for (turn, tile) in tiles(&device, inputs).into_iter().enumerate() {
            let (a, b) = LAYOUTS[turn % 4];
            let problem = Problem {
                a,
                b,
                accumulate: turn % 2 == 0,
                epilogue: EPILOGUES[turn % 6],
                ..plain([45, 35, 43], inputs)
            };
            check_whole(&device, problem, tile, 1, 8);
            if tile == Tile::Simple {
                check_whole(&device, problem, tile, 1, 3);
            }
        }
    }
}

#[test]
fn matrices_smaller_than_anything_are_multiplied() {
    let Some(device) = gpu() else { return };
    let opened = Gpu::new(&device).unwrap();
    let limits = opened.limits();
    let sizes = [[1, 1, 1], [1, 9, 2], [9, 1, 3], [17, 8, 1], [3, 5, 0]];
    for inputs in INPUTS {
        for (turn, tile) in tiles(&device, inputs).into_iter().enumerate() {
            for (size, (a, b)) in sizes.iter().zip(LAYOUTS.iter().cycle().skip(turn)) {
                let problem = Problem {
                    a: *a,
                    b: *b,
                    accumulate: true,
                    ..plain(*size, inputs)
                };
                match tile.fits(&problem, limits) {
                    Err(Misfit::NoProducts) => assert_eq!(problem.k, 0),
                    _ => check_whole(&device, problem, tile, 1, 0),
                }
            }
        }
    }
}

#[test]
fn every_block_of_a_large_grid_finds_its_place() {
    let Some(device) = gpu() else { return };
    for inputs in INPUTS {
        let all = tiles(&device, inputs);
        for tile in all.into_iter().filter(|tile| block(*tile)[..2] == [64, 64]) {
            // Eleven tiles down: a whole group of eight and a shorter one.
            check_whole(&device, plain([64 * 10 + 1, 150, 8], inputs), tile, 1, 0);
        }
        // Seventeen down, in groups of 16; more than there are SMs.
        let wgmma = tiles(&device, inputs);
        let wgmma = wgmma
            .into_iter()
            .filter(|tile| matches!(tile, Tile::Wgmma(_)));
        for tile in wgmma {
            let [bm, bn, _] = block(tile);
            check_whole(
                &device,
                plain([bm * 16 + 1, bn * 8 + 1, 8], inputs),
                tile,
                1,
                0,
            );
        }
    }
}

#[test]
fn slices_of_k_add_up_the_same_every_time() {
    let Some(device) = gpu() else { return };
    for inputs in INPUTS {
        let mma = |tile: &Tile| *tile != Tile::Simple;
        for (turn, tile) in tiles(&device, inputs).into_iter().filter(mma).enumerate() {
            let [_, _, bk] = block(tile);
            // dW: A transposed, fp32, added to what is there. Slices that are whole, ragged, and empty.
            for (slices, tiles_of_k) in [(2, 4), (3, 4), (5, 3)] {
                if slices > tiles_of_k && matches!(tile, Tile::Wgmma(_)) {
                    continue;
                }
                let problem = Problem {
                    a: Layout::Transposed,
                    accumulate: true,
                    output: OutputType::Float32,
                    ..plain([33, 30, tiles_of_k * bk - 3], inputs)
                };
                check_whole(&device, problem, tile, slices, 0);
            }
            let problem = Problem {
                epilogue: EPILOGUES[turn % 6],
                ..plain([33, 30, 4 * bk], inputs)
            };
            check_random(&device, problem, tile, 2);
            let case = random(problem, 0);
            let twice = [(); 2].map(|()| case.run(&device, tile, 3).expect("a product"));
            assert_eq!(twice[0], twice[1], "{tile}, {problem}");
        }
    }
}

#[test]
fn every_tile_has_its_kernels_and_every_kernel_its_tile() {
    let mut wanted = Vec::new();
    for inputs in INPUTS {
        for tile in Tile::all(inputs) {
            for (a, b) in LAYOUTS {
                let problem = Problem {
                    a,
                    b,
                    ..plain([64; 3], inputs)
                };
                wanted.push(tile.kernel(&problem));
            }
        }
    }
    let beside = ["gemm_fill_", "gemm_gather_", "gemm_compare_"];
    let multiplies = |name: &&str| {
        let is_beside = beside.iter().any(|prefix| name.starts_with(prefix));
        name.starts_with("gemm_") && !name.ends_with("_split_k_sum") && !is_beside
    };
    let names = kernels::all().map(|kernel| kernel.name);
    let mut found: Vec<&str> = names.filter(multiplies).collect();
    wanted.sort();
    wanted.dedup();
    found.sort();
    assert_eq!(found, wanted);
}
