//! cuBLASLt's products, held against sums written out, and its heuristic.

mod on_card;
mod products;

use on_card::on;
use products::lt::{Found, problem, set};
use products::*;
use vgpu::libraries::blas_lt::*;
use vgpu::libraries::blas_status::Status;

#[test]
fn cublas_lt_multiplies_every_kind_transposed_and_by_rows_with_every_algorithm() {
    let card = card();
    let workspace = (card.alloc(4 << 20).unwrap(), 4 << 20);
    for (kind, result) in [
        (F32, F32),
        (F16, F16),
        (F16, F32),
        (BF16, BF16),
        (BF16, F32),
    ] {
        for bits in 0..32 {
            let [ta, tb, rows_a, rows_b, rows_d] = [0, 1, 2, 3, 4].map(|bit| bits >> bit & 1 == 1);
            let (m, n, k) = (4, 5, 6);
            let (rows, columns) = if ta { (k, m) } else { (m, k) };
            let a = Batch::new(&card, kind, rows, columns, rows_a, 1);
            let (rows, columns) = if tb { (n, k) } else { (k, n) };
            let b = Batch::new(&card, kind, rows, columns, rows_b, 2);
            let c = Batch::new(&card, result, m, n, false, 1);
            let d = Batch::new(&card, result, m, n, rows_d, 0);
            let matrices = [&a, &b, &c, &d];
            let problem = problem(matrices, [ta, tb], IN_F32, F32, workspace.1 as u64);
            let found = problem.heuristic(8).unwrap();
            assert_eq!(found.len(), 4);
            let algorithm = found.get(bits % 5);
            let workspace = algorithm.map_or((0, 0), |_| workspace);
            done(problem.multiply(matrices, [2.0, 1.0], algorithm, workspace));
            let expected = expected(&a, ta, &b, tb, &c, &d, [2.0, 1.0]);
            assert_eq!(d.read(&card), expected, "{kind} {result} {bits:05b}");
        }
    }
}

#[test]
fn cublas_lt_finds_what_fits_the_workspace_and_insists_on_it() {
    let card = card();
    let make = || Batch::new(&card, F32, 2, 2, false, 0);
    let (a, b, c) = (make(), make(), make());
    let matrices = [&a, &b, &c, &c];
    let small = problem(matrices, [false; 2], IN_F32, F32, 0);
    let found = small.heuristic(8).unwrap();
    assert_eq!(
        found
            .iter()
            .map(|found| found.workspace)
            .collect::<Vec<_>>(),
        [0]
    );
    let large = problem(matrices, [false; 2], IN_F32, F32, 32 << 20);
    assert_eq!(large.heuristic(2).unwrap().len(), 2);
    let found = large.heuristic(8).unwrap();
    assert_eq!(found.len(), 5);
    let first = &found[1];
    assert_eq!((first.workspace, first.state), (4 << 20, 0));
    let short = card.alloc(first.workspace - 512).unwrap();
    let scales = [1.0, 0.0];
    let invalid = Status::INVALID_VALUE;
    assert_eq!(
        large.multiply(matrices, scales, Some(first), (short, first.workspace)),
        invalid
    );
    assert_eq!(
        large.multiply(matrices, scales, Some(first), (0, 0)),
        invalid
    );
    let whole = card.alloc(first.workspace).unwrap();
    let less = (whole, first.workspace - 1);
    assert_eq!(large.multiply(matrices, scales, Some(first), less), invalid);
    let foreign = Found {
        algorithm: [1; 8],
        ..*first
    };
    assert_eq!(
        large.multiply(matrices, scales, Some(&foreign), (0, 0)),
        invalid
    );
    done(large.multiply(matrices, scales, Some(&found[2]), (0, 0)));
}

#[test]
fn cublas_lt_refuses_what_it_does_not_do() {
    let card = on(
        "like = \"t4\"\nfail = [\"cublasLtMatmul\", \"cublasLtMatmulAlgoGetHeuristic=2\", \"cublasLtCreate=4\"]",
    );
    let make = |kind| Batch::new(&card, kind, 2, 2, false, 0);
    let (a, b, c) = (make(F16), make(F16), make(F16));
    let matrices = [&a, &b, &c, &c];
    let good = problem(matrices, [false; 2], IN_F32, F32, 0);
    good.heuristic(1).unwrap();
    assert_eq!(good.heuristic(1).err(), Some(Status::NOT_SUPPORTED));
    good.heuristic(1).unwrap();
    let planned = good.multiply(matrices, [1.0, 0.0], None, (0, 0));
    assert_eq!(planned, Status::NOT_SUPPORTED);
    assert_eq!(
        set(cublasLtMatmulDescSetAttribute, good.operation, 7, 2u32),
        Status::NOT_SUPPORTED
    );
    done(set(cublasLtMatmulDescSetAttribute, good.operation, 7, 1u32));
    assert_eq!(
        set(cublasLtMatmulDescSetAttribute, good.operation, 3, 1u64),
        Status::INVALID_VALUE
    );
    let (a, b, c) = (make(BF16), make(BF16), make(BF16));
    let bf16 = problem([&a, &b, &c, &c], [false; 2], IN_F32, F32, 0);
    assert_eq!(bf16.heuristic(1).err(), Some(Status::NOT_SUPPORTED));
    let mut wide = make(F16);
    wide.columns = 3;
    wide.leading = 3;
    let wrong = problem([&wide, &b, &c, &c], [false; 2], IN_F32, F32, 0);
    assert_eq!(wrong.heuristic(1).err(), Some(Status::INVALID_VALUE));
    let mut handle = 0;
    assert_eq!(
        unsafe { cublasLtCreate(&mut handle) },
        Status::NOT_INITIALIZED
    );
}

/// GELU with tanh, to six digits.
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh())
}

#[test]
fn cublas_lt_adds_biases_and_applies_gelu() {
    let card = card();
    let (m, n, k) = (8, 5, 6);
    let a = Batch::new(&card, F32, m, k, false, 1);
    let b = Batch::new(&card, F32, k, n, false, 2);
    let (d, aux) = (
        Batch::new(&card, F32, m, n, false, 0),
        Batch::new(&card, F32, m, n, false, 0),
    );
    let bias = Batch::new(&card, F32, m, 1, false, 3);
    let matrices = [&a, &b, &d, &d];
    let problem = problem(matrices, [false; 2], IN_F32, F32, 0);
    let attribute = |which, value: u64| {
        set(
            cublasLtMatmulDescSetAttribute,
            problem.operation,
            which,
            value,
        )
    };
    let epilogue = |which: u32| {
        done(set(
            cublasLtMatmulDescSetAttribute,
            problem.operation,
            7,
            which,
        ))
    };
    let run = || problem.multiply(matrices, [1.0, 0.0], None, (0, 0));
    let plain = expected(&a, false, &b, false, &d, &d, [1.0, 0.0]);

    epilogue(164);
    assert_eq!(run(), Status::INVALID_VALUE, "no bias is there yet");
    done(attribute(8, bias.address));
    done(attribute(11, aux.address));
    done(attribute(12, aux.leading as u64));
    done(run());
    let (sums, activated) = (aux.read(&card), d.read(&card));
    let biases = bias.read(&card);
    assert_eq!(sums.len(), plain.len());
    let changed = plain.iter().zip(&sums).filter(|(plain, sum)| plain != sum);
    assert!(changed.count() > 0 && biases.iter().any(|bias| *bias != 0.0));
    for (sum, activated) in sums.iter().zip(&activated) {
        assert!((gelu(*sum as f32) - *activated as f32).abs() < 1e-3 * sum.abs().max(1.0) as f32);
    }

    epilogue(4);
    done(run());
    assert_eq!(d.read(&card), sums);

    // The slope, by differences of what the forward gives.
    epilogue(192);
    done(run());
    for ((plain, x), found) in plain.iter().zip(&sums).zip(d.read(&card)) {
        let slope = (gelu(*x as f32 + 1e-2) - gelu(*x as f32 - 1e-2)) / 2e-2;
        let expected = *plain as f32 * slope;
        assert!((found as f32 - expected).abs() < 2e-2 * plain.abs().max(1.0) as f32);
    }
}
