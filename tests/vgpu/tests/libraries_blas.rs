//! cuBLAS's products, held against sums written out.

mod on_card;
mod products;

use on_card::{PER_THREAD, check, on};
use products::*;
use vgpu::driver::capture::cuStreamBeginCapture_v2;
use vgpu::driver::context::cuCtxSynchronize;
use vgpu::driver::graph::{cuGraphInstantiateWithFlags, cuGraphLaunch, cuStreamEndCapture};
use vgpu::driver::result::CuResult;
use vgpu::libraries::blas::*;
use vgpu::libraries::blas_status::Status;

fn handle() -> usize {
    let mut handle = 0;
    done(unsafe { cublasCreate_v2(&mut handle) });
    done(unsafe { cublasSetStream_v2(handle, PER_THREAD) });
    handle
}

/// Calls `cublasGemmStridedBatchedEx` with host scales.
fn gemm(
    handle: usize,
    a: &Batch,
    b: &Batch,
    [ta, tb]: [bool; 2],
    c: &Batch,
    compute: u32,
    scales: [f64; 2],
) -> Status {
    let inner = if ta { a.rows } else { a.columns };
    let scale = match compute {
        IN_F16 => F16,
        IN_F64 => F64,
        _ => F32,
    };
    let [alpha, beta] = scales.map(|value| encode(scale, &[value]));
    unsafe {
        cublasGemmStridedBatchedEx(
            handle,
            ta.into(),
            tb.into(),
            c.rows as i32,
            c.columns as i32,
            inner as i32,
            alpha.as_ptr(),
            a.address,
            a.kind,
            a.leading as i32,
            a.stride as i64,
            b.address,
            b.kind,
            b.leading as i32,
            b.stride as i64,
            beta.as_ptr(),
            c.address,
            c.kind,
            c.leading as i32,
            c.stride as i64,
            BATCH as i32,
            compute,
            -1,
        )
    }
}

#[test]
fn cublas_multiplies_every_kind_transposed_padded_and_batched() {
    let card = card();
    let handle = handle();
    let kinds = [
        (F32, F32, IN_F32),
        (F32, F32, IN_TF32),
        (F64, F64, IN_F64),
        (F16, F16, IN_F16),
        (F16, F16, IN_F32),
        (F16, F32, IN_F32),
        (BF16, BF16, IN_F32),
        (BF16, F32, IN_F32),
    ];
    for (kind, result, compute) in kinds {
        for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
            for (room, scales) in [(0, [1.0, 0.0]), (3, [2.0, -1.0]), (1, [0.0, 1.0])] {
                let (m, n, k) = (5, 4, 19);
                let (rows, columns) = if ta { (k, m) } else { (m, k) };
                let a = Batch::new(&card, kind, rows, columns, false, room);
                let (rows, columns) = if tb { (n, k) } else { (k, n) };
                let b = Batch::new(&card, kind, rows, columns, false, room);
                let c = Batch::new(&card, result, m, n, false, room);
                done(gemm(handle, &a, &b, [ta, tb], &c, compute, scales));
                let expected = expected(&a, ta, &b, tb, &c, &c, scales);
                assert_eq!(
                    c.read(&card),
                    expected,
                    "{kind} {result} {compute} {ta} {tb} {room}"
                );
            }
        }
    }
}

#[test]
fn one_matrix_may_serve_a_whole_batch_and_old_results_are_not_read() {
    let card = card();
    let handle = handle();
    let a = Batch::new(&card, F32, 3, 2, false, 0);
    let mut b = Batch::new(&card, F32, 2, 4, false, 0);
    b.stride = 0;
    let mut c = Batch::new(&card, F32, 3, 4, false, 0);
    // Never written: with beta zero nothing of it may be read.
    c.address = card.alloc(c.values.len() * 4).unwrap();
    done(gemm(handle, &a, &b, [false; 2], &c, IN_F32, [1.0, 0.0]));
    assert_eq!(
        c.read(&card),
        expected(&a, false, &b, false, &c, &c, [1.0, 0.0])
    );
}

#[test]
fn the_typed_functions_multiply_too() {
    let card = card();
    let handle = handle();
    let one = (1.0f32.to_le_bytes(), 0.0f32.to_le_bytes());
    let two = (1.0f64.to_le_bytes(), 0.0f64.to_le_bytes());
    let [a, b, c] = [1.0f32, 2.0, 0.0].map(|value| card.put(&value.to_le_bytes()));
    let (alpha, beta) = (one.0.as_ptr(), one.1.as_ptr());
    done(unsafe { cublasSgemm_v2(handle, 0, 0, 1, 1, 1, alpha, a, 1, b, 1, beta, c, 1) });
    assert_eq!(decode(F32, &card.get(c, 4)), [2.0]);
    done(unsafe {
        cublasSgemmStridedBatched(
            handle, 0, 0, 1, 1, 1, alpha, b, 1, 1, b, 1, 1, beta, c, 1, 1, 1,
        )
    });
    assert_eq!(decode(F32, &card.get(c, 4)), [4.0]);
    let [a, b, c] = [1.0f64, 2.0, 0.0].map(|value| card.put(&value.to_le_bytes()));
    let (alpha, beta) = (two.0.as_ptr(), two.1.as_ptr());
    done(unsafe { cublasDgemm_v2(handle, 0, 0, 1, 1, 1, alpha, a, 1, b, 1, beta, c, 1) });
    done(unsafe {
        cublasDgemmStridedBatched(
            handle, 0, 0, 1, 1, 1, alpha, c, 1, 1, c, 1, 1, beta, a, 1, 1, 1,
        )
    });
    assert_eq!(decode(F64, &card.get(a, 8)), [4.0]);
}

#[test]
fn tf32_drops_bits_that_f32_keeps() {
    let card = card();
    let handle = handle();
    let alpha = 1.0f32.to_le_bytes();
    let beta = 0.0f32.to_le_bytes();
    let [a, b, c] = [1.0 + 1.0 / 4096.0, 1.0f32, 0.0].map(|value| card.put(&value.to_le_bytes()));
    for (mode, expected) in [(0, 1.0 + 1.0 / 4096.0), (3, 1.0)] {
        done(unsafe { cublasSetMathMode(handle, mode) });
        let (alpha, beta) = (alpha.as_ptr(), beta.as_ptr());
        done(unsafe { cublasSgemm_v2(handle, 0, 0, 1, 1, 1, alpha, a, 1, b, 1, beta, c, 1) });
        assert_eq!(decode(F32, &card.get(c, 4)), [expected]);
    }
}

#[test]
fn what_cublas_cannot_do_is_refused() {
    let card = on("like = \"t4\"\nfail = [\"cublasGemmStridedBatchedEx=2\"]");
    let handle = handle();
    let make = |kind| Batch::new(&card, kind, 2, 2, false, 0);
    let try_with = |a: &Batch, c: &Batch, compute| {
        let b = make(a.kind);
        gemm(handle, a, &b, [false; 2], c, compute, [1.0, 0.0])
    };
    // Turing has no bf16; nothing has integers here, nor f64 from f32.
    assert_eq!(
        try_with(&make(BF16), &make(BF16), IN_F32),
        Status::ARCH_MISMATCH
    );
    assert_eq!(
        try_with(&make(F32), &make(F64), IN_F64),
        Status::NOT_SUPPORTED
    );
    assert_eq!(try_with(&make(F32), &make(F32), 72), Status::NOT_SUPPORTED);
    let mut narrow = make(F32);
    narrow.leading = 1;
    assert_eq!(try_with(&narrow, &make(F32), IN_F32), Status::INVALID_VALUE);
    done(try_with(&make(F32), &make(F32), IN_F32));
    // The second one is planned to fail.
    assert_eq!(
        try_with(&make(F32), &make(F32), IN_F32),
        Status::NOT_SUPPORTED
    );
    done(try_with(&make(F32), &make(F32), IN_F32));
    assert_eq!(
        gemm(
            0,
            &make(F32),
            &make(F32),
            [false; 2],
            &make(F32),
            IN_F32,
            [1.0, 0.0]
        ),
        Status::NOT_INITIALIZED
    );
    assert_eq!(unsafe { cublasDestroy_v2(7) }, Status::NOT_INITIALIZED);
}

#[test]
fn a_product_beyond_its_memory_ends_the_context() {
    let card = card();
    let handle = handle();
    let make = || Batch::new(&card, F32, 2, 2, false, 0);
    let (a, mut b, c) = (make(), make(), make());
    b.stride += 1;
    done(gemm(handle, &a, &b, [false; 2], &c, IN_F32, [1.0, 0.0]));
    assert_eq!(
        unsafe { cuCtxSynchronize() },
        CuResult::ERROR_ILLEGAL_ADDRESS
    );
    assert_eq!(card.alloc(4), Err(CuResult::ERROR_ILLEGAL_ADDRESS));
    assert!(
        card.last_fault().contains("cublasGemmStridedBatchedEx"),
        "{}",
        card.last_fault()
    );
}

#[test]
fn a_product_is_captured_like_a_kernel() {
    let card = card();
    let handle = handle();
    let (a, b, c) = (
        Batch::new(&card, F32, 2, 3, false, 0),
        Batch::new(&card, F32, 3, 2, false, 0),
        Batch::new(&card, F32, 2, 2, false, 0),
    );
    check(unsafe { cuStreamBeginCapture_v2(PER_THREAD, 1) });
    done(gemm(handle, &a, &b, [false; 2], &c, IN_F32, [1.0, 0.0]));
    let (mut graph, mut executable) = (0, 0);
    check(unsafe { cuStreamEndCapture(PER_THREAD, &mut graph) });
    check(unsafe { cuGraphInstantiateWithFlags(&mut executable, graph, 0) });
    assert_eq!(c.read(&card), c.values);
    check(unsafe { cuGraphLaunch(executable, PER_THREAD) });
    assert_eq!(
        c.read(&card),
        expected(&a, false, &b, false, &c, &c, [1.0, 0.0])
    );
}
