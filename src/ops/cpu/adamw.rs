//! AdamW (Loshchilov and Hutter 2019) with the clip factor folded in, and the gradient norm.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use crate::ops::backend::AdamW;
use crate::ops::loops::Element;
use crate::ops::loops::element::sum;
use crate::ops::loops::parallel::sum_blocks;
use crate::ops::loops::vectorised::vectorised;

/// Elements of one block of work.
const BLOCK: usize = 1 << 14;

impl AdamW {
    /// Updates `weights` and both moments: `m = beta1 m + (1 - beta1) g`, `v = beta2 v + (1 - beta2) g^2`, then
    /// `w -= lr * weight_decay * w` and
    /// `w -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)`; PyTorch's order.
    pub fn update<T: Element>(&self, weights: &mut [T], m: &mut [T], v: &mut [T], gradients: &[T]) {
        let state = m.par_chunks_mut(BLOCK).zip(v.par_chunks_mut(BLOCK));
        weights
            .par_chunks_mut(BLOCK)
            .zip(gradients.par_chunks(BLOCK))
            .zip(state)
            .for_each(|((weights, gradients), (m, v))| {
                update_block(*self, weights, m, v, gradients);
            });
    }
}

vectorised! {
    fn update_block<T: Element>(
        rule: AdamW,
        weights: &mut [T],
        m: &mut [T],
        v: &mut [T],
        gradients: &[T],
    ) {
        let keep = T::of(1.0 - rule.learning_rate * rule.weight_decay);
        let updates = rule.update as f64;
        let step_size = T::of(rule.learning_rate / (1.0 - rule.beta1.powf(updates)));
        let inverse_root = T::of(1.0 / (1.0 - rule.beta2.powf(updates)).sqrt());
        let (beta1, beta2) = (T::of(rule.beta1), T::of(rule.beta2));
        let (rest1, rest2) = (T::of(1.0 - rule.beta1), T::of(1.0 - rule.beta2));
        let (eps, scale) = (T::of(rule.eps), T::of(rule.gradient_scale));
        let state = m.iter_mut().zip(v);
        for ((w, &g), (m, v)) in weights.iter_mut().zip(gradients).zip(state) {
            let g = g * scale;
            *m = m.mul_add(beta1, rest1 * g);
            *v = v.mul_add(beta2, rest2 * g * g);
            let denominator = v.sqrt().mul_add(inverse_root, eps);
            *w = *w * keep - step_size * *m / denominator;
        }
    }
}

/// L2 norm of `gradients`, summed in f64.
pub fn norm<T: Element>(gradients: &[T]) -> f64 {
    sum_blocks(gradients.len(), |range| sum_squares(&gradients[range])).sqrt()
}

vectorised! {
    fn sum_squares<T: Element>(block: &[T]) -> f64 {
        sum([block], |[g]| g.widen() * g.widen())
    }
}

/// Oracle of one update: returns (weights, m, v).
pub fn adamw_ref(
    settings: &AdamW,
    [weights, m, v, gradients]: [&Tensor; 4],
) -> Result<[Tensor; 3]> {
    let g = (gradients * settings.gradient_scale)?;
    let updates = settings.update as f64;
    let m = ((m * settings.beta1)? + (&g * (1.0 - settings.beta1))?)?;
    let v = ((v * settings.beta2)? + (g.sqr()? * (1.0 - settings.beta2))?)?;
    let m_hat = (&m / (1.0 - settings.beta1.powf(updates)))?;
    let v_hat = (&v / (1.0 - settings.beta2.powf(updates)))?;
    let decayed = (weights * (1.0 - settings.learning_rate * settings.weight_decay))?;
    let direction = (m_hat / (v_hat.sqrt()? + settings.eps)?)?;
    Ok([(decayed - (direction * settings.learning_rate)?)?, m, v])
}
