//! The candidates of the CPU, for real.

use taper::device::{Amx, Avx512Bf16, DeviceProfile};
use taper::ops::gemm::candidate::{Device, Offer};
use taper::ops::gemm::cpu::{Aux, Candidate, Operands, packed_bytes};
use taper::ops::gemm::tune::{TuneOutcome, tune};
use taper::ops::gemm::{Cpu, Epilogue, Layout, Problem};
use taper::terms::{Effort, Inputs, VectorExtension};

use super::problems;

/// Sides around the tiles and blocks of every candidate.
fn awkward() -> Vec<Problem> {
    let mut all = problems();
    let none = Epilogue::None;
    for (m, n, k) in [
        (1, 70, 600),
        (70, 1, 600),
        (97, 65, 1030),
        (385, 129, 7),
        // Four parts of K leave nothing for the last.
        (385, 129, 5),
        (200, 513, 513),
        (400, 66, 1),
        (100, 3, 2000),
        (9, 130, 1100),
    ] {
        for problem in [
            Problem::forward(m, n, k, Inputs::Float32, none),
            Problem::input_gradient(m, k, n, Inputs::Float32, none),
            Problem::weight_gradient(k, m, n, Inputs::Float32),
        ] {
            assert_eq!((problem.m, problem.n, problem.k), (m, n, k));
            all.push(problem);
        }
    }
    all
}

/// [`awkward`] problems, multiplied in every way that this CPU has.
fn everything() -> Vec<Problem> {
    let mut inputs = vec![Inputs::Float32];
    if Avx512Bf16::probe().is_some() {
        inputs.push(Inputs::Float32AsBfloat16);
    }
    if Amx::probe().is_some() {
        inputs.push(Inputs::Float32InPieces);
    }
    let with = |inputs| {
        let all = awkward().into_iter();
        all.map(move |problem| Problem { inputs, ..problem })
    };
    inputs.into_iter().flat_map(with).collect()
}

/// Even the shortest products are in pieces, where they are to be.
fn cpu() -> Cpu<f32> {
    Cpu::with_pieces_from(Inputs::Float32, 1)
}

fn in_pool<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build().unwrap().install(work)
}

#[test]
fn every_candidate_computes_every_kind_of_problem_or_says_why_not() {
    let cpu = cpu();
    for problem in everything() {
        for effort in [Effort::Limited, Effort::Full] {
            let tuned = tune(&cpu, &problem, effort, None);
            for (candidate, outcome) in &tuned.outcomes {
                let fine = match outcome {
                    TuneOutcome::Timed { .. } | TuneOutcome::Unavailable(_) => true,
                    // A last tile of one row is summed by other code of the `gemm` crate.
                    TuneOutcome::Wrong(because) => because.contains("whose bits it promised"),
                    TuneOutcome::Untimed => false,
                };
                assert!(fine, "{candidate} of {problem}: {outcome:?}");
            }
        }
    }
}

#[test]
fn a_limited_search_has_only_candidates_with_the_fallback_s_bits() {
    let cpu = cpu();
    for problem in everything() {
        let offers = cpu.offers(&problem, Effort::Limited);
        assert!(offers.iter().all(|offer| offer.same_bits));
        let (rows, columns) = (128, 512);
        let fallback = match problem.inputs {
            Inputs::Float32AsBfloat16 => Candidate::Bfloat16 { rows, columns },
            Inputs::Float32InPieces => Candidate::InPieces { rows, columns },
            _ => Candidate::Whole,
        };
        assert_eq!(offers[0].candidate, fallback);
        assert_eq!(cpu.offers(&problem, Effort::Off).len(), 1);
    }
}

/// C, from operands whose elements are `value(their index)`.
fn computed(
    cpu: &Cpu<f32>,
    problem: &Problem,
    candidate: Candidate,
    value: &(dyn Fn(usize) -> f32 + Sync),
) -> Vec<f32> {
    let filled = |elements: usize| (0..elements).map(value).collect::<Vec<f32>>();
    let (m, n, k) = (problem.m, problem.n, problem.k);
    let (a, b, mut c, mut aux) = (filled(m * k), filled(k * n), filled(m * n), filled(m * n));
    let bias = filled(n);
    let mut operands = Operands {
        bias: &bias,
        aux: match problem.epilogue {
            Epilogue::BiasGelu(_) => Aux::Written(&mut aux),
            Epilogue::GeluBackward(_) => Aux::Read(&aux),
            Epilogue::None | Epilogue::Bias => Aux::None,
        },
        ..Operands::new(&a, &b, &mut c)
    };
    let Ok(()) = cpu.launch(problem, candidate, &mut operands);
    c
}

/// Uniform in (-1, 1), all 24 bits of it.
fn noise(index: usize) -> f32 {
    let mixed = (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// Root mean square of the error of C, from `noise`, by sums in f64. A and B hold the same lines: where a line meets
/// itself the sum grows with K, elsewhere with its root.
fn error(problem: &Problem, candidate: Candidate) -> f64 {
    let got = computed(&cpu(), problem, candidate, &noise);
    let (n, k) = (problem.n, problem.k);
    let squares = got.iter().enumerate().map(|(index, &got)| {
        let (row, column) = (index / n, index % n);
        let terms = (0..k).map(|i| {
            let b = noise(column * k + i);
            f64::from(noise(row * k + i)) * f64::from(b)
        });
        (f64::from(got) - terms.sum::<f64>()).powi(2)
    });
    (squares.sum::<f64>() / got.len() as f64).sqrt()
}

#[test]
fn products_in_pieces_are_as_accurate_as_fused_multiply_adds() {
    if Amx::probe().is_none() {
        eprintln!("skipped: this CPU has no AMX");
        return;
    }
    let (rows, columns) = (128, 512);
    for k in [64, 300, 3072] {
        let problem = |inputs| Problem::forward(60, 70, k, inputs, Epilogue::None);
        let in_pieces = Candidate::InPieces { rows, columns };
        let pieces = error(&problem(Inputs::Float32InPieces), in_pieces);
        let fused = error(&problem(Inputs::Float32), Candidate::Whole);
        println!("K = {k}: {pieces:.3e} in pieces, {fused:.3e} by fused multiply-adds");
        assert!(pieces <= fused, "K = {k}: {pieces:e} {fused:e}");
    }
}

#[test]
fn products_with_a_short_side_are_not_in_pieces() {
    let cpu = Cpu::<f32>::new(Inputs::Float32InPieces);
    for sides in [[255, 256, 256], [256, 255, 256], [256, 256, 255]] {
        let [m, n, k] = sides;
        let problem = Problem::forward(m, n, k, Inputs::Float32InPieces, Epilogue::None);
        let offers = cpu.offers(&problem, Effort::Limited);
        assert_eq!(offers[0].candidate, Candidate::Whole, "{problem}");
    }
    let problem = Problem::forward(256, 256, 256, Inputs::Float32InPieces, Epilogue::None);
    let offers = cpu.offers(&problem, Effort::Limited);
    let all = |offer: &Offer<_>| matches!(offer.candidate, Candidate::InPieces { .. });
    assert!(offers.iter().all(all));
}

#[test]
fn bf16_is_offered_just_where_the_profile_says_that_it_is_there() {
    let profile = DeviceProfile::cpu();
    for (inputs, extension) in [
        (Inputs::Float32AsBfloat16, VectorExtension::Avx512Bf16),
        (Inputs::Float32InPieces, VectorExtension::AmxBf16),
    ] {
        let problem = Problem::forward(256, 256, 256, inputs, Epilogue::None);
        let offers = cpu().offers(&problem, Effort::Off);
        let named = profile.vector_extensions().contains(&extension);
        assert_eq!(offers[0].available.is_ok(), named, "{extension}");
    }
}

#[test]
fn what_is_packed_depends_on_the_extensions_of_the_profile_alone() {
    let (rounded, in_pieces) = (Inputs::Float32AsBfloat16, Inputs::Float32InPieces);
    let both = [VectorExtension::Avx512Bf16, VectorExtension::AmxBf16];
    // By the `gemm` crate: A. In bf16: A by each of two threads, B, and room to align all three.
    let in_float32 = 256 * 256 * 4;
    let in_bf16 = |pieces: usize| 3 * (pieces * 256 * 256 * 2 + 64);
    for (inputs, extensions, bytes) in [
        (rounded, &[][..], in_float32),
        (rounded, &both[..1], in_bf16(1)),
        (rounded, &both, in_bf16(1)),
        (in_pieces, &both[..1], in_float32),
        (in_pieces, &both, in_bf16(3)),
    ] {
        let problem = Problem::forward(256, 256, 256, inputs, Epilogue::None);
        let found = packed_bytes(&[problem], 2, Effort::Off, extensions);
        assert_eq!(found, bytes, "{inputs:?} with {extensions:?}");
    }
}

#[test]
fn no_candidate_s_bits_depend_on_the_number_of_threads() {
    let cpu = cpu();
    for problem in everything() {
        let results = |threads| {
            in_pool(threads, || {
                let offers = cpu.offers(&problem, Effort::Full).into_iter();
                let available = offers.filter(|offer| offer.available.is_ok());
                let compute = |offer: Offer<Candidate>| {
                    let value = |index: usize| (index % 1009) as f32 / 1009.0 - 0.4;
                    computed(&cpu, &problem, offer.candidate, &value)
                };
                available.map(compute).collect::<Vec<_>>()
            })
        };
        let one = results(1);
        for threads in [2, 5] {
            assert!(one == results(threads), "{problem} on {threads} threads");
        }
    }
}

#[test]
fn a_product_too_large_for_the_room_is_tuned_by_a_smaller_one_like_it() {
    let cpu = Cpu::<f32>::default();
    let problem = Problem::weight_gradient(16, 50_304, 32, Inputs::Float32);
    let whole = cpu.trial_bytes(&problem);
    assert_eq!(cpu.stand_in(&problem, whole), Some(problem));
    let smaller = cpu.stand_in(&problem, whole / 3).unwrap();
    assert!(cpu.trial_bytes(&smaller) <= whole / 3);
    assert_eq!(
        (smaller.m, smaller.n, smaller.k),
        (50_304 / 4, problem.n, problem.k)
    );
    assert_eq!(cpu.stand_in(&problem, whole / 100), None);
    let tuned = tune(&cpu, &problem, Effort::Limited, Some(whole / 3));
    assert!(tuned.searched, "{}", tuned.because);
    assert_eq!(
        (tuned.stand_in, tuned.scale(&problem)),
        (Some(smaller), 4.0)
    );
    let tuned = tune(&cpu, &problem, Effort::Limited, Some(whole / 100));
    assert!(!tuned.searched && tuned.because.starts_with("tuning it takes"));
}

#[test]
fn the_parts_of_a_cut_k_stay_within_what_is_planned_for_them() {
    let cpu = Cpu::<f32>::default();
    let problem = Problem::weight_gradient(4096, 4096, 1024, Inputs::Float32);
    assert_eq!(problem.a, Layout::Transposed);
    for offer in cpu.offers(&problem, Effort::Full) {
        if let Candidate::SplitK(_) = offer.candidate {
            let because = offer.available.unwrap_err().to_string();
            assert!(
                because.ends_with("8.0 MiB are planned for them"),
                "{because}"
            );
        }
    }
}
