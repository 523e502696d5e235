//! The window of sample `n` of step `s`: a pure function of the seed. The order never depends on the
//! micro-batch, on accumulation, or on earlier steps.

use crate::rng::{Seed, Stream};

/// The two halves of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    Train = 0,
    Val = 1,
}

impl Split {
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
        }
    }
}

/// The window of training sample `sample` in step `step`, in `0..windows`: uniform with
/// replacement, as nanoGPT's `torch.randint`.
pub fn train_window(seed: Seed, step: u64, sample: u32, windows: u64) -> u64 {
    let (high, low) = ((step >> 32) as u32 & 0xFF_FFFF, step as u32);
    seed.below(Stream::TrainOrder, high, low, sample, windows)
}

/// The window of evaluation sample `sample`, in `0..windows`. It does not depend on the step: two
/// evaluations see the same text and compare.
pub fn eval_window(seed: Seed, split: Split, sample: u32, windows: u64) -> u64 {
    seed.below(Stream::EvalOrder, split as u32, 0, sample, windows)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn windows_lie_in_range(
            seed: u64, step in 0u64..1 << 56, sample: u32, windows in 1u64..1 << 40,
        ) {
            prop_assert!(train_window(Seed(seed), step, sample, windows) < windows);
            prop_assert!(eval_window(Seed(seed), Split::Val, sample, windows) < windows);
        }

        /// However a step's samples are divided into micro-batches, and in whatever order they
        /// are drawn, they are the same windows.
        #[test]
        fn the_samples_of_a_step_do_not_depend_on_the_micro_batch(
            seed: u64, step in 0u64..1 << 40, micro_batch in 1u32..48, windows in 1u64..1 << 33,
        ) {
            let all: Vec<u64> = (0..48).map(|n| train_window(Seed(seed), step, n, windows)).collect();
            let mut starts: Vec<u32> = (0..48).step_by(micro_batch as usize).collect();
            starts.reverse();
            for start in starts {
                for n in start..(start + micro_batch).min(48) {
                    prop_assert_eq!(train_window(Seed(seed), step, n, windows), all[n as usize]);
                }
            }
        }
    }

    /// Chi-square over 64 cells: 63 degrees of freedom, 124.6 is passed by one in a million.
    #[test]
    fn windows_are_uniform() {
        let mut cells = [0u32; 64];
        for step in 0..1000 {
            for sample in 0..64 {
                cells[train_window(Seed(1337), step, sample, 64) as usize] += 1;
            }
        }
        let chi: f64 = cells
            .iter()
            .map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0)
            .sum();
        assert!(chi < 124.6, "chi-square {chi}");
    }

    #[test]
    fn steps_samples_splits_and_seeds_draw_differently() {
        let windows = 1 << 40;
        let mut seen = HashSet::new();
        for seed in [1, 2] {
            for sample in 0..4 {
                // Steps beyond 32 bits do not repeat the first ones.
                for step in [0, 1, 1 << 32, (1 << 32) + 1] {
                    assert!(seen.insert(train_window(Seed(seed), step, sample, windows)));
                }
                for split in [Split::Train, Split::Val] {
                    assert!(seen.insert(eval_window(Seed(seed), split, sample, windows)));
                }
            }
        }
    }
}
