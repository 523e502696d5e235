//! One AdamW update: its settings, its numbers and its outcome.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::Buffer;

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

/// The buffers that an update of the weights changes and reads, flat in the parameters' order.
#[derive(Clone, Copy)]
pub struct TrainingState<'a> {
    pub weights: &'a Buffer,
    /// The fp32 weights behind `weights` of lower precision.
    pub master: Option<&'a Buffer>,
    pub m: &'a Buffer,
    pub v: &'a Buffer,
    pub gradients: &'a Buffer,
}

/// A run of neighbouring parameters that all decay, or all do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecayRun {
    /// Elements of the flat parameters.
    pub elements: Range<usize>,
    pub decays: bool,
}

/// One update of all parameters.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    pub settings: OptimizerSettings,
    pub learning_rate: f64,
    /// Counted from 1.
    pub number: u64,
    /// Factor of the loss before the backward.
    pub loss_scale: f64,
}

impl Update {
    /// The rule for parameters that decay, or do not. Gradients are first multiplied by `gradient_scale`.
    pub fn rule(&self, decays: bool, gradient_scale: f64) -> AdamW {
        let settings = self.settings;
        AdamW {
            learning_rate: self.learning_rate,
            beta1: settings.beta1,
            beta2: settings.beta2,
            eps: settings.eps,
            weight_decay: if decays { settings.weight_decay } else { 0.0 },
            update: self.number,
            gradient_scale,
        }
    }

    /// Factor of the gradients that brings their global L2 norm to at most `grad_clip`
    /// (PyTorch's `clip_grad_norm_`, with its 1e-6).
    pub fn clip_factor(&self, norm: f64) -> f64 {
        match self.settings.grad_clip {
            0.0 => 1.0,
            most => (most / (norm + 1e-6)).min(1.0),
        }
    }
}

/// A last look at a step before its update: whether the weights may change. It is not asked about a step that is not
/// finite.
pub type Accept<'a> = &'a mut dyn FnMut(&Ended) -> bool;

/// The loss and gradient norm of a step. If one is not finite, nothing was updated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ended {
    /// Summed over all tokens, in nats.
    pub loss: f64,
    /// Global L2 norm before clipping.
    pub gradient_norm: f64,
}

impl Ended {
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.gradient_norm.is_finite()
    }
}

/// The numbers of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    /// Updates made, this one included: 1 for the first.
    pub update: u64,
    /// The gradient is multiplied by this first: the clip factor.
    pub gradient_scale: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clipping_only_ever_shrinks_and_zero_turns_it_off() {
        let factor = |norm, grad_clip| {
            let settings = OptimizerSettings {
                weight_decay: 0.0,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                grad_clip,
            };
            let update = Update {
                settings,
                learning_rate: 1.0,
                number: 1,
                loss_scale: 1.0,
            };
            update.clip_factor(norm)
        };
        assert_eq!(factor(0.5, 1.0), 1.0);
        assert!((factor(4.0, 1.0) - 0.25).abs() < 1e-6);
        assert_eq!(factor(4.0, 0.0), 1.0);
    }
}
