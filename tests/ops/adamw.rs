//! AdamW, and the norm that gradients are clipped by.

use taper::ops::backend::AdamW;
use taper::ops::cpu::adamw::{adamw_ref, norm};
use taper::ops::loops::Element;

use crate::common::{Kind, assert_close, noise, tensor, values};

fn check_adamw<T: Element>(len: usize) {
    let settings = AdamW {
        learning_rate: 1e-2,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        update: 3,
        gradient_scale: 0.7,
    };
    let positive = |v: Vec<T>| v.iter().map(|&x| x * x).collect::<Vec<T>>();
    let (mut w, mut m, mut v) = (noise(len, 1), noise(len, 2), positive(noise(len, 3)));
    let g = noise::<T>(len, 4);
    let state = [&w, &m, &v, &g].map(|x| tensor::<T>(x, &[len]));
    let want = adamw_ref(&settings, state.each_ref()).unwrap();
    settings.update(&mut w, &mut m, &mut v, &g);
    for (what, got, want) in [
        ("w", &w, &want[0]),
        ("m", &m, &want[1]),
        ("v", &v, &want[2]),
    ] {
        assert_close::<T>(what, got, &values(want), Kind::Forward);
    }
}

#[test]
fn adamw_matches_its_twin() {
    for len in [1, 33, 50_000] {
        check_adamw::<f32>(len);
        check_adamw::<f64>(len);
    }
}

#[test]
fn norm_is_the_root_of_the_sum_of_squares() {
    let gradients = vec![0.5f32; 40_000];
    assert!((norm(&gradients) - 100.0).abs() < 1e-9);
    assert!(norm(&[f32::NAN, 1.0]).is_nan());
}
