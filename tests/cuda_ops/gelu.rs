//! GELU in both forms.

use taper::ops::launch::{self, Gpu};
use taper::ops::loops::gelu as cpu;
use taper::terms::Gelu;

use crate::common::Kind;
use crate::common::gpu::*;

fn check<T: Rounded>(gpu: &Gpu, form: Gelu, len: usize) {
    let values = rounded_noise::<T>(len, 1);
    let mut x: Vec<T> = values.iter().map(|x| T::round(x.widen() * 8.0)).collect();
    // Far out, where the tails are flat; and one to compare small ones with.
    x[..3].copy_from_slice(&[300.0, -300.0, 1.0].map(T::round));
    let d = rounded_noise::<T>(len, 2);
    let mut out_want = vec![0.0; len];
    cpu::forward(form, &T::widen_all(&x), &mut out_want);
    let mut d_want = T::widen_all(&d);
    cpu::backward(form, &T::widen_all(&x), &mut d_want);
    // Compared apart: beside 300, every other value would be small.
    let near = |what: &str, got: &[T], want: &[f64], kind| {
        assert_near(what, &got[..2], &want[..2], kind);
        assert_near(what, &got[2..], &want[2..], kind);
    };

    let x = up(gpu, &x);
    let mut out = unwritten::<T>(gpu, len);
    launch::gelu::forward(gpu, form, &x.as_view(), &mut out.as_view_mut()).unwrap();
    near("gelu", &down(gpu, &out), &out_want, Kind::Forward);
    let mut d = up(gpu, &d);
    launch::gelu::backward(gpu, form, &x.as_view(), &mut d.as_view_mut()).unwrap();
    near("dx", &down(gpu, &d), &d_want, Kind::Gradient);
}

#[test]
fn both_forms_and_their_slopes_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for form in [Gelu::Tanh, Gelu::Erf] {
        for len in [3, 31, 4099] {
            for_each_type!(gpu, check(form, len));
        }
    }
}
