//! Layer norms, alone and with the residual add, forward and backward.

use taper::ops::backend::GradientWrite;
use taper::ops::backend::RowShape;
use taper::ops::cpu::layer_norm as cpu;
use taper::ops::cuda::layer_norm::{
    self, AffineViews, NormSavedViews, NormStatsViews, ResidualViews, partials_len,
};
use taper::ops::cuda::{self, dropout::MaskView};
use taper::ops::launch::Gpu;

use crate::common::Kind;
use crate::common::gpu::*;
use crate::dropout::{DROPOUT, HEADER, SITE};

/// (rows, columns): not of 16 bytes, of 16 bytes, wider than a warp's registers, wider than a block's.
const SHAPES: [(usize, usize); 7] = [
    (1, 1),
    (3, 7),
    (35, 130),
    (37, 264),
    (9, 768),
    (3, 2056),
    (2, 4104),
];

/// Away from zero, so that a mean is a number to compare.
fn inputs<T: Rounded>(len: usize, salt: u64) -> Vec<T> {
    let values = rounded_noise::<T>(len, salt);
    values.iter().map(|x| T::round(x.widen() + 0.5)).collect()
}

/// `out`, mean and rstd.
type Normal<T> = (Vec<T>, Vec<f32>, Vec<f32>);

fn forward<T: Rounded>(gpu: &Gpu, x: &[T], weight: &[T], bias: Option<&[T]>) -> Normal<T> {
    let rows = x.len() / weight.len();
    let (x, weight, bias) = (up(gpu, x), up(gpu, weight), bias.map(|bias| up(gpu, bias)));
    let mut out = unwritten::<T>(gpu, x.len());
    let (mut mean, mut rstd) = (unwritten(gpu, rows), unwritten(gpu, rows));
    let bias = bias.as_ref().map(|bias| bias.as_view());
    let affine = AffineViews {
        weight: &weight.as_view(),
        bias: bias.as_ref(),
    };
    let stats = NormStatsViews {
        mean: &mut mean.as_view_mut(),
        rstd: &mut rstd.as_view_mut(),
    };
    layer_norm::forward(gpu, &x.as_view(), affine, &mut out.as_view_mut(), stats).unwrap();
    (down(gpu, &out), down(gpu, &mean), down(gpu, &rstd))
}

fn forward_on_the_cpu<T: Rounded>(
    x: &[T],
    weight: &[T],
    bias: Option<&[T]>,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let rows = x.len() / weight.len();
    let (x, weight) = (T::widen_all(x), T::widen_all(weight));
    let bias = bias.map(T::widen_all);
    let (mut out, mut mean, mut rstd) = (vec![0.0; x.len()], vec![0.0; rows], vec![0.0; rows]);
    let stats = cpu::NormStatsSlices {
        mean: &mut mean,
        rstd: &mut rstd,
    };
    cpu::forward(&x, &weight, bias.as_deref(), &mut out, stats);
    (out, mean, rstd)
}

fn check_forward<T: Rounded>(gpu: &Gpu, (rows, columns): (usize, usize)) {
    let x = inputs::<T>(rows * columns, 1);
    let (weight, bias) = (inputs::<T>(columns, 2), inputs::<T>(columns, 3));
    for bias in [Some(&bias[..]), None] {
        let got = forward(gpu, &x, &weight, bias);
        let want = forward_on_the_cpu(&x, &weight, bias);
        assert_near("out", &got.0, &want.0, Kind::Forward);
        assert_near("mean", &got.1, &want.1, Kind::Forward);
        assert_near("rstd", &got.2, &want.2, Kind::Gradient);
        assert!(got == forward(gpu, &x, &weight, bias), "the same bits");
    }
}

#[test]
fn the_forward_is_that_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for shape in SHAPES {
        for_each_type!(gpu, check_forward(shape));
    }
}

#[test]
fn a_row_of_equal_values_becomes_the_bias() {
    let Some(gpu) = gpu() else { return };
    let (weight, bias) = (vec![2f32; 64], inputs::<f32>(64, 1));
    let (out, mean, rstd) = forward(&gpu, &[3f32; 64], &weight, Some(&bias));
    assert_eq!((out, mean), (bias, vec![3.0]));
    assert!((rstd[0] - 1e5f32.sqrt()).abs() < 1e-3, "{rstd:?}");
}

fn check_residual<T: Rounded>(gpu: &Gpu, (rows, columns): (usize, usize)) {
    let positions = rows.div_ceil(2);
    let len = rows * columns;
    let (x, branch) = (up(gpu, &inputs::<T>(len, 1)), up(gpu, &inputs::<T>(len, 2)));
    let (weight, bias) = (inputs::<T>(columns, 3), inputs::<T>(columns, 4));
    let (weight_on_gpu, bias_on_gpu) = (up(gpu, &weight), up(gpu, &bias));
    let header = up(gpu, &HEADER);
    let mask = MaskView {
        p: DROPOUT.p,
        seed: DROPOUT.seed,
        site: SITE,
        header: &header.as_view(),
    };
    for mask in [None, Some(mask)] {
        let (mut after, mut out) = (unwritten::<T>(gpu, len), unwritten::<T>(gpu, len));
        let (mut mean, mut rstd) = (unwritten(gpu, rows), unwritten(gpu, rows));
        let residual = ResidualViews {
            x: &x.as_view(),
            branch: &branch.as_view(),
            after: &mut after.as_view_mut(),
            positions,
        };
        let affine = AffineViews {
            weight: &weight_on_gpu.as_view(),
            bias: Some(&bias_on_gpu.as_view()),
        };
        let stats = NormStatsViews {
            mean: &mut mean.as_view_mut(),
            rstd: &mut rstd.as_view_mut(),
        };
        let out_view = &mut out.as_view_mut();
        layer_norm::residual_forward(gpu, residual, mask, affine, out_view, stats).unwrap();

        let mut alone = unwritten::<T>(gpu, len);
        let shape = RowShape { columns, positions };
        let (x, branch, alone_view) = (&x.as_view(), &branch.as_view(), &mut alone.as_view_mut());
        cuda::dropout::residual_forward(gpu, x, branch, alone_view, shape, mask).unwrap();
        let alone = down(gpu, &alone);
        assert!(down(gpu, &after) == alone, "after, {}", T::SUFFIX);
        let normal = forward(gpu, &alone, &weight, Some(&bias));
        let fused = (down(gpu, &out), down(gpu, &mean), down(gpu, &rstd));
        assert!(fused == normal, "norm, {}", T::SUFFIX);
    }
}

#[test]
fn the_fused_residual_gives_the_bits_of_its_two_parts() {
    let Some(gpu) = gpu() else { return };
    for shape in SHAPES {
        for_each_type!(gpu, check_residual(shape));
    }
}

fn check_backward<T: Rounded>(gpu: &Gpu, (rows, columns): (usize, usize)) {
    let len = rows * columns;
    let (x, dout) = (inputs::<T>(len, 1), rounded_noise::<T>(len, 2));
    let (weight, start) = (inputs::<T>(columns, 3), rounded_noise::<T>(len, 4));
    let start_weight = rounded_noise::<f32>(columns, 5);
    let (_, mean, rstd) = forward(gpu, &x, &weight, None);
    let (_, cpu_mean, cpu_rstd) = forward_on_the_cpu(&x, &weight, None);

    let mut dx_want = T::widen_all(&start);
    let mut dweight_want = f32::widen_all(&start_weight);
    let mut dbias_want = dweight_want.clone();
    let saved = cpu::NormSavedSlices {
        x: &T::widen_all(&x),
        weight: &T::widen_all(&weight),
        mean: &cpu_mean,
        rstd: &cpu_rstd,
    };
    let mut partials = vec![0.0; cpu::partials_len(rows, columns)];
    let (dout_wide, dbias) = (T::widen_all(&dout), Some(&mut dbias_want[..]));
    cpu::backward(
        &dout_wide,
        saved,
        &mut dx_want,
        &mut dweight_want,
        dbias,
        GradientWrite::Accumulate,
        &mut partials,
    );

    let arrays = [&x, &dout, &weight].map(|array| up(gpu, array));
    let [x, dout, weight] = arrays.each_ref().map(|array| array.as_view());
    let (mean, rstd) = (up(gpu, &mean), up(gpu, &rstd));
    let run = |with_bias: bool| {
        let mut dx = up(gpu, &start);
        let (mut dweight, mut dbias) = (up(gpu, &start_weight), up(gpu, &start_weight));
        let mut partials = unwritten(gpu, partials_len(rows, columns));
        let saved = NormSavedViews {
            x: &x,
            weight: &weight,
            mean: &mean.as_view(),
            rstd: &rstd.as_view(),
        };
        let (dx_view, partials) = (&mut dx.as_view_mut(), &mut partials.as_view_mut());
        let mut bias_view = dbias.as_view_mut();
        let dweight_view = &mut dweight.as_view_mut();
        let bias_view = with_bias.then_some(&mut bias_view);
        layer_norm::backward(
            gpu,
            &dout,
            saved,
            dx_view,
            dweight_view,
            bias_view,
            partials,
        )
        .unwrap();
        (down(gpu, &dx), down(gpu, &dweight), down(gpu, &dbias))
    };
    let (dx, dweight, dbias) = run(true);
    assert_near("dx", &dx, &dx_want, Kind::Gradient);
    assert_near("dweight", &dweight, &dweight_want, Kind::Gradient);
    assert_near("dbias", &dbias, &dbias_want, Kind::Gradient);
    assert!(
        run(true) == (dx.clone(), dweight.clone(), dbias),
        "the same bits"
    );
    assert!(
        run(false) == (dx, dweight, start_weight.clone()),
        "without a bias"
    );
}

#[test]
fn the_backward_is_that_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for shape in SHAPES {
        for_each_type!(gpu, check_backward(shape));
    }
}
