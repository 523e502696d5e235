//! Linear layers, on their own and followed by GELU.

use taper::ops::backend::GradientWrite;
use taper::ops::cpu::linear::{self, GeluOutputs, linear_ref};
use taper::ops::gemm::{Cpu, Products};
use taper::ops::loops::{Element, gelu};
use taper::terms::Gelu;

use crate::common::{Kind, assert_close, noise, values, variable};
use crate::gradients;

fn check_linear<T: Element>(rows: usize, inputs: usize, outputs: usize, with_bias: bool) {
    let (x, w) = (
        noise::<T>(rows * inputs, 1),
        noise::<T>(outputs * inputs, 2),
    );
    let b = noise::<T>(outputs, 3);
    let mut y = vec![T::of(f64::NAN); rows * outputs];
    let (products, bias) = (
        Products::untuned(Cpu::default()),
        with_bias.then_some(&b[..]),
    );
    linear::forward(&products, &x, &w, bias, &mut y, inputs);
    let (xv, wv, bv) = (
        variable(&x, &[rows, inputs]),
        variable(&w, &[outputs, inputs]),
        variable(&b, &[outputs]),
    );
    let want = linear_ref(&xv, &wv, with_bias.then_some(bv.as_tensor())).unwrap();
    assert_close("linear", &y, &values::<T>(&want), Kind::Forward);

    let dy = noise::<T>(rows * outputs, 4);
    let mut dx = vec![T::of(f64::NAN); rows * inputs];
    let nothing = T::of(f64::NAN);
    let (mut dw, mut db) = (vec![nothing; outputs * inputs], vec![nothing; outputs]);
    linear::backward_input(&products, &dy, &w, &mut dx, inputs);
    // Twice: gradients accumulate.
    for sum in [GradientWrite::Overwrite, GradientWrite::Accumulate] {
        let db = with_bias.then_some(&mut db[..]);
        linear::backward_weight(&products, &dy, &x, &mut dw, db, sum, inputs);
    }
    let mut vars = vec![&xv, &wv];
    if with_bias {
        vars.push(&bv);
    }
    let want = gradients(&want, &dy, &vars);
    let twice = |v: &[T]| v.iter().map(|&x| x + x).collect::<Vec<T>>();
    assert_close("dx", &dx, &want[0], Kind::Gradient);
    assert_close("dweight", &dw, &twice(&want[1]), Kind::Gradient);
    if with_bias {
        assert_close("dbias", &db, &twice(&want[2]), Kind::Gradient);
    }

    // The activation goes with the product, and is what it is on its own.
    for form in [Gelu::Tanh, Gelu::Erf] {
        let nan = T::of(f64::NAN);
        let (mut sum, mut activated) = (vec![nan; y.len()], vec![nan; y.len()]);
        let written = GeluOutputs {
            y: &mut sum,
            activated: &mut activated,
        };
        linear::forward_gelu(&products, form, &x, &w, bias, written, inputs);
        assert!(sum == y);
        let mut want = vec![nan; y.len()];
        gelu::forward(form, &y, &mut want);
        assert!(activated == want);

        let mut sloped = vec![nan; dx.len()];
        linear::backward_gelu_input(&products, form, &dy, &w, &x, &mut sloped, inputs);
        let mut want = dx.clone();
        gelu::backward(form, &x, &mut want);
        assert!(sloped == want);
    }
}

#[test]
fn linear_matches_its_twin_and_accumulates() {
    for (rows, inputs, outputs) in [(1, 1, 1), (5, 3, 7), (130, 65, 200), (67, 48, 33)] {
        for with_bias in [true, false] {
            check_linear::<f32>(rows, inputs, outputs, with_bias);
            check_linear::<f64>(rows, inputs, outputs, with_bias);
        }
    }
}
