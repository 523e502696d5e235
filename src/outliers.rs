//! Updates that are left out because the loss or the gradient norm of their step is an outlier: llm.c's
//! `outlier_detector.h`, with its flags `-sl` and `-sg`.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Values that a z-score is taken over, the new one included.
pub const WINDOW: usize = 128;

/// The z-scores above which an update is left out; 0 turns a guard off.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SkipSettings {
    pub loss_zscore: f64,
    pub grad_zscore: f64,
}

impl SkipSettings {
    pub fn is_on(&self) -> bool {
        self.loss_zscore > 0.0 || self.grad_zscore > 0.0
    }
}

/// A number of a step that a guard watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Watched {
    Loss,
    GradNorm,
}

impl Watched {
    pub fn name(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::GradNorm => "gradient norm",
        }
    }
}

/// The reason for which an update was left out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SkippedUpdate {
    /// The number that is an outlier.
    pub watched: Watched,
    pub zscore: f64,
    /// The largest z-score that is allowed.
    pub allowed: f64,
}

/// The last values of one number, oldest first, [`WINDOW`] at most. Values of steps whose update was left out count, too, as
/// in llm.c: a level that lasts is no outlier any more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Window(VecDeque<f64>);

impl Window {
    /// The z-score of `value` in the window that it would end: (value - mean) / standard deviation, both over all
    /// [`WINDOW`] values; 0 where they are all equal. `None` before the window has been full once.
    ///
    /// Nothing is accumulated from step to step, so that a resumed run computes the same bits.
    fn zscore(&self, value: f64) -> Option<f64> {
        if self.0.len() < WINDOW {
            return None;
        }
        let values = || self.0.iter().skip(1).copied().chain([value]);
        let mean = values().sum::<f64>() / WINDOW as f64;
        let variance = values().map(|x| (x - mean).powi(2)).sum::<f64>() / WINDOW as f64;
        Some(match variance.sqrt() {
            0.0 => 0.0,
            deviation => (value - mean) / deviation,
        })
    }

    fn push(&mut self, value: f64) {
        while self.0.len() >= WINDOW {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }
}

/// The losses and gradient norms of the last steps, and the number of updates left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outliers {
    losses: Window,
    grad_norms: Window,
    pub skipped: u64,
}

impl Outliers {
    /// Whether a step of this loss and gradient norm, both finite, is an outlier. Both are looked at before they are
    /// [`Outliers::push`]ed.
    pub fn judge(
        &self,
        settings: SkipSettings,
        loss: f64,
        grad_norm: f64,
    ) -> Option<SkippedUpdate> {
        let above = |watched, window: &Window, value, allowed| {
            let zscore = window.zscore(value)?;
            (allowed > 0.0 && zscore > allowed).then_some(SkippedUpdate {
                watched,
                zscore,
                allowed,
            })
        };
        let of_loss = above(Watched::Loss, &self.losses, loss, settings.loss_zscore);
        let norms = &self.grad_norms;
        of_loss.or_else(|| above(Watched::GradNorm, norms, grad_norm, settings.grad_zscore))
    }

    /// Adds the numbers of a step that is done.
    pub fn push(&mut self, loss: f64, grad_norm: f64, skipped: bool) {
        self.losses.push(loss);
        self.grad_norms.push(grad_norm);
        self.skipped += u64::from(skipped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// llm.c's arithmetic: running sums of values and of squares.
    #[derive(Default)]
    struct Reference {
        values: Vec<f64>,
        at: usize,
        sum: f64,
        sum_squares: f64,
    }

    impl Reference {
        fn update(&mut self, value: f64) -> f64 {
            self.sum += value;
            self.sum_squares += value * value;
            if self.values.len() < WINDOW {
                self.values.push(value);
                return f64::NAN;
            }
            let old = std::mem::replace(&mut self.values[self.at], value);
            self.sum -= old;
            self.sum_squares -= old * old;
            self.at = (self.at + 1) % WINDOW;
            let mean = self.sum / WINDOW as f64;
            let deviation = (self.sum_squares / WINDOW as f64 - mean * mean).sqrt();
            if deviation == 0.0 {
                0.0
            } else {
                (value - mean) / deviation
            }
        }
    }

    /// Falls slowly with noise, and jumps at some steps.
    fn curve(step: u64) -> f64 {
        let noise = (step * 2_654_435_761 % 1000) as f64 / 1000.0;
        let jump = if step % 97 == 96 { 3.0 } else { 0.0 };
        4.0 - 0.005 * step as f64 + 0.1 * noise + jump
    }

    #[test]
    fn z_scores_are_those_of_llm_c() {
        let (mut window, mut reference) = (Window::default(), Reference::default());
        let mut largest: f64 = 0.0;
        for step in 0..500 {
            let value = curve(step);
            let (got, want) = (window.zscore(value), reference.update(value));
            window.push(value);
            match got {
                None => assert!(step < WINDOW as u64 && want.is_nan(), "{step}"),
                Some(got) => assert!((got - want).abs() < 1e-9, "{step}: {got} {want}"),
            }
            largest = largest.max(want);
        }
        assert!(largest > 5.0, "nothing was an outlier: {largest}");
    }

    #[test]
    fn a_z_score_is_taken_over_the_last_128_values() {
        let mut window = Window::default();
        for step in 0..WINDOW as u64 {
            assert_eq!(window.zscore(1e9), None, "{step}");
            window.push(if step == 0 { 1e6 } else { (step % 2) as f64 });
        }
        // The first value leaves the window for the new one: 64 ones and 63 zeros are left.
        let mean: f64 = (64.0 + 2.0) / 128.0;
        let variance = (64.0 + 4.0) / 128.0 - mean * mean;
        let got = window.zscore(2.0).unwrap();
        let want = (2.0 - mean) / variance.sqrt();
        assert!((got - want).abs() < 1e-12, "{got} {want}");
        assert_eq!(window.0.len(), WINDOW);
    }

    #[test]
    fn equal_values_are_no_outliers_and_one_among_equals_has_the_largest_score() {
        let mut window = Window::default();
        (0..WINDOW).for_each(|_| window.push(2.5));
        assert_eq!(window.zscore(2.5), Some(0.0));
        let most = ((WINDOW - 1) as f64).sqrt();
        for value in [2.6, 1e300_f64.sqrt(), -1.0] {
            let got = window.zscore(value).unwrap();
            let want = if value > 2.5 { most } else { -most };
            assert!((got / want - 1.0).abs() < 1e-9, "{value}: {got}");
        }
    }

    #[test]
    fn a_guard_that_is_off_leaves_nothing_out_and_the_loss_is_judged_first() {
        let mut outliers = Outliers::default();
        for step in 0..WINDOW as u64 {
            outliers.push(curve(step), curve(step + 7), false);
        }
        let judge = |loss_zscore, grad_zscore, loss, norm| {
            let settings = SkipSettings {
                loss_zscore,
                grad_zscore,
            };
            let skipped = outliers.judge(settings, loss, norm);
            skipped.map(|skipped| (skipped.watched, skipped.allowed))
        };
        let (usual, high) = (curve(130), 60.0);
        assert_eq!(judge(3.0, 2.0, usual, usual), None);
        assert_eq!(judge(3.0, 2.0, high, high), Some((Watched::Loss, 3.0)));
        assert_eq!(judge(0.0, 2.0, high, high), Some((Watched::GradNorm, 2.0)));
        assert_eq!(judge(3.0, 0.0, usual, high), None);
        assert_eq!(judge(3.0, 2.0, -high, -high), None, "low is good");
    }

    #[test]
    fn a_checkpoint_brings_every_bit_back() {
        let mut outliers = Outliers::default();
        for step in 0..200 {
            outliers.push(curve(step) / 3.0, curve(step).exp(), step % 50 == 0);
        }
        let stored = serde_json::to_string(&outliers).unwrap();
        let read: Outliers = serde_json::from_str(&stored).unwrap();
        assert_eq!(read, outliers);
        assert_eq!((read.skipped, read.losses.0.len()), (4, WINDOW));
    }
}
