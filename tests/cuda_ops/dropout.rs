//! Masks are those of the CPU, bit for bit.

use taper::ops::backend::DropoutSite;
use taper::ops::backend::RowShape;
use taper::ops::cpu::dropout::{self, Dropout, SiteDropout};
use taper::ops::cuda::dropout::{MaskView, mask, mask_in_place, residual_forward};
use taper::ops::launch::Gpu;
use taper::rng::Seed;

use crate::common::Kind;
use crate::common::gpu::*;

pub const DROPOUT: Dropout = Dropout {
    p: 0.3,
    seed: Seed(0x1234_5678_9abc_def0),
    step: 4,
    first_sample: 2,
};
pub const SITE: DropoutSite = DropoutSite::MlpOutput { layer: 1 };
/// As [`DROPOUT`] has it, for the memory of a GPU.
pub const HEADER: [u32; 2] = [DROPOUT.step, DROPOUT.first_sample];

/// (samples, positions, columns): 16 bytes wide, and not.
const SHAPES: [(usize, usize, usize); 5] =
    [(1, 1, 1), (2, 3, 7), (3, 5, 48), (2, 9, 130), (1, 40, 264)];

fn check<T: Rounded>(gpu: &Gpu, (samples, positions, columns): (usize, usize, usize)) {
    let rows = RowShape { columns, positions };
    let len = samples * positions * columns;
    let header = up(gpu, &HEADER);
    let header = header.as_view();
    let rule = MaskView {
        p: DROPOUT.p,
        seed: DROPOUT.seed,
        site: SITE,
        header: &header,
    };
    let (x, branch) = (rounded_noise::<T>(len, 1), rounded_noise::<T>(len, 2));
    let (on_gpu, branch_on_gpu) = (up(gpu, &x), up(gpu, &branch));

    // One multiplication, rounded once: the same bits.
    let mut masked: Vec<f32> = x.iter().map(|x| x.widen() as f32).collect();
    dropout::mask_in_place(&mut masked, columns, positions, DROPOUT, SITE);
    let want: Vec<T> = masked.iter().map(|&x| T::round(f64::from(x))).collect();
    let mut out = unwritten::<T>(gpu, len);
    mask(gpu, &on_gpu.as_view(), &mut out.as_view_mut(), rows, rule).unwrap();
    assert!(down(gpu, &out) == want, "{} at {rows:?}", T::SUFFIX);
    let mut in_place = up(gpu, &x);
    mask_in_place(gpu, &mut in_place.as_view_mut(), rows, rule).unwrap();
    assert!(down(gpu, &in_place) == want, "{} at {rows:?}", T::SUFFIX);

    for rule in [None, Some(rule)] {
        let (x, branch) = (T::widen_all(&x), T::widen_all(&branch));
        let mut want = vec![f64::NAN; len];
        let cpu = rule.map(|_| SiteDropout {
            dropout: DROPOUT,
            site: SITE,
        });
        dropout::residual_forward(&x, &branch, &mut want, columns, positions, cpu);
        let mut out = unwritten::<T>(gpu, len);
        let (x, branch) = (on_gpu.as_view(), branch_on_gpu.as_view());
        residual_forward(gpu, &x, &branch, &mut out.as_view_mut(), rows, rule).unwrap();
        assert_near("residual", &down(gpu, &out), &want, Kind::Forward);
    }
}

#[test]
fn masks_are_those_of_the_cpu_bit_for_bit() {
    let Some(gpu) = gpu() else { return };
    for shape in SHAPES {
        for_each_type!(gpu, check(shape));
    }
}

#[test]
fn a_mask_follows_the_step_and_the_samples_that_memory_names() {
    let Some(gpu) = gpu() else { return };
    let (positions, columns) = (4, 64);
    let rows = RowShape { columns, positions };
    let draw = |header: [u32; 2], samples: usize| {
        let header = up(&gpu, &header);
        let header = header.as_view();
        let rule = MaskView {
            p: 0.5,
            seed: DROPOUT.seed,
            site: SITE,
            header: &header,
        };
        let mut x = up(&gpu, &vec![1f32; samples * positions * columns]);
        mask_in_place(&gpu, &mut x.as_view_mut(), rows, rule).unwrap();
        down(&gpu, &x)
    };
    let whole = draw([7, 0], 4);
    assert_eq!(whole, [draw([7, 0], 2), draw([7, 2], 2)].concat());
    assert_ne!(whole, draw([8, 0], 4));
}
