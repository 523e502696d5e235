//! cuBLASLt's algorithms: what they tell of themselves, and the one that adds parts of sums in the result's type.

mod on_card;
mod products;

use std::collections::HashSet;
use std::env;
use std::process::Command;
use std::ptr::{null, null_mut};

use on_card::OnCard;
use products::lt::{Found, Problem, problem, set};
use products::*;
use vgpu::libraries::blas_lt::cublasLtMatmulPreferenceSetAttribute;
use vgpu::libraries::blas_status::Status;
use vgpu::libraries::lt_algorithm::cublasLtMatmulAlgoConfigGetAttribute;

/// `CUBLASLT_ALGO_CONFIG_...`
const SPLIT: u32 = 2;
const REDUCTION: u32 = 3;
/// The bytes of all of them, from zero on.
const SIZES: [usize; 9] = [4, 4, 4, 4, 4, 4, 4, 2, 2];
/// `CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE`
const OUTPUT_TYPE: u32 = 4;
/// `CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK`
const MASK: u32 = 3;

fn attribute(found: &Found, which: u32) -> Result<u32, Status> {
    let (mut value, mut written) = ([0u8; 4], 0);
    let size = SIZES.get(which as usize).copied().unwrap_or(4);
    let status = unsafe {
        let algorithm = found.algorithm.as_ptr().cast();
        let value = value.as_mut_ptr();
        cublasLtMatmulAlgoConfigGetAttribute(algorithm, which, value, size, &mut written)
    };
    match status {
        Status::SUCCESS => {
            assert_eq!(written, size);
            Ok(u32::from_le_bytes(value))
        }
        error => Err(error),
    }
}

/// A problem with four in K, its matrices, and room for every algorithm.
fn with_room(card: &OnCard) -> (Problem, [Batch; 4]) {
    let a = Batch::holding(card, BF16, 1, 4, &[1.0; 4]);
    let b = Batch::holding(card, BF16, 4, 1, &[256.0, 1.0, 1.0, 0.0]);
    let [c, d] = [2.0, 0.0].map(|value| Batch::holding(card, BF16, 1, 1, &[value]));
    let problem = problem([&a, &b, &c, &d], [false; 2], IN_F32, F32, 32 << 20);
    (problem, [a, b, c, d])
}

#[test]
fn algorithms_tell_what_they_are_and_differ() {
    let card = card();
    let (problem, _) = with_room(&card);
    let found = problem.heuristic(8).unwrap();
    let described = |found| (0..9).map(move |which| attribute(found, which).unwrap());
    let all: HashSet<Vec<u32>> = found
        .iter()
        .map(|found| described(found).collect())
        .collect();
    assert_eq!(all.len(), found.len());
    for which in [0, 1, 6] {
        let values: HashSet<_> = found
            .iter()
            .map(|found| attribute(found, which).unwrap())
            .collect();
        assert_eq!(values.len(), found.len(), "attribute {which}");
    }
    let last = found.last().unwrap();
    assert_eq!(
        (attribute(last, SPLIT), attribute(last, REDUCTION)),
        (Ok(1), Ok(0))
    );
}

#[test]
fn an_attribute_is_told_in_its_own_size_alone() {
    let card = card();
    let (problem, _) = with_room(&card);
    let found = problem.heuristic(1).unwrap()[0];
    let ask = |algorithm: *const u64, which, out: *mut u8, bytes, written| unsafe {
        cublasLtMatmulAlgoConfigGetAttribute(algorithm.cast(), which, out, bytes, written)
    };
    let (mut value, mut written) = ([9u8; 8], 0);
    let (ours, out) = (found.algorithm.as_ptr(), value.as_mut_ptr());
    let invalid = Status::INVALID_VALUE;
    for (which, size) in (0..).zip(SIZES) {
        done(ask(ours, which, null_mut(), 0, &mut written));
        assert_eq!(written, size);
        for wrong in (1..=8).filter(|bytes| *bytes != size) {
            let refused = ask(ours, which, out, wrong, &mut written);
            assert_eq!(refused, invalid, "attribute {which} in {wrong}");
        }
        done(ask(ours, which, out, size, null_mut()));
        assert_eq!(
            ask(ours, which, null_mut(), size, &mut written),
            invalid,
            "nowhere to write"
        );
    }
    assert_eq!(value[4..], [9; 4]);
    assert_eq!(attribute(&found, 9), Err(invalid));
    assert_eq!(ask(ours, 0, null_mut(), 0, null_mut()), invalid);
    assert_eq!(ask(null(), 0, out, 4, &mut written), invalid);
    assert_eq!(ask([1; 8].as_ptr(), 0, out, 4, &mut written), invalid);
}

#[test]
fn adding_in_the_result_s_type_is_recommended_to_whoever_allows_it() {
    let card = card();
    let (problem, _) = with_room(&card);
    let cuts = |found: &Found| attribute(found, REDUCTION) == Ok(OUTPUT_TYPE);
    let first = problem.heuristic(1).unwrap()[0];
    assert!(cuts(&first), "nothing was said");
    assert_eq!(attribute(&first, SPLIT), Ok(2));
    for mask in 0..8u32 {
        let allow = cublasLtMatmulPreferenceSetAttribute;
        done(set(allow, problem.preference, MASK, mask));
        let found = problem.heuristic(8).unwrap();
        let allowed = mask & OUTPUT_TYPE != 0;
        assert_eq!(found.len(), if allowed { 5 } else { 4 }, "{mask}");
        assert_eq!(cuts(&found[0]), allowed, "{mask}");
        assert!(!found[1..].iter().any(cuts), "{mask}");
    }
    let short = set(
        cublasLtMatmulPreferenceSetAttribute,
        problem.preference,
        MASK,
        0u16,
    );
    assert_eq!(short, Status::INVALID_VALUE);
}

#[test]
fn one_cannot_be_cut_in_two() {
    let card = card();
    let make = || Batch::new(&card, F32, 1, 1, false, 0);
    let (a, b, c) = (make(), make(), make());
    let problem = problem([&a, &b, &c, &c], [false; 2], IN_F32, F32, 32 << 20);
    let found = problem.heuristic(8).unwrap();
    assert!(found.iter().all(|found| attribute(found, SPLIT) == Ok(1)));
    assert_eq!(found.len(), 4);
}

#[test]
fn parts_of_a_sum_are_rounded_to_the_result_s_type_and_so_is_what_they_add_up_to() {
    let card = card();
    let (problem, [a, b, c, d]) = with_room(&card);
    let matrices = [&a, &b, &c, &d];
    let found = problem.heuristic(2).unwrap();
    let workspace = (card.alloc(4 << 20).unwrap(), 4 << 20);
    let product = |algorithm: &Found, scales| {
        done(problem.multiply(matrices, scales, Some(algorithm), workspace));
        let values = d.read(&card);
        assert!(values.iter().all(|value| *value == values[0]));
        values[0]
    };
    // bf16 has eight bits: 256 + 1 is 256 in it, twice. In fp32 the sum is 258.
    assert_eq!(product(&found[0], [1.0, 0.0]), 256.0);
    assert_eq!(product(&found[1], [1.0, 0.0]), 258.0);
    // What is added to it comes later.
    assert_eq!(product(&found[0], [1.0, 1.0]), 258.0);
    assert_eq!(product(&found[1], [1.0, 1.0]), 260.0);
    let short = (workspace.0, found[0].workspace - 1);
    let refused = problem.multiply(matrices, [1.0, 0.0], Some(&found[0]), short);
    assert_eq!(refused, Status::INVALID_VALUE);
}

/// Prints the bytes of all algorithms, in a process of its own.
#[test]
#[ignore = "run by another test"]
fn print_algorithms() {
    let card = card();
    let (problem, _) = with_room(&card);
    let bytes = || problem.heuristic(8).unwrap().into_iter();
    let bytes = || bytes().map(|found| found.algorithm).collect::<Vec<_>>();
    assert_eq!(bytes(), bytes());
    println!("algorithms {:?}", bytes());
}

fn algorithms_of_a_process() -> String {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "print_algorithms", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let (_, printed) = text.split_once("algorithms [").unwrap();
    printed.lines().next().unwrap().into()
}

#[test]
fn the_bytes_of_an_algorithm_are_those_of_one_process() {
    assert_ne!(algorithms_of_a_process(), algorithms_of_a_process());
    let card = card();
    let (problem, [a, b, c, d]) = with_room(&card);
    let mut found = problem.heuristic(3).unwrap()[2];
    found.algorithm[7] ^= 1;
    assert_eq!(found.workspace, 0);
    done(problem.multiply([&a, &b, &c, &d], [1.0, 0.0], Some(&found), (0, 0)));
    assert_eq!(attribute(&found, SPLIT), Ok(1));
}
