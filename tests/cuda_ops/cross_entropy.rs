//! Losses and gradients of logits.

use taper::ops::cuda::cross_entropy::{losses, losses_and_gradients};
use taper::ops::launch::Gpu;

use crate::common::gpu::*;
use crate::common::{Kind, tokens};

const SCALE: f32 = 0.25;

/// Losses and gradients of `logits` (R, V), in f64 and by the definition.
fn by_definition(logits: &[f64], targets: &[u32]) -> (Vec<f64>, Vec<f64>) {
    let vocab = logits.len() / targets.len();
    let (mut losses, mut gradients) = (Vec::new(), Vec::new());
    for (row, &target) in logits.chunks_exact(vocab).zip(targets) {
        let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = row.iter().map(|x| (x - top).exp()).sum();
        losses.push(total.ln() + top - row[target as usize]);
        gradients.extend(row.iter().enumerate().map(|(column, x)| {
            let hot = f64::from(u8::from(column == target as usize));
            f64::from(SCALE) * ((x - top).exp() / total - hot)
        }));
    }
    (losses, gradients)
}

/// Both launches: losses alone, and with the gradients in place of the logits.
fn run<T: Rounded>(gpu: &Gpu, logits: &[T], targets: &[u32]) -> (Vec<f32>, Vec<T>) {
    let (mut logits, targets) = (up(gpu, logits), up(gpu, targets));
    let scale = up(gpu, &[SCALE]);
    let (mut evaluated, mut trained) =
        (unwritten(gpu, targets.len()), unwritten(gpu, targets.len()));
    let targets = targets.as_view();
    losses(
        gpu,
        &logits.as_view(),
        &targets,
        &mut evaluated.as_view_mut(),
    )
    .unwrap();
    let (logits_view, losses) = (&mut logits.as_view_mut(), &mut trained.as_view_mut());
    losses_and_gradients(gpu, logits_view, &targets, &scale.as_view(), losses).unwrap();
    let trained = down(gpu, &trained);
    let bits = |losses: &[f32]| losses.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let evaluated = down(gpu, &evaluated);
    assert_eq!(bits(&evaluated), bits(&trained), "evaluation and training");
    (trained, down(gpu, &logits))
}

fn check<T: Rounded>(gpu: &Gpu, (rows, vocab): (usize, usize), size: f64) {
    let noise = rounded_noise::<T>(rows * vocab, 1);
    let logits: Vec<T> = noise.iter().map(|x| T::round(x.widen() * size)).collect();
    let mut targets = tokens(rows, vocab, 2);
    // The ends of a row, which may share 16 bytes with the next.
    targets[0] = 0;
    targets[rows - 1] = vocab as u32 - 1;
    let (losses_want, gradients_want) = by_definition(&T::widen_all(&logits), &targets);
    let (losses, gradients) = run(gpu, &logits, &targets);
    assert_near("losses", &losses, &losses_want, Kind::Forward);
    assert_near("dlogits", &gradients, &gradients_want, Kind::Gradient);
    let again = run(gpu, &logits, &targets);
    assert!(again == (losses, gradients), "the same bits");
}

#[test]
fn losses_and_gradients_are_those_of_the_definition() {
    let Some(gpu) = gpu() else { return };
    for shape in [(1, 1), (3, 2), (9, 65), (5, 257), (4, 1000), (3, 3001)] {
        for_each_type!(gpu, check(shape, 8.0));
    }
}

#[test]
fn a_vocabulary_is_as_large_as_that_of_gpt_2_or_larger() {
    let Some(gpu) = gpu() else { return };
    for vocab in [50_257, 50_304, 57_400] {
        for_each_type!(gpu, check((2, vocab), 8.0));
    }
}

#[test]
fn large_logits_neither_overflow_nor_lose_the_loss() {
    let Some(gpu) = gpu() else { return };
    for_each_type!(gpu, check((7, 300), 30_000.0));
    for_each_type!(gpu, check((7, 300), 0.0));
}

#[test]
fn what_is_not_finite_reaches_the_loss() {
    let Some(gpu) = gpu() else { return };
    for odd in [f32::NAN, f32::INFINITY] {
        let mut logits = vec![0f32; 40];
        logits[25] = odd;
        let (losses, _) = run(&gpu, &logits, &[3, 3]);
        assert!(
            losses[0].is_finite() && !losses[1].is_finite(),
            "{losses:?}"
        );
    }
}
