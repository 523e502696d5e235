//! Reasons for the chosen rung, in words.

use super::Launch;
use super::draft::{Draft, Measure};
use super::ladder::RESOLUTION;
use crate::config::{Config, RecomputeRequest};
use crate::terms::{Choice, Job, Recompute};
use crate::units::{bytes, count};

/// Reasons for the rung `chosen` of a draft's ladder.
pub(super) struct Reasons<'a> {
    pub draft: &'a Draft,
    pub chosen: usize,
    pub config: &'a Config,
}

impl Reasons<'_> {
    /// The rung of a run with enough memory.
    fn wanted(&self) -> &Launch {
        &self.draft.ladder[0]
    }

    fn launch(&self) -> &Launch {
        &self.draft.ladder[self.chosen]
    }

    fn lack(&self, needed: u64) -> String {
        let there = self.draft.budget.value.map(bytes).unwrap_or_default();
        format!("needs {}, {there} may be used", bytes(needed))
    }

    /// Memory that the run may hold.
    pub fn memory(&self) -> Choice<String> {
        let budget = &self.draft.budget;
        Choice {
            value: budget.value.map_or("any".into(), bytes),
            because: budget.because.clone(),
        }
    }

    pub fn micro_batch(&self) -> Choice<String> {
        let (rung, wanted) = (self.launch().rung, self.wanted().rung);
        let sequences = self.config.sequences_per_step();
        let (job, all) = (self.draft.measure.job, count(sequences as u64));
        let times = |micro_batch: usize| match job {
            Job::Train => format!("{micro_batch} x {}", sequences / micro_batch),
            Job::Evaluate => micro_batch.to_string(),
        };
        let because = match self.config.train.batch_size.pinned() {
            _ if rung.micro_batch < wanted.micro_batch => format!(
                "{} {}; {}",
                times(wanted.micro_batch),
                self.lack(self.wanted().bytes),
                match job {
                    Job::Train => format!("the step keeps its {all} sequences"),
                    Job::Evaluate => "the losses are the same".into(),
                }
            ),
            pinned if self.countable_ends_at(pinned.unwrap_or(sequences).min(sequences)) => {
                format!(
                    "the largest divisor of {all} that is not above {}, the most sequences that kernels take at once",
                    count(self.draft.countable as u64)
                )
            }
            _ if self.draft.resumed => {
                "as in the checkpoint, so that the resumed run is the same bit for bit; \
                 another `train.batch_size` plans anew"
                    .into()
            }
            Some(pinned) if pinned == rung.micro_batch => "`train.batch_size` says so".into(),
            Some(pinned) => {
                format!(
                    "the largest divisor of {all} that is not above `train.batch_size` = {pinned}"
                )
            }
            None if rung.micro_batch == sequences => match job {
                Job::Train => "the whole step at once".into(),
                Job::Evaluate => "as many as a step has".into(),
            },
            None => format!(
                "larger ones are predicted to be {} faster",
                less_than_resolved()
            ),
        };
        Choice {
            value: times(rung.micro_batch),
            because,
        }
    }

    /// Whether the micro-batch is not larger because kernels take fewer sequences than `asked`.
    fn countable_ends_at(&self, asked: usize) -> bool {
        let (sequences, most) = (self.config.sequences_per_step(), self.draft.countable);
        let larger = self.wanted().rung.micro_batch + 1..=most.min(asked);
        asked > most
            && !larger
                .into_iter()
                .any(|size| sequences.is_multiple_of(size))
    }

    pub fn recompute(&self) -> Choice<Recompute> {
        let value = self.launch().rung.recompute;
        // The smallest of the rungs that keep more; all of them were passed over.
        let above = self.draft.ladder[..self.chosen].iter();
        let keeping_more = above
            .filter(|launch| launch.rung.recompute < value)
            .map(|launch| launch.bytes)
            .min();
        let because = match keeping_more {
            Some(needed) => format!("keeping more {}", self.lack(needed)),
            None if value == Recompute::None => {
                "everything is kept: nothing is computed twice".into()
            }
            None if self.draft.resumed => "as in the checkpoint".into(),
            None if self.config.system.recompute != RecomputeRequest::Auto => {
                "`system.recompute` says so".into()
            }
            None => format!(
                "keeping more is predicted to be {} faster",
                less_than_resolved()
            ),
        };
        Choice { value, because }
    }

    pub fn logits_chunk(&self) -> Choice<String> {
        let Measure {
            model, precision, ..
        } = &self.draft.measure;
        let rung = self.launch().rung;
        let rows = rung.micro_batch * model.block_size;
        let of_rows =
            |rows: usize| bytes((rows * model.vocab_size) as u64 * precision.element_bytes());
        Choice {
            value: format!("{} rows", count(rung.logits_rows as u64)),
            because: if rung.logits_rows == rows {
                format!("all of a micro-batch, {}", of_rows(rows))
            } else {
                format!(
                    "{} at a time; all {} rows would be {}",
                    of_rows(rung.logits_rows),
                    count(rows as u64),
                    of_rows(rows)
                )
            },
        }
    }
}

/// `less than 1 %`: a difference too small to spend memory on.
fn less_than_resolved() -> String {
    format!("less than {:.0} %", 100.0 * (1.0 - RESOLUTION))
}
