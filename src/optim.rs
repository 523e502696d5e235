//! AdamW over the flat parameters: decay groups, clipping, and its two moments.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::model::ParamLayout;
use crate::ops::Element;
use crate::ops::adamw::{AdamW, norm};

/// nanoGPT's optimizer keys.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptimizerSettings {
    pub weight_decay: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    /// Largest global gradient norm; 0 turns clipping off.
    pub grad_clip: f64,
}

/// First and second moments of every parameter, flat in [`ParamLayout`]'s order.
pub struct Optimizer<T> {
    settings: OptimizerSettings,
    /// Runs of neighbouring parameters that all decay, or all do not.
    runs: Vec<(Range<usize>, bool)>,
    pub m: Vec<T>,
    pub v: Vec<T>,
}

impl<T: Element> Optimizer<T> {
    /// Both moments are as long as the layout.
    pub fn new(settings: OptimizerSettings, layout: &ParamLayout, m: Vec<T>, v: Vec<T>) -> Self {
        let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
        for param in &layout.params {
            match runs.last_mut() {
                Some((run, decays)) if *decays == param.decays() => run.end = param.range().end,
                _ => runs.push((param.range(), param.decays())),
            }
        }
        Self {
            settings,
            runs,
            m,
            v,
        }
    }

    /// One update. `gradient_norm` is that of `gradients`; `update` is 1 for the first.
    pub fn update(
        &mut self,
        weights: &mut [T],
        gradients: &[T],
        gradient_norm: f64,
        learning_rate: f64,
        update: u64,
    ) {
        let settings = self.settings;
        for (run, decays) in &self.runs {
            let rule = AdamW {
                learning_rate,
                beta1: settings.beta1,
                beta2: settings.beta2,
                eps: settings.eps,
                weight_decay: if *decays { settings.weight_decay } else { 0.0 },
                update,
                gradient_scale: clip_factor(gradient_norm, settings.grad_clip),
            };
            let (m, v) = (&mut self.m[run.clone()], &mut self.v[run.clone()]);
            rule.update(&mut weights[run.clone()], m, v, &gradients[run.clone()]);
        }
    }
}

/// The global L2 norm of all gradients.
pub fn gradient_norm<T: Element>(gradients: &[T]) -> f64 {
    norm(gradients)
}

/// What the gradients are multiplied by so that their norm is at most `grad_clip`
/// (PyTorch's `clip_grad_norm_`, with its 1e-6).
fn clip_factor(norm: f64, grad_clip: f64) -> f64 {
    if grad_clip == 0.0 {
        return 1.0;
    }
    (grad_clip / (norm + 1e-6)).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_only_ever_shrinks_and_zero_turns_it_off() {
        assert_eq!(clip_factor(0.5, 1.0), 1.0);
        assert!((clip_factor(4.0, 1.0) - 0.25).abs() < 1e-6);
        assert_eq!(clip_factor(4.0, 0.0), 1.0);
    }
}
