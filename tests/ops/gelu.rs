//! GELU in both forms.

use taper::ops::loops::gelu::gelu_ref;
use taper::ops::loops::{Element, gelu};
use taper::terms::Gelu;

use crate::common::{Kind, assert_close, noise, values, variable};
use crate::gradients;

fn check_gelu<T: Element>(form: Gelu, len: usize) {
    let x: Vec<T> = noise::<T>(len, 1).iter().map(|&x| x * T::of(8.0)).collect();
    let mut out = vec![T::ZERO; len];
    gelu::forward(form, &x, &mut out);
    let xv = variable(&x, &[len]);
    let want = gelu_ref(form, &xv).unwrap();
    assert_close("gelu", &out, &values::<T>(&want), Kind::Forward);
    let mut d = noise::<T>(len, 2);
    let want = gradients(&want, &d, &[&xv]);
    gelu::backward(form, &x, &mut d);
    assert_close("dx", &d, &want[0], Kind::Gradient);
}

#[test]
fn gelu_matches_its_twin_in_both_forms() {
    for form in [Gelu::Tanh, Gelu::Erf] {
        for len in [5, 31, 40_001] {
            check_gelu::<f32>(form, len);
            check_gelu::<f64>(form, len);
        }
    }
}
