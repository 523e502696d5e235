//! Gradients of biases.

use taper::ops::backend::GradientWrite;
use taper::ops::cpu::linear;
use taper::ops::cuda::column_sums::{add_column_sums, partials_len};
use taper::ops::gemm::{Cpu, Products};
use taper::ops::launch::Gpu;

use crate::common::Kind;
use crate::common::gpu::*;

fn check<T: Rounded>(gpu: &Gpu, (rows, columns): (usize, usize)) {
    let (x, start) = (
        rounded_noise::<T>(rows * columns, 1),
        rounded_noise::<f32>(columns, 2),
    );
    let mut want = f32::widen_all(&start);
    // A linear layer of one input has no other use for its rows here.
    let (inputs, mut dweight) = (vec![0.0; rows], vec![0.0; columns]);
    let products = Products::untuned(Cpu::default());
    linear::backward_weight(
        &products,
        &T::widen_all(&x),
        &inputs,
        &mut dweight,
        Some(&mut want),
        GradientWrite::Accumulate,
        1,
    );

    let x = up(gpu, &x);
    let run = || {
        let mut total = up(gpu, &start);
        let mut partials = unwritten(gpu, partials_len(rows, columns));
        let (total_view, partials) = (&mut total.as_view_mut(), &mut partials.as_view_mut());
        add_column_sums(gpu, &x.as_view(), total_view, partials).unwrap();
        down(gpu, &total)
    };
    assert_near("sums", &run(), &want, Kind::Gradient);
    assert!(run() == run(), "the same bits");
}

#[test]
fn column_sums_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for shape in [(1, 1), (3, 7), (70, 264), (200, 33), (129, 301), (300, 768)] {
        for_each_type!(gpu, check(shape));
    }
}

#[test]
fn scratch_does_not_grow_with_the_rows_without_end() {
    assert_eq!(partials_len(64, 768), 768);
    let most = (1 << 10) * 256;
    for columns in [768, 3072, 6400] {
        let lines = partials_len(1 << 20, columns) / columns;
        assert!(
            lines > 32 && lines * columns <= most,
            "{lines} of {columns}"
        );
    }
}
