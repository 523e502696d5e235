//! The learning rate as a function of the step: linear warm-up, cosine decay, constant floor.

use serde::{Deserialize, Serialize};

/// nanoGPT's schedule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    pub learning_rate: f64,
    pub min_lr: f64,
    pub warmup_iters: u64,
    pub lr_decay_iters: u64,
    /// Decay and warm-up; if false, `learning_rate` holds throughout.
    pub decay_lr: bool,
}

impl Schedule {
    /// The learning rate of `step`, counted from 0 (nanoGPT's `get_lr`).
    pub fn at(&self, step: u64) -> f64 {
        if !self.decay_lr {
            return self.learning_rate;
        }
        if step < self.warmup_iters {
            return self.learning_rate * (step + 1) as f64 / (self.warmup_iters + 1) as f64;
        }
        if step >= self.lr_decay_iters {
            return self.min_lr;
        }
        let progress =
            (step - self.warmup_iters) as f64 / (self.lr_decay_iters - self.warmup_iters) as f64;
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        self.min_lr + cosine * (self.learning_rate - self.min_lr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule {
        learning_rate: 1e-3,
        min_lr: 1e-4,
        warmup_iters: 4,
        lr_decay_iters: 20,
        decay_lr: true,
    };

    #[test]
    fn warms_up_peaks_decays_and_stays_at_the_floor() {
        let close = |step, want: f64| assert!((SCHEDULE.at(step) - want).abs() < 1e-12, "{step}");
        close(0, 2e-4);
        close(3, 8e-4);
        close(4, 1e-3);
        close(12, 5.5e-4);
        close(20, 1e-4);
        close(1_000_000, 1e-4);
    }

    #[test]
    fn without_decay_the_rate_is_constant_from_the_first_step() {
        let constant = Schedule {
            decay_lr: false,
            ..SCHEDULE
        };
        assert_eq!(constant.at(0), 1e-3);
        assert_eq!(constant.at(99), 1e-3);
    }

    #[test]
    fn a_decay_that_ends_with_the_warm_up_goes_straight_to_the_floor() {
        let short = Schedule {
            lr_decay_iters: 4,
            ..SCHEDULE
        };
        assert_eq!(short.at(4), 1e-4);
    }
}
