//! Layer normalization, with and without a bias.

use taper::ops::backend::GradientWrite;
use taper::ops::cpu::layer_norm::{self, layer_norm_ref, partials_len};
use taper::ops::loops::Element;

use crate::common::{Kind, assert_close, noise, values, variable};
use crate::gradients;

fn check_layer_norm<T: Element>(rows: usize, c: usize, with_bias: bool) {
    let (x, w, b) = (noise::<T>(rows * c, 1), noise::<T>(c, 2), noise::<T>(c, 3));
    let bias = with_bias.then_some(&b[..]);
    let (mut out, mut mean, mut rstd) = (
        vec![T::ZERO; rows * c],
        vec![T::ZERO; rows],
        vec![T::ZERO; rows],
    );
    let stats = layer_norm::NormStatsSlices {
        mean: &mut mean,
        rstd: &mut rstd,
    };
    layer_norm::forward(&x, &w, bias, &mut out, stats);
    let (xv, wv, bv) = (
        variable(&x, &[rows, c]),
        variable(&w, &[c]),
        variable(&b, &[c]),
    );
    let want = layer_norm_ref(&xv, &wv, with_bias.then_some(bv.as_tensor())).unwrap();
    assert_close("layer_norm", &out, &values::<T>(&want), Kind::Forward);

    let dout = noise::<T>(rows * c, 4);
    // Gradients are added to what is there already.
    let (start_x, start_w) = (noise::<T>(rows * c, 5), noise::<T>(c, 6));
    let (mut dx, mut dw, mut db) = (start_x.clone(), start_w.clone(), start_w.clone());
    let saved = layer_norm::NormSavedSlices {
        x: &x,
        weight: &w,
        mean: &mean,
        rstd: &rstd,
    };
    let mut partials = vec![T::of(f64::NAN); partials_len(rows, c)];
    let dbias = with_bias.then_some(&mut db[..]);
    layer_norm::backward(
        &dout,
        saved,
        &mut dx,
        &mut dw,
        dbias,
        GradientWrite::Accumulate,
        &mut partials,
    );
    let mut inputs = vec![&xv, &wv];
    if with_bias {
        inputs.push(&bv);
    }
    let want = gradients(&want, &dout, &inputs);
    let add = |a: &[T], b: &[T]| a.iter().zip(b).map(|(&a, &b)| a + b).collect::<Vec<_>>();
    assert_close("dx", &dx, &add(&start_x, &want[0]), Kind::Gradient);
    assert_close("dweight", &dw, &add(&start_w, &want[1]), Kind::Gradient);
    if with_bias {
        assert_close("dbias", &db, &add(&start_w, &want[2]), Kind::Gradient);
    }
}

#[test]
fn layer_norm_matches_its_twin() {
    for (rows, c) in [(1, 1), (3, 7), (65, 33), (100, 128), (37, 200)] {
        for with_bias in [true, false] {
            check_layer_norm::<f32>(rows, c, with_bias);
            check_layer_norm::<f64>(rows, c, with_bias);
        }
    }
}
