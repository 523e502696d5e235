//! The learning rate as a function of the step: linear warm-up, then one of four shapes.

use serde::{Deserialize, Serialize};

/// Shape of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LrSchedule {
    /// Half a cosine down to `min_lr` (nanoGPT's `get_lr`).
    #[default]
    Cosine,
    /// A straight line down to `min_lr` (llm.c's `get_learning_rate_linear`).
    Linear,
    /// `learning_rate` to the end.
    Constant,
    /// Warm-up, stable, decay (MiniCPM, <https://arxiv.org/abs/2404.06395>): `learning_rate` up to the last
    /// `warmdown_iters` steps, which fall to `min_lr` with 1 - sqrt(progress). Hägele et al. 2024
    /// (<https://arxiv.org/abs/2405.18392>) found this shape better than a line; llm.c's `get_learning_rate_wsd` has it, too.
    Wsd,
}

impl LrSchedule {
    /// The word for it in a config.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Linear => "linear",
            Self::Constant => "constant",
            Self::Wsd => "wsd",
        }
    }
}

/// The schedule of a run, with nanoGPT's names.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    pub lr_schedule: LrSchedule,
    pub learning_rate: f64,
    pub min_lr: f64,
    pub warmup_iters: u64,
    pub lr_decay_iters: u64,
    /// Steps of the decay of [`LrSchedule::Wsd`]. It ends at `lr_decay_iters`.
    pub warmdown_iters: u64,
}

impl Schedule {
    /// The learning rate of `step`, counted from 0.
    ///
    /// The warm-up is nanoGPT's: `learning_rate * (step + 1) / (warmup_iters + 1)`. From `lr_decay_iters` on it is
    /// `min_lr`. With p = progress of the decay from 0 to 1, and f(p) = (1 + cos(pi p)) / 2 for a cosine, 1 - p for a line and
    /// 1 - sqrt(p) for `wsd`, in between it is `min_lr + f(p) * (learning_rate - min_lr)`.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_iters {
            return self.learning_rate * (step + 1) as f64 / (self.warmup_iters + 1) as f64;
        }
        let Some(start) = self.decay_start().filter(|start| step >= *start) else {
            return self.learning_rate;
        };
        if step >= self.lr_decay_iters {
            return self.min_lr;
        }
        let progress = (step - start) as f64 / (self.lr_decay_iters - start) as f64;
        let share = match self.lr_schedule {
            LrSchedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            LrSchedule::Linear => 1.0 - progress,
            LrSchedule::Wsd => 1.0 - progress.sqrt(),
            LrSchedule::Constant => 1.0,
        };
        self.min_lr + share * (self.learning_rate - self.min_lr)
    }

    /// The first step of the decay, whose rate is still `learning_rate`; `None` for a constant rate.
    pub fn decay_start(&self) -> Option<u64> {
        match self.lr_schedule {
            LrSchedule::Cosine | LrSchedule::Linear => Some(self.warmup_iters),
            LrSchedule::Constant => None,
            LrSchedule::Wsd => Some(self.lr_decay_iters.saturating_sub(self.warmdown_iters)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule {
        lr_schedule: LrSchedule::Cosine,
        learning_rate: 1e-3,
        min_lr: 1e-4,
        warmup_iters: 4,
        lr_decay_iters: 20,
        warmdown_iters: 8,
    };

    #[track_caller]
    fn assert_rates(lr_schedule: LrSchedule, rates: &[(u64, f64)]) {
        let schedule = Schedule {
            lr_schedule,
            ..SCHEDULE
        };
        for &(step, want) in rates {
            let got = schedule.at(step);
            assert!((got - want).abs() < 1e-12, "step {step}: {got}, not {want}");
        }
    }

    #[test]
    fn a_cosine_warms_up_peaks_decays_and_stays_at_the_floor() {
        assert_rates(
            LrSchedule::Cosine,
            &[
                (0, 2e-4),
                (3, 8e-4),
                (4, 1e-3),
                (8, 8.681980515339464e-4), // (1 + cos(pi / 4)) / 2 = 0.853553...
                (12, 5.5e-4),
                (20, 1e-4),
                (1_000_000, 1e-4),
            ],
        );
    }

    #[test]
    fn a_line_falls_by_the_same_amount_at_every_step() {
        assert_rates(
            LrSchedule::Linear,
            &[
                (0, 2e-4),
                (3, 8e-4),
                (4, 1e-3),
                (5, 9.4375e-4), // 9e-4 / 16 less
                (8, 7.75e-4),
                (12, 5.5e-4),
                (19, 1.5625e-4),
                (20, 1e-4),
                (1_000_000, 1e-4),
            ],
        );
    }

    #[test]
    fn a_constant_rate_is_kept_after_its_warm_up() {
        let rates = [
            (0, 2e-4),
            (3, 8e-4),
            (4, 1e-3),
            (20, 1e-3),
            (u64::MAX, 1e-3),
        ];
        assert_rates(LrSchedule::Constant, &rates);
        let cold = Schedule {
            lr_schedule: LrSchedule::Constant,
            warmup_iters: 0,
            ..SCHEDULE
        };
        assert_eq!((cold.at(0), cold.at(99)), (1e-3, 1e-3));
    }

    #[test]
    fn wsd_is_stable_and_then_falls_with_the_root_of_its_progress() {
        assert_rates(
            LrSchedule::Wsd,
            &[
                (0, 2e-4),
                (3, 8e-4),
                (4, 1e-3),
                (11, 1e-3),
                (12, 1e-3),
                (13, 6.818019484660536e-4), // 1 - sqrt(1 / 8) = 0.646446...
                (14, 5.5e-4),               // 1 - sqrt(2 / 8) = 0.5
                (18, 2.205771365940052e-4), // 1 - sqrt(6 / 8) = 0.133974...
                (20, 1e-4),
                (1_000_000, 1e-4),
            ],
        );
    }

    #[test]
    fn a_decay_that_ends_with_the_warm_up_goes_straight_to_the_floor() {
        for lr_schedule in [LrSchedule::Cosine, LrSchedule::Linear, LrSchedule::Wsd] {
            let steep = Schedule {
                lr_schedule,
                lr_decay_iters: 4,
                warmdown_iters: 0,
                ..SCHEDULE
            };
            assert_eq!((steep.at(3), steep.at(4)), (8e-4, 1e-4), "{lr_schedule:?}");
        }
    }

    #[test]
    fn every_rate_lies_between_its_neighbours_of_the_rule() {
        for lr_schedule in [LrSchedule::Cosine, LrSchedule::Linear, LrSchedule::Wsd] {
            let schedule = Schedule {
                lr_schedule,
                ..SCHEDULE
            };
            let rates: Vec<f64> = (0..30).map(|step| schedule.at(step)).collect();
            let (warm_up, rest) = rates.split_at(5);
            assert!(warm_up.is_sorted(), "{rates:?}");
            assert!(rest.iter().rev().is_sorted(), "{rates:?}");
        }
    }
}
