//! The loss scale of float16 training.

use serde::{Deserialize, Serialize};

use crate::ops::backend::Ended;
use crate::terms::Inputs;

/// The factor of the loss before the backward, so that small gradients survive float16 (Micikevicius et al. 2018,
/// section 3.2). A power of two: in higher precision it changes no bit.
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

    /// A scale that adapts for float16, and stays 1 for all other inputs.
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

    /// Adapts to the outcome of a step. Returns whether the step must be repeated with the smaller scale. No scale
    /// helps against a loss that is not finite.
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
