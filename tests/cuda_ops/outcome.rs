//! The sum of losses and the norm of gradients.

use taper::ops::cpu::adamw::norm;
use taper::ops::cuda::outcome::{Outcome, StepGradientViews, add_losses, finish, partials_len};
use taper::ops::launch::Gpu;

use crate::common::gpu::*;
use crate::common::noise;

/// After these losses, by micro-batches of so many samples.
fn sum(gpu: &Gpu, losses: &[f32], positions: usize, samples: usize) -> f64 {
    let mut outcome = up(gpu, &[Outcome::default()]);
    for losses in losses.chunks(samples * positions) {
        let losses = up(gpu, losses);
        add_losses(
            gpu,
            &losses.as_view(),
            positions,
            &mut outcome.as_view_mut(),
        )
        .unwrap();
    }
    down(gpu, &outcome)[0].loss
}

#[test]
fn the_summed_loss_has_the_same_bits_at_every_micro_batch() {
    let Some(gpu) = gpu() else { return };
    for (samples, positions) in [(1, 1), (36, 70), (6, 33)] {
        // From e^-30 to e^30: every addition in f64 rounds.
        let noise = noise::<f64>(samples * positions, 1);
        let losses: Vec<f32> = noise.iter().map(|x| (x * 30.0).exp() as f32).collect();
        let exact: f64 = losses.iter().map(|&loss| f64::from(loss)).sum();
        let whole = sum(&gpu, &losses, positions, samples);
        assert!((whole / exact - 1.0).abs() < 1e-12, "{whole}");
        for count in [1, 2, 3, 5] {
            let parts = sum(&gpu, &losses, positions, count);
            assert_eq!(whole.to_bits(), parts.to_bits(), "by {count}");
        }
    }
}

fn outcome(gpu: &Gpu, gradients: &[f32], loss: f64, loss_scale: f32, clip: f64) -> Outcome {
    let start = Outcome {
        loss,
        ..Outcome::default()
    };
    let mut outcome = up(gpu, &[start]);
    let mut partials = unwritten(gpu, partials_len(gradients.len()));
    let (gradients, loss_scale) = (up(gpu, gradients), up(gpu, &[loss_scale]));
    let step = StepGradientViews {
        gradients: &gradients.as_view(),
        loss_scale: &loss_scale.as_view(),
        clip,
    };
    let partials = &mut partials.as_view_mut();
    finish(gpu, step, &mut outcome.as_view_mut(), partials).unwrap();
    down(gpu, &outcome)[0]
}

#[test]
fn the_norm_is_that_of_the_cpu_and_clips() {
    let Some(gpu) = gpu() else { return };
    for len in [1, 1023, 5_001, 1_100_000] {
        let gradients = noise::<f32>(len, 1);
        let want = norm(&gradients);
        for (loss_scale, clip) in [(1.0, 0.0), (1.0, 0.25), (1024.0, 1e9), (1024.0, 1e-4)] {
            let got = outcome(&gpu, &gradients, 1.0, loss_scale, clip);
            let unscaled = want / f64::from(loss_scale);
            assert!((got.gradient_norm / unscaled - 1.0).abs() < 1e-6, "{got:?}");
            let factor = match clip {
                0.0 => 1.0,
                clip => (clip / (unscaled + 1e-6)).min(1.0),
            };
            let scale = factor / f64::from(loss_scale);
            let error = f64::from(got.gradient_scale) / scale - 1.0;
            assert!(error.abs() < 1e-6 && got.is_finite == 1, "{got:?}");
            assert_eq!(got, outcome(&gpu, &gradients, 1.0, loss_scale, clip));
        }
    }
}

#[test]
fn a_loss_or_a_gradient_that_is_not_finite_is_told() {
    let Some(gpu) = gpu() else { return };
    let mut gradients = vec![0f32; 3000];
    assert_eq!(outcome(&gpu, &gradients, 1.0, 1.0, 1.0).is_finite, 1);
    assert_eq!(outcome(&gpu, &gradients, f64::NAN, 1.0, 1.0).is_finite, 0);
    for odd in [f32::NAN, f32::INFINITY] {
        gradients[2999] = odd;
        assert_eq!(outcome(&gpu, &gradients, 1.0, 1.0, 1.0).is_finite, 0);
    }
}
