//! Cross-entropy, and its gradient in the place of the logits.

use candle_core::{Device, Tensor};
use taper::ops::cpu::cross_entropy::{self, cross_entropy_ref};
use taper::ops::loops::Element;

use crate::common::{Kind, assert_close, noise, tokens, values, variable};
use crate::gradients;

fn check_cross_entropy<T: Element>(rows: usize, vocab: usize) {
    let logits = noise::<T>(rows * vocab, 1);
    let targets = tokens(rows, vocab, 3);
    let nan = T::of(f64::NAN);
    let (mut evaluated, mut losses) = (vec![nan; rows], vec![nan; rows]);
    cross_entropy::losses(&mut logits.clone(), &targets, &mut evaluated);
    let (mut gradient, scale) = (logits.clone(), T::of(0.25));
    cross_entropy::losses_and_gradients(&mut gradient, &targets, scale, &mut losses);

    let variable = variable(&logits, &[rows, vocab]);
    let targets = Tensor::from_slice(&targets, rows, &Device::Cpu).unwrap();
    let want = cross_entropy_ref(&variable, &targets).unwrap();
    assert_eq!(evaluated, losses, "evaluation and training agree");
    assert_close("loss", &losses, &values::<T>(&want), Kind::Forward);
    let want = gradients(&want, &vec![scale; rows], &[&variable]);
    assert_close("gradient", &gradient, &want[0], Kind::Gradient);
}

#[test]
fn cross_entropy_matches_its_twin() {
    for (rows, vocab) in [(1, 2), (10, 65), (70, 257), (65, 50)] {
        check_cross_entropy::<f32>(rows, vocab);
        check_cross_entropy::<f64>(rows, vocab);
    }
}
