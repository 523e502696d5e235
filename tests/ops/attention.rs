//! Causal attention, with and without dropout, in float32 and bfloat16.

use taper::device::Avx512Bf16;
use taper::ops::backend::{DropoutSite, Shape};
use taper::ops::cpu::attention::{
    self, AttentionSavedSlices, AttentionWorkspace, QUERY_BLOCK, WeightDropout, attention_ref,
};
use taper::ops::cpu::dropout::factors;
use taper::ops::gemm::cpu::Sequential;
use taper::ops::gemm::{Cpu, Products};
use taper::ops::loops::Element;
use taper::terms::Inputs;

use crate::common::{Kind, assert_close, noise, tensor, values, variable};
use crate::{DROPOUT, gradients};

fn weight_dropout(with_dropout: bool) -> Option<WeightDropout> {
    with_dropout.then_some(WeightDropout {
        dropout: DROPOUT,
        layer: 3,
    })
}

/// The gradient of attention's output that is differentiated.
fn attention_gradient<T: Element>(shape: Shape) -> Vec<T> {
    noise(
        shape.sequences * shape.positions * shape.heads * shape.head_size,
        2,
    )
}

fn packed<T: Element>(shape: Shape) -> Vec<T> {
    noise(
        3 * shape.sequences * shape.positions * shape.heads * shape.head_size,
        1,
    )
}

/// Attention of [`packed`], and its gradient.
fn attention_by<T: Element>(products: Sequential, shape: Shape, with_dropout: bool) -> [Vec<T>; 2] {
    let (b, t, h) = (shape.sequences, shape.positions, shape.heads);
    let dropout = weight_dropout(with_dropout);
    let (qkv, dout) = (packed::<T>(shape), attention_gradient::<T>(shape));
    let nan = T::of(f64::NAN);
    let (mut out, mut lse) = (vec![nan; dout.len()], vec![nan; b * h * t]);
    let mut scratch = vec![nan; shape.scratch_len(2)];
    let scratch = &mut scratch;
    let work = AttentionWorkspace { scratch, products };
    attention::forward(&qkv, &mut out, &mut lse, shape, 0..t, dropout, work);
    scratch.fill(nan);
    let mut dqkv = vec![nan; qkv.len()];
    let saved = AttentionSavedSlices {
        qkv: &qkv,
        out: &out,
        lse: &lse,
    };
    let work = AttentionWorkspace { scratch, products };
    attention::backward(&dout, saved, &mut dqkv, shape, dropout, work);
    [out, dqkv]
}

fn check_attention<T: Element>(shape: Shape, with_dropout: bool) {
    let (b, t, h) = (shape.sequences, shape.positions, shape.heads);
    let c = h * shape.head_size;
    let [out, dqkv] = attention_by::<T>(Sequential::default(), shape, with_dropout);
    let mask: Vec<T> = (0..b * h)
        .flat_map(|i| {
            let site = DropoutSite::Attention {
                layer: 3,
                head: i % h,
            };
            factors::<T>(DROPOUT, site, i / h, t, t)
        })
        .collect();
    let mask = with_dropout.then(|| tensor(&mask, &[b, h, t, t]));
    let qkv_var = variable(&packed::<T>(shape), &[b, t, 3 * c]);
    let want = attention_ref(&qkv_var, h, mask.as_ref()).unwrap();
    assert_close("attention", &out, &values::<T>(&want), Kind::Forward);
    let dout = attention_gradient::<T>(shape);
    let want = gradients(&want, &dout, &[&qkv_var]);
    assert_close("dqkv", &dqkv, &want[0], Kind::Gradient);
}

#[test]
fn attention_matches_its_twin_with_and_without_dropout() {
    for (sequences, positions, heads, head_size) in [
        (1, 1, 1, 1),
        (2, 5, 3, 4),
        (1, QUERY_BLOCK, 2, 16),
        (2, QUERY_BLOCK + 1, 1, 5),
        (1, 2 * QUERY_BLOCK + 37, 2, 24),
        (1, 10 * QUERY_BLOCK - 3, 1, 8),
    ] {
        let shape = Shape {
            sequences,
            positions,
            heads,
            head_size,
        };
        for with_dropout in [false, true] {
            check_attention::<f32>(shape, with_dropout);
            check_attention::<f64>(shape, with_dropout);
        }
    }
}

/// Values below 1, rounded to 8 bits before they are multiplied.
#[test]
fn attention_in_bfloat16_is_that_in_float32_but_for_its_rounding() {
    if Avx512Bf16::probe().is_none() {
        eprintln!("skipped: this CPU does not multiply in bf16");
        return;
    }
    let in_bfloat16 = Products::<f32>::untuned(Cpu::new(Inputs::Float32AsBfloat16)).sequential();
    for (positions, head_size) in [(QUERY_BLOCK + 1, 5), (600, 24), (1000, 64)] {
        let shape = Shape {
            sequences: 1,
            positions,
            heads: 2,
            head_size,
        };
        for with_dropout in [false, true] {
            let [want, want_gradient] = attention_by(Sequential::default(), shape, with_dropout);
            let [got, gradient] = attention_by(in_bfloat16, shape, with_dropout);
            for (got, want) in [(got, want), (gradient, want_gradient)] {
                let error = relative_error(&got, &want);
                assert!((1e-4..1e-2).contains(&error), "{shape:?}: {error:e}");
            }
        }
    }
}

/// Norm of the errors, as a fraction of the norm of `want`.
fn relative_error(got: &[f32], want: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x).powi(2);
    let errors = got.iter().zip(want).map(|(got, want)| square(got - want));
    let norm: f64 = want.iter().map(|&want| square(want)).sum();
    (errors.sum::<f64>() / norm).sqrt()
}

#[test]
fn attention_of_one_new_query_equals_that_row_of_the_whole() {
    let shape = Shape {
        sequences: 1,
        positions: 70,
        heads: 2,
        head_size: 8,
    };
    let qkv = noise::<f32>(70 * 48, 1);
    let mut scratch = vec![0.0; shape.scratch_len(1)];
    let mut whole = (vec![0.0; 70 * 16], vec![0.0; 140]);
    let mut last = whole.clone();
    let (out, lse) = (&mut whole.0, &mut whole.1);
    attention::forward(
        &qkv,
        out,
        lse,
        shape,
        0..70,
        None,
        AttentionWorkspace {
            scratch: &mut scratch,
            products: Sequential::default(),
        },
    );
    let (out, lse) = (&mut last.0, &mut last.1);
    attention::forward(
        &qkv,
        out,
        lse,
        shape,
        69..70,
        None,
        AttentionWorkspace {
            scratch: &mut scratch,
            products: Sequential::default(),
        },
    );
    assert_close(
        "row",
        &last.0[69 * 16..],
        &whole.0[69 * 16..],
        Kind::Forward,
    );
}
