//! The window of smoothing, in steps as people give it and in recorded values as it is used.

use crate::runs::Run;

/// Share of a run that a smoothed value is the mean of, where nobody asks for another.
const SHARE: f64 = 1.0 / 50.0;
/// Fewer values than these are not smoothed without being asked.
const FEWEST_VALUES: usize = 25;
/// An automatic window has at least so many values.
const LEAST_WINDOW: u64 = 5;

/// Window of smoothing for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Recorded values in the mean, an odd number; 1 smooths nothing.
    pub values: usize,
    /// Steps that they stand for.
    pub steps: u64,
}

impl Window {
    /// The window of about `steps` steps in a run.
    pub fn of(run: &Run, steps: u64) -> Self {
        let spacing = spacing(run);
        let half = (steps as f64 / spacing / 2.0).floor().min(1e9) as usize;
        let values = 2 * half + 1;
        Self {
            values,
            steps: (values as f64 * spacing).round() as u64,
        }
    }

    pub fn smooths(&self) -> bool {
        self.values > 1
    }
}

/// Steps of a window that suits all of `runs`: a fiftieth of the longest, and 1 where they are short.
pub fn automatic_window(runs: &[Run]) -> u64 {
    let longest = runs.iter().max_by_key(|run| run.steps.len());
    let Some(run) = longest.filter(|run| run.steps.len() >= FEWEST_VALUES) else {
        return 1;
    };
    let span = run.steps.len() as f64 * spacing(run);
    let least = (LEAST_WINDOW as f64 * spacing(run)).ceil() as u64;
    ((span * SHARE).round() as u64).max(least)
}

/// Steps between recorded ones, on average.
fn spacing(run: &Run) -> f64 {
    match (run.steps.first(), run.steps.last()) {
        (Some(first), Some(last)) if run.steps.len() > 1 => {
            ((last.step - first.step) as f64 / (run.steps.len() - 1) as f64).max(1.0)
        }
        _ => 1.0,
    }
}
