//! What the tests share: the one table of tolerances, closeness, and the reference model.
#![allow(dead_code)]

pub mod gpt;
#[cfg(feature = "cuda")]
pub mod gpu;
pub mod parity;
pub mod places;
pub mod reference;

use candle_core::{Device, Tensor};
use taper::ops::loops::Element;

/// Largest error allowed, as a fraction of the largest expected magnitude. A test may tighten it.
pub fn tolerance<T: Element>(kind: Kind) -> f64 {
    let f64_like = size_of::<T>() == 8;
    match (f64_like, kind) {
        (true, Kind::Forward) => 1e-12,
        (true, Kind::Gradient) => 1e-11,
        (false, Kind::Forward) => 2e-6,
        (false, Kind::Gradient) => 5e-6,
    }
}

#[derive(Clone, Copy)]
pub enum Kind {
    Forward,
    Gradient,
}

/// The worst error as a fraction of what is allowed; infinite for a NaN.
///
/// # Panics
/// If the lengths differ, or nothing was compared.
pub fn worst<T: Element>(got: &[T], want: &[T], tolerance: f64) -> f64 {
    assert_eq!(got.len(), want.len(), "lengths differ");
    assert!(!got.is_empty(), "nothing to compare");
    let scale = want.iter().fold(0.0, |m: f64, x| m.max(x.widen().abs()));
    let mut worst = 0.0;
    for (got, want) in got.iter().zip(want) {
        let error = (got.widen() - want.widen()).abs();
        if error.is_nan() {
            return f64::INFINITY;
        }
        worst = f64::max(worst, error / (tolerance * scale.max(f64::MIN_POSITIVE)));
    }
    worst
}

/// Asserts that `got` is within the tolerance of `kind`, and says how much of it was used.
#[track_caller]
pub fn assert_close<T: Element>(what: &str, got: &[T], want: &[T], kind: Kind) {
    let used = worst(got, want, tolerance::<T>(kind));
    assert!(
        used <= 1.0,
        "{what}: worst error is {:.0} % of what is allowed",
        used * 100.0
    );
}

/// Numbers in (-1, 1) that depend on `salt` and look random.
pub fn noise<T: Element>(len: usize, salt: u64) -> Vec<T> {
    let mut state = salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            T::of((state >> 40) as f64 / (1u64 << 23) as f64 - 1.0)
        })
        .collect()
}

/// Token ids below `vocab` that look random.
pub fn tokens(len: usize, vocab: usize, salt: u64) -> Vec<u32> {
    noise::<f64>(len, salt)
        .iter()
        .map(|x| (((x + 1.0) * 0.5 * vocab as f64) as u32).min(vocab as u32 - 1))
        .collect()
}

pub fn tensor<T: Element>(values: &[T], shape: &[usize]) -> Tensor {
    Tensor::from_vec(values.to_vec(), shape, &Device::Cpu).unwrap()
}

/// A tensor that autograd tracks.
pub fn variable<T: Element>(values: &[T], shape: &[usize]) -> candle_core::Var {
    candle_core::Var::from_tensor(&tensor(values, shape)).unwrap()
}

pub fn values<T: Element>(tensor: &Tensor) -> Vec<T> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn closeness_fails_on_a_nan_and_on_a_planted_error() {
    assert_eq!(worst(&[1.0, 2.0], &[1.0, 2.0], 1e-6), 0.0);
    assert!(worst(&[1.0, f64::NAN], &[1.0, 2.0], 1e-6).is_infinite());
    assert!(worst(&[1.0, 2.1], &[1.0, 2.0], 1e-6) > 1.0);
}
