//! AdamW over the flat parameters: decay groups, clipping, and what one update is.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::model::ParamLayout;
use crate::ops::adamw::AdamW;
use crate::terms::Inputs;

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

/// Runs of neighbouring parameters that all decay, or all do not.
pub fn decay_runs(layout: &ParamLayout) -> Vec<(Range<usize>, bool)> {
    let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
    for param in &layout.params {
        match runs.last_mut() {
            Some((run, decays)) if *decays == param.decays() => run.end = param.range().end,
            _ => runs.push((param.range(), param.decays())),
        }
    }
    runs
}

/// One update of all parameters.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    pub settings: OptimizerSettings,
    pub learning_rate: f64,
    /// Counted from 1.
    pub number: u64,
    /// What the loss was multiplied by before the backward.
    pub loss_scale: f64,
}

impl Update {
    /// The rule for parameters that decay, or do not. `gradient_scale` is what gradients are multiplied by
    /// first.
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

    /// What the gradients are multiplied by so that their global L2 norm is at most `grad_clip`
    /// (PyTorch's `clip_grad_norm_`, with its 1e-6).
    pub fn clip_factor(&self, norm: f64) -> f64 {
        match self.settings.grad_clip {
            0.0 => 1.0,
            most => (most / (norm + 1e-6)).min(1.0),
        }
    }
}

/// What a step came to. If it is not finite, nothing was updated.
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

/// What the loss is multiplied by before the backward, so that small gradients survive float16 (Micikevicius
/// et al. 2018, section 3.2). A power of two: in higher precision it changes no bit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    value: f64,
    /// Finite steps since it changed last.
    good_steps: u32,
    moves: bool,
}

impl LossScale {
    /// PyTorch's `GradScaler` begins here, too, and grows as often.
    const FIRST: f64 = 65536.0;
    const GROW_AFTER: u32 = 2000;
    const MOST: f64 = 16_777_216.0;

    /// One that moves for float16, and stays 1 for all else.
    pub fn new(inputs: Inputs) -> Self {
        let moves = inputs == Inputs::Float16;
        Self {
            value: if moves { Self::FIRST } else { 1.0 },
            good_steps: 0,
            moves,
        }
    }

    pub fn value(&self) -> f64 {
        self.value
    }

    /// Goes on from that of a checkpoint, where both move.
    pub fn resume(&mut self, stored: Option<LossScale>) {
        if let Some(stored) = stored.filter(|stored| stored.moves && self.moves) {
            *self = stored;
        }
    }

    /// Learns from a step; whether it is to be done again with a smaller scale. A loss that is not finite
    /// is nothing that a scale helps against.
    pub fn try_again(&mut self, ended: &Ended) -> bool {
        if !self.moves {
            return false;
        }
        let overflowed = ended.loss.is_finite() && !ended.gradient_norm.is_finite();
        if overflowed && self.value > 1.0 {
            self.value /= 2.0;
            self.good_steps = 0;
            return true;
        }
        self.good_steps += 1;
        if self.good_steps >= Self::GROW_AFTER && self.value < Self::MOST {
            self.value *= 2.0;
            self.good_steps = 0;
        }
        false
    }
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
