//! The candidates of the CPU, for real.

use taper::ops::gemm::candidate::{Device, Offer, Operand};
use taper::ops::gemm::cpu::Candidate;
use taper::ops::gemm::tune::{Outcome, tune};
use taper::ops::gemm::{Cpu, Effort, Epilogue, Inputs, Problem, Stored};

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

fn in_pool<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    pool.build().unwrap().install(work)
}

#[test]
fn every_candidate_computes_every_kind_of_problem_or_says_why_not() {
    for problem in awkward() {
        for effort in [Effort::Limited, Effort::Full] {
            let tuned = tune(&Cpu::<f32>::default(), &problem, effort, None);
            for (candidate, outcome) in &tuned.outcomes {
                let fine = match outcome {
                    Outcome::Timed { .. } | Outcome::Unavailable(_) => true,
                    // A last tile of one row is summed by other code of the `gemm` crate.
                    Outcome::Wrong(because) => because.ends_with("whose bits it promised"),
                    Outcome::Untimed => false,
                };
                assert!(fine, "{candidate} of {problem}: {outcome:?}");
            }
        }
    }
}

#[test]
fn a_limited_search_has_only_candidates_with_the_fallback_s_bits() {
    let cpu = Cpu::<f32>::default();
    for problem in awkward() {
        let offers = cpu.offers(&problem, Effort::Limited);
        assert!(offers.iter().all(|offer| offer.same_bits));
        assert_eq!(offers[0].candidate, Candidate::Whole);
        assert_eq!(cpu.offers(&problem, Effort::Off).len(), 1);
    }
}

#[test]
fn no_candidate_s_bits_depend_on_the_number_of_threads() {
    let cpu = Cpu::<f32>::default();
    for problem in awkward() {
        let results = |threads| {
            in_pool(threads, || {
                let offers = cpu.offers(&problem, Effort::Full).into_iter();
                let available = offers.filter(|offer| offer.available.is_ok());
                let compute = |offer: Offer<Candidate>| {
                    let mut trial = cpu.trial(&[problem]).unwrap();
                    let value = |index: usize| (index % 1009) as f32 / 1009.0 - 0.4;
                    for operand in [
                        Operand::A,
                        Operand::B,
                        Operand::C,
                        Operand::Bias,
                        Operand::Aux,
                    ] {
                        cpu.write(&mut trial, &problem, operand, &value).unwrap();
                    }
                    let mut operands = cpu.operands(&mut trial, &problem);
                    let Ok(()) = cpu.launch(&problem, offer.candidate, &mut operands);
                    let mut c = Vec::new();
                    cpu.read(&trial, &problem, Operand::C, &mut c).unwrap();
                    c
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
    let tuned = tune(&cpu, &problem, Effort::Limited, Some(whole / 100));
    assert!(!tuned.searched && tuned.because.starts_with("tuning it takes"));
}

#[test]
fn the_parts_of_a_cut_k_stay_within_what_is_planned_for_them() {
    let cpu = Cpu::<f32>::default();
    let problem = Problem::weight_gradient(4096, 4096, 1024, Inputs::Float32);
    assert_eq!(problem.a, Stored::Transposed);
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
