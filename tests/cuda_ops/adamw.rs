//! AdamW: the CPU's, bit for bit.

use std::ops::Range;

use taper::ops::backend::AdamW;
use taper::ops::cuda::adamw::{AdamWInputViews, AdamWRule, AdamWStateViews, decay_edges, update};
use taper::ops::cuda::cast::cast;
use taper::ops::cuda::outcome::Outcome;
use taper::ops::launch::Gpu;

use crate::common::gpu::*;
use crate::common::noise;

const RULE: AdamW = AdamW {
    learning_rate: 1e-2,
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
    weight_decay: 0.1,
    update: 3,
    gradient_scale: 0.7,
};

/// Weights, m, v.
type Moments = [Vec<f32>; 3];

fn start(len: usize) -> Moments {
    let squares = noise::<f32>(len, 3).iter().map(|x| x * x).collect();
    [noise(len, 1), noise(len, 2), squares]
}

fn on_the_cpu(start: &Moments, gradients: &[f32], runs: &[(Range<usize>, bool)]) -> Moments {
    let [mut weights, mut m, mut v] = start.clone();
    for (run, decays) in runs {
        let weight_decay = if *decays { RULE.weight_decay } else { 0.0 };
        let rule = AdamW {
            weight_decay,
            ..RULE
        };
        let (m, v) = (&mut m[run.clone()], &mut v[run.clone()]);
        rule.update(&mut weights[run.clone()], m, v, &gradients[run.clone()]);
    }
    [weights, m, v]
}

fn on_the_gpu<T: Rounded>(
    gpu: &Gpu,
    start: &Moments,
    gradients: &[f32],
    runs: &[(Range<usize>, bool)],
    is_finite: u32,
) -> (Moments, Vec<T>) {
    let outcome = Outcome {
        gradient_scale: RULE.gradient_scale as f32,
        is_finite,
        ..Outcome::default()
    };
    let [mut weights, mut m, mut v] = start.each_ref().map(|values| up(gpu, values));
    let mut copy = up(gpu, &vec![T::round(0.0); gradients.len()]);
    let (gradients, edges) = (
        up(gpu, gradients),
        up(gpu, &decay_edges(runs.iter().cloned())),
    );
    let (rule, outcome) = (up(gpu, &[AdamWRule::from(&RULE)]), up(gpu, &[outcome]));
    let state = AdamWStateViews {
        weights: &mut weights.as_view_mut(),
        m: &mut m.as_view_mut(),
        v: &mut v.as_view_mut(),
        copy: Some(&mut copy.as_view_mut()),
    };
    let reads = AdamWInputViews {
        gradients: &gradients.as_view(),
        decay_edges: &edges.as_view(),
        rule: &rule.as_view(),
        outcome: &outcome.as_view(),
    };
    update::<T>(gpu, state, reads).unwrap();
    (
        [weights, m, v].map(|array| down(gpu, &array)),
        down(gpu, &copy),
    )
}

fn check<T: Rounded>(gpu: &Gpu, runs: &[(Range<usize>, bool)]) {
    let len = runs.last().unwrap().0.end;
    let (start, gradients) = (start(len), noise::<f32>(len, 4));
    let want = on_the_cpu(&start, &gradients, runs);
    let (got, copy) = on_the_gpu::<T>(gpu, &start, &gradients, runs, 1);
    assert!(got == want, "the CPU's bits, {}", T::SUFFIX);
    let rounded: Vec<T> = want[0].iter().map(|&w| T::round(f64::from(w))).collect();
    assert!(copy == rounded, "the copy, {}", T::SUFFIX);
    let (got, copy) = on_the_gpu::<T>(gpu, &start, &gradients, runs, 0);
    assert!(got == start, "nothing changes, {}", T::SUFFIX);
    assert!(
        copy == vec![T::round(0.0); len],
        "nothing changes, {}",
        T::SUFFIX
    );
}

#[test]
fn an_update_has_the_bits_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for_each_type!(gpu, check(&[(0..1, true)]));
    for_each_type!(gpu, check(&[(0..9, false), (9..5000, true)]));
    // Edges at and between multiples of four, and several of them in one.
    let runs = [
        (0..512, true),
        (512..515, false),
        (515..516, true),
        (516..517, false),
        (517..1030, true),
        (1030..1031, false),
    ];
    for_each_type!(gpu, check(&runs));
}

fn check_cast<T: Rounded>(gpu: &Gpu, len: usize) {
    let x = noise::<f32>(len, 1);
    let mut out = unwritten::<T>(gpu, len);
    cast(gpu, &up(gpu, &x).as_view(), &mut out.as_view_mut()).unwrap();
    let want: Vec<T> = x.iter().map(|&x| T::round(f64::from(x))).collect();
    assert!(down(gpu, &out) == want, "{}", T::SUFFIX);
}

#[test]
fn a_cast_rounds_to_nearest() {
    let Some(gpu) = gpu() else { return };
    for len in [1, 6, 2051] {
        for_each_type!(gpu, check_cast(len));
    }
}
