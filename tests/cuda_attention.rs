//! Attention on a GPU against the CPU's, in f64 on the same inputs, rounded to the GPU's type.
//!
//! Without a GPU, run this on the virtual one:
//! `scripts/vgpu rtx3060 -- cargo test --release --features cuda --test cuda_attention`.
#![cfg(feature = "cuda")]

mod common;

use std::process::Command;

use common::gpu::{Rounded, assert_near, down, for_each_type, gpu, trains_in_bf16, unwritten, up};
use common::{Kind, noise};
use half::{bf16, f16};
use taper::ops::backend::{DropoutSite, Shape};
use taper::ops::cpu::attention as on_cpu;
use taper::ops::cpu::dropout::Dropout;
use taper::ops::cuda::attention as on_gpu;
use taper::ops::cuda::dropout::MaskView;
use taper::ops::gemm::cpu::Sequential;
use taper::ops::launch::Gpu;
use taper::rng::Seed;
use taper::terms::Precision;

const LAYER: usize = 3;
const DROPOUT: Dropout = Dropout {
    p: 0.3,
    seed: Seed(0x0123_4567_89ab_cdef),
    step: 4,
    first_sample: 2,
};

const fn shape(sequences: usize, positions: usize, heads: usize, head_size: usize) -> Shape {
    Shape {
        sequences,
        positions,
        heads,
        head_size,
    }
}

/// What one forward and backward read.
struct Inputs<T> {
    shape: Shape,
    dropout: Option<Dropout>,
    qkv: Vec<T>,
    dout: Vec<T>,
}

impl<T: Rounded> Inputs<T> {
    /// Scores have a deviation of about `sharpness` / 3.
    fn new(shape: Shape, dropout: Option<Dropout>, sharpness: f64) -> Self {
        let len = shape.sequences * shape.positions * shape.heads * shape.head_size;
        let columns = shape.heads * shape.head_size;
        let mut qkv = noise::<f64>(3 * len, 1);
        for row in qkv.chunks_exact_mut(3 * columns) {
            row[..columns].iter_mut().for_each(|q| *q *= sharpness);
        }
        Self {
            shape,
            dropout,
            qkv: T::round_all(&qkv),
            dout: T::round_all(&noise(len, 2)),
        }
    }
}

/// What they wrote.
#[derive(Debug, PartialEq)]
struct Outputs<T, S> {
    out: Vec<T>,
    lse: Vec<S>,
    dqkv: Vec<T>,
}

fn work(scratch: &mut [f64]) -> on_cpu::AttentionWorkspace<'_, f64> {
    on_cpu::AttentionWorkspace {
        scratch,
        products: Sequential::default(),
    }
}

fn compute_on_cpu<T: Rounded>(inputs: &Inputs<T>) -> Outputs<f64, f64> {
    let shape = inputs.shape;
    let (qkv, dout) = (T::widen_all(&inputs.qkv), T::widen_all(&inputs.dout));
    let dropout = inputs.dropout.map(|dropout| on_cpu::WeightDropout {
        dropout,
        layer: LAYER,
    });
    let mut out = vec![0.0; dout.len()];
    let mut lse = vec![0.0; shape.sequences * shape.heads * shape.positions];
    let mut dqkv = vec![0.0; qkv.len()];
    let mut scratch = vec![0.0; shape.scratch_len(1)];
    let queries = 0..shape.positions;
    on_cpu::forward(
        &qkv,
        &mut out,
        &mut lse,
        shape,
        queries,
        dropout,
        work(&mut scratch),
    );
    let saved = on_cpu::AttentionSavedSlices {
        qkv: &qkv,
        out: &out,
        lse: &lse,
    };
    on_cpu::backward(&dout, saved, &mut dqkv, shape, dropout, work(&mut scratch));
    Outputs { out, lse, dqkv }
}

fn compute_on_gpu<T: Rounded>(gpu: &Gpu, inputs: &Inputs<T>) -> Outputs<T, f32> {
    let shape = inputs.shape;
    let (qkv, dout) = (up(gpu, &inputs.qkv), up(gpu, &inputs.dout));
    let header = inputs.dropout.unwrap_or(DROPOUT);
    let header = up(gpu, &[header.step, header.first_sample]);
    let header = header.as_view();
    let dropout = inputs.dropout.map(|dropout| MaskView {
        p: dropout.p,
        seed: dropout.seed,
        site: DropoutSite::Attention {
            layer: LAYER,
            head: 0,
        },
        header: &header,
    });
    let rows = shape.sequences * shape.heads * shape.positions;
    let mut out = unwritten::<T>(gpu, inputs.dout.len());
    let mut lse = unwritten::<f32>(gpu, rows);
    let (qkv, dout) = (qkv.as_view(), dout.as_view());
    on_gpu::forward(
        gpu,
        shape,
        0,
        dropout,
        &qkv,
        &mut out.as_view_mut(),
        &mut lse.as_view_mut(),
    )
    .unwrap();
    let saved = on_gpu::AttentionSavedViews {
        qkv: &qkv,
        out: &out.as_view(),
        lse: &lse.as_view(),
    };
    let mut dqkv = unwritten::<T>(gpu, inputs.qkv.len());
    let mut scratch = unwritten::<f32>(gpu, on_gpu::scratch_len(shape));
    on_gpu::backward(
        gpu,
        shape,
        dropout,
        &dout,
        saved,
        &mut dqkv.as_view_mut(),
        &mut scratch.as_view_mut(),
    )
    .unwrap();
    Outputs {
        out: down(gpu, &out),
        lse: down(gpu, &lse),
        dqkv: down(gpu, &dqkv),
    }
}

fn check<T: Rounded>(gpu: &Gpu, inputs: &Inputs<T>) {
    check_parts(gpu, inputs, &["dq", "dk", "dv"]);
}

/// Where a gradient is zero, nothing says how far from it rounding may be.
fn check_parts<T: Rounded>(gpu: &Gpu, inputs: &Inputs<T>, nonzero: &[&str]) {
    let what = format!(
        "{} {:?} {:?}",
        T::SUFFIX,
        inputs.shape,
        inputs.dropout.map(|d| d.p)
    );
    let (found, expected) = (compute_on_gpu(gpu, inputs), compute_on_cpu(inputs));
    assert_near(
        &format!("out, {what}"),
        &found.out,
        &expected.out,
        Kind::Forward,
    );
    assert_near(
        &format!("lse, {what}"),
        &found.lse,
        &expected.lse,
        Kind::Forward,
    );
    let gradients = T::widen_all(&found.dqkv);
    assert!(gradients.iter().all(|x| x.is_finite()), "dqkv, {what}");
    // Parts have magnitudes of their own.
    let columns = inputs.shape.heads * inputs.shape.head_size;
    for (part, name) in ["dq", "dk", "dv"].iter().enumerate() {
        if !nonzero.contains(name) {
            continue;
        }
        let (found, expected) = (
            part_of(&found.dqkv, part, columns),
            part_of(&expected.dqkv, part, columns),
        );
        assert_near(
            &format!("{name}, {what}"),
            &found,
            &expected,
            Kind::Gradient,
        );
    }
}

/// Queries (0), keys (1) or values (2) of a packed array.
fn part_of<T: Copy>(packed: &[T], part: usize, columns: usize) -> Vec<T> {
    let rows = packed.chunks_exact(3 * columns);
    rows.flat_map(|row| &row[part * columns..][..columns])
        .copied()
        .collect()
}

/// Every kernel's head size, and others that are left to plain CUDA cores; positions that end within a tile,
/// and past one.
const SHAPES: [Shape; 8] = [
    shape(2, 45, 2, 20),
    shape(1, 37, 1, 72),
    shape(2, 150, 2, 16),
    shape(1, 33, 2, 32),
    shape(1, 201, 2, 64),
    shape(1, 70, 2, 80),
    shape(1, 97, 1, 96),
    shape(1, 130, 1, 128),
];

fn agrees_with_the_cpu<T: Rounded>(gpu: &Gpu) {
    for shape in SHAPES {
        for dropout in [None, Some(DROPOUT)] {
            check::<T>(gpu, &Inputs::new(shape, dropout, 3.0));
        }
    }
}

#[test]
fn f32_agrees_with_the_cpu() {
    let Some(gpu) = gpu() else { return };
    agrees_with_the_cpu::<f32>(&gpu);
}

#[test]
fn f16_agrees_with_the_cpu() {
    let Some(gpu) = gpu() else { return };
    agrees_with_the_cpu::<f16>(&gpu);
}

#[test]
fn bf16_agrees_with_the_cpu() {
    let Some(gpu) = gpu() else { return };
    if trains_in_bf16(&gpu) {
        agrees_with_the_cpu::<bf16>(&gpu);
    }
}

/// Turing's tensor cores multiply half as deep, and nothing is copied asynchronously: other PTX.
#[test]
fn f16_agrees_on_turing() {
    if std::env::var_os("VGPU_CARD").is_none() {
        eprintln!("skipped: this test chooses its card, use scripts/vgpu");
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "f16_agrees_with_the_cpu"])
        .env("VGPU_CARD", "t4")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

/// Shapes for what is said of a kernel of either kind.
const FEW: [Shape; 2] = [shape(2, 45, 2, 20), shape(2, 70, 2, 64)];

#[test]
fn two_launches_give_the_same_bits() {
    fn same<T: Rounded>(gpu: &Gpu) {
        for shape in FEW {
            let inputs = Inputs::<T>::new(shape, Some(DROPOUT), 3.0);
            assert_eq!(compute_on_gpu(gpu, &inputs), compute_on_gpu(gpu, &inputs));
        }
    }
    let Some(gpu) = gpu() else { return };
    for_each_type!(gpu, same());
}

/// The queries behind those that were computed before: all that a token more needs.
#[test]
fn the_last_queries_alone_give_the_same_bits() {
    fn same<T: Rounded>(gpu: &Gpu) {
        for shape in SHAPES.into_iter().chain([shape(1, 300, 2, 64)]) {
            let inputs = Inputs::<T>::new(shape, None, 3.0);
            let (all, qkv) = (compute_on_gpu(gpu, &inputs), up(gpu, &inputs.qkv));
            let columns = shape.heads * shape.head_size;
            for first in [0, shape.positions / 2, shape.positions - 1] {
                // What is not computed keeps its value.
                let mut out = up(gpu, &vec![T::round(7.0); all.out.len()]);
                let mut lse = unwritten::<f32>(gpu, all.lse.len());
                let (out_view, lse_view) = (&mut out.as_view_mut(), &mut lse.as_view_mut());
                let qkv = &qkv.as_view();
                on_gpu::forward(gpu, shape, first, None, qkv, out_view, lse_view).unwrap();
                let rows = shape.positions * columns;
                for (want, got) in all.out.chunks(rows).zip(down(gpu, &out).chunks(rows)) {
                    assert_eq!(want[first * columns..], got[first * columns..], "{shape:?}");
                    // No tile on plain CUDA cores has more rows; tensor cores compute all of them.
                    let before = &got[..first.saturating_sub(127) * columns];
                    let is_untouched = before.iter().all(|&x| x == T::round(7.0));
                    assert!(
                        is_untouched || T::PRECISION != Precision::Float32,
                        "{shape:?}"
                    );
                }
            }
        }
    }
    let Some(gpu) = gpu() else { return };
    for_each_type!(gpu, same());
}

/// Of what is computed for one sequence, nothing depends on those beside it: gradients are the same at any
/// micro-batch.
#[test]
fn a_sequence_alone_gives_the_same_bits() {
    fn same<T: Rounded>(gpu: &Gpu) {
        for shape in FEW {
            let both = Inputs::<T>::new(shape, Some(DROPOUT), 3.0);
            let second = |all: &[T]| all[all.len() / 2..].to_vec();
            let alone = Inputs {
                shape: Shape {
                    sequences: 1,
                    ..shape
                },
                dropout: Some(Dropout {
                    first_sample: DROPOUT.first_sample + 1,
                    ..DROPOUT
                }),
                qkv: second(&both.qkv),
                dout: second(&both.dout),
            };
            let (both, alone) = (compute_on_gpu(gpu, &both), compute_on_gpu(gpu, &alone));
            assert_eq!(second(&both.out), alone.out);
            assert_eq!(second(&both.dqkv), alone.dqkv);
        }
    }
    let Some(gpu) = gpu() else { return };
    for_each_type!(gpu, same());
}

/// Scores of some hundreds, where exp overflows and a difference of one decides. They are whole multiples of a
/// power of two, so that fp32 has them exactly. lse, of the same size, is rounded: gradients are as far off as that.
#[test]
fn scores_far_from_zero_neither_overflow_nor_lose_their_order() {
    fn far<T: Rounded>(gpu: &Gpu) {
        for shape in [shape(2, 45, 2, 4), shape(2, 70, 2, 64)] {
            let mut inputs = Inputs::<T>::new(shape, None, 1.0);
            let columns = shape.heads * shape.head_size;
            for row in inputs.qkv.chunks_exact_mut(3 * columns) {
                for (column, x) in row[..2 * columns].iter_mut().enumerate() {
                    let unit = if column < columns { 64.0 } else { 1.0 };
                    *x = T::round((x.widen() * 4.0).round() / 4.0 * unit);
                }
            }
            check_parts(gpu, &inputs, &[]);
        }
    }
    let Some(gpu) = gpu() else { return };
    for_each_type!(gpu, far());
}

#[test]
fn equal_keys_share_a_query_evenly() {
    fn even<T: Rounded>(gpu: &Gpu) {
        for shape in FEW {
            let mut inputs = Inputs::<T>::new(shape, None, 3.0);
            let columns = shape.heads * shape.head_size;
            for row in inputs.qkv.chunks_exact_mut(3 * columns) {
                row[columns..2 * columns].fill(T::round(0.5));
            }
            check_parts(gpu, &inputs, &["dk", "dv"]);
        }
    }
    let Some(gpu) = gpu() else { return };
    for_each_type!(gpu, even());
}

#[test]
fn a_lone_position_passes_its_value_on() {
    let Some(gpu) = gpu() else { return };
    for head_size in [4, 64] {
        for_each_type!(gpu, lone_position(head_size));
    }
}

fn lone_position<T: Rounded>(gpu: &Gpu, head_size: usize) {
    let inputs = Inputs::<T>::new(shape(2, 1, 3, head_size), None, 3.0);
    let found = compute_on_gpu(gpu, &inputs);
    let columns = 3 * head_size;
    assert_eq!(found.out, part_of(&inputs.qkv, 2, columns), "out = v");
    let dv = part_of(&found.dqkv, 2, columns);
    assert_near(
        "dv = dout",
        &dv,
        &T::widen_all(&inputs.dout),
        Kind::Gradient,
    );
    // Its weight is 1 whatever its score: dP and the row's dot are the same sum, in two orders.
    for part in [0, 1] {
        let gradient = T::widen_all(&part_of(&found.dqkv, part, columns));
        assert!(gradient.iter().all(|x| x.abs() < 1e-5), "{gradient:?}");
    }
}
