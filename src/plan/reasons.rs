//! The reasons behind the chosen rung, in words.

use super::draft::{Draft, Measure};
use super::{Choice, Launch};
use crate::model::Recompute;
use crate::units::{bytes, count};

/// The reasons behind the chosen rung.
pub(super) struct Picture<'a> {
    pub draft: &'a Draft,
    pub chosen: usize,
    pub sequences_per_step: usize,
    pub resumed: bool,
}

impl Picture<'_> {
    /// The rung one would have with enough memory.
    fn wanted(&self) -> &Launch {
        &self.draft.ladder[0]
    }

    fn launch(&self) -> &Launch {
        &self.draft.ladder[self.chosen]
    }

    fn lack(&self) -> String {
        let wanted = bytes(self.wanted().bytes);
        let there = self.draft.budget.value.map(bytes).unwrap_or_default();
        format!("needs {wanted}, {there} may be used")
    }

    pub fn micro_batch(&self) -> Choice<String> {
        let (rung, wanted) = (self.launch().rung, self.wanted().rung);
        let times = |size: usize| format!("{size} x {}", self.sequences_per_step / size);
        let because = match self.draft.pinned {
            _ if rung.micro_batch < wanted.micro_batch => format!(
                "{} {}; the step keeps its {} sequences",
                times(wanted.micro_batch),
                self.lack(),
                count(self.sequences_per_step as u64)
            ),
            _ if self.resumed => {
                "as in the checkpoint, so that the resumed run is the same bit for bit; \
                 `--set train.batch_size=N` starts from another"
                    .into()
            }
            Some(pinned) if pinned == rung.micro_batch => "`train.batch_size` says so".into(),
            Some(pinned) => format!(
                "the largest divisor of {} that is not above `train.batch_size` = {pinned}",
                self.sequences_per_step
            ),
            None => "larger ones are predicted to be no faster".into(),
        };
        Choice {
            value: times(rung.micro_batch),
            because,
        }
    }

    pub fn recompute(&self) -> Choice<Recompute> {
        let (value, wanted) = (self.launch().rung.recompute, self.wanted().rung.recompute);
        let because = match value {
            _ if value != wanted => format!("keeping more {}", self.lack()),
            Recompute::None => "everything is kept: nothing is computed twice".into(),
            _ => "`system.recompute` says so, or nothing needs to be kept".into(),
        };
        Choice { value, because }
    }

    pub fn logits_chunk(&self) -> Choice<String> {
        let Measure {
            model, precision, ..
        } = &self.draft.measure;
        let rung = self.launch().rung;
        let rows = rung.micro_batch * model.block_size;
        let size =
            |rows: usize| bytes((rows * model.vocab_size) as u64 * precision.element_bytes());
        let all = rung.logits_rows == rows;
        Choice {
            value: format!("{} rows", count(rung.logits_rows as u64)),
            because: match all {
                true => format!("all of a micro-batch, {}", size(rows)),
                false => format!(
                    "{} at a time; all {} rows would be {}",
                    size(rung.logits_rows),
                    count(rows as u64),
                    size(rows)
                ),
            },
        }
    }
}
