//! The rungs that a run may stand on: from the fastest useful one down to the smallest.
//!
//! Down the ladder every rung takes less memory, is predicted to be slower, and has a micro-batch
//! that is not larger. So the first rung that fits is the one to launch, and more memory never gives a
//! smaller one. The price: rungs that would be a little faster (1.5 % was seen, GPT-2 on a 12 GB card)
//! are left out where their micro-batch is larger than that of a rung above them.

use serde::Serialize;

use super::resolve;
use crate::config::Config;
use crate::terms::{Job, ModelDims, Precision, Recompute, Rung};

/// A rung, with its memory and its predicted speed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Launch {
    #[serde(flatten)]
    pub rung: Rung,
    /// Total of all buffers and the reserve.
    pub bytes: u64,
    /// Prediction that ranks rungs.
    pub tokens_per_second: f64,
}

/// Most bytes of logits that a rung may hold at a time. A chunk stays below 2^31 elements.
const LOGITS_CHUNK_BYTES: [usize; 5] = [1 << 30, 256 << 20, 64 << 20, 16 << 20, 4 << 20];

/// Predictions closer than this are not told apart; then the rung that takes less memory is better.
pub(super) const RESOLUTION: f64 = 0.99;

/// A rung must free at least this share of what the one above it takes beyond the smallest rung;
/// smaller steps would not help a run that was refused memory.
const STEP: f64 = 0.05;

/// Tensor cores are at their best where every side of a GEMM is a multiple of 64 values of 16 bits
/// (NVIDIA, "Matrix Multiplication Background User's Guide", section "Requirements to use tensor cores").
const TILE_ROWS: usize = 64;

/// Every rung that the ladder may have.
pub(super) struct Rungs {
    sequences_per_step: usize,
    block_size: usize,
    vocab_size: usize,
    element_bytes: usize,
    /// The largest micro-batch that kernels take.
    countable: usize,
    /// The largest micro-batch, asked for by the user.
    pinned: Option<usize>,
    /// Allowed kinds, in order of preference.
    recomputes: &'static [Recompute],
}

impl Rungs {
    /// `precision` is that of the logits.
    pub fn new(
        config: &Config,
        model: &ModelDims,
        precision: Precision,
        countable: usize,
        job: Job,
    ) -> Self {
        Self {
            sequences_per_step: config.sequences_per_step(),
            block_size: model.block_size,
            vocab_size: model.vocab_size,
            element_bytes: precision.element_bytes() as usize,
            countable,
            pinned: config.train.batch_size.pinned(),
            // Nothing is kept in an evaluation, so nothing is recomputed.
            recomputes: match job {
                Job::Train => resolve::recomputes(config),
                Job::Evaluate => &[Recompute::Block],
            },
        }
    }

    /// Launches from the best rung to the smallest; never empty.
    pub fn ladder(&self, launch: impl Fn(Rung) -> Launch) -> Vec<Launch> {
        let mut launches: Vec<Launch> = self.all().map(launch).collect();
        let top = self.top(&launches);
        let floor = launches
            .iter()
            .map(|launch| launch.bytes)
            .min()
            .unwrap_or(0);
        launches.sort_by(|a, b| {
            b.tokens_per_second
                .total_cmp(&a.tokens_per_second)
                .then(a.bytes.cmp(&b.bytes))
        });
        let mut ladder = vec![top];
        let mut last = top;
        for launch in launches {
            let slower = launch.tokens_per_second <= top.tokens_per_second;
            let enough = ((last.bytes - floor) as f64 * (1.0 - STEP)) as u64;
            let smaller = launch.bytes < last.bytes && launch.bytes - floor <= enough;
            if slower && smaller && launch.rung.micro_batch <= last.rung.micro_batch {
                last = launch;
                ladder.push(launch);
            }
        }
        ladder
    }

    /// Every divisor of the step, with every recompute and every useful chunk of logits.
    fn all(&self) -> impl Iterator<Item = Rung> {
        let sequences = self.sequences_per_step;
        let asked = self.pinned.unwrap_or(sequences).min(sequences);
        let most = asked.min(self.countable);
        let divisors = (1..=most).filter(move |size| sequences.is_multiple_of(*size));
        divisors.flat_map(move |micro_batch| {
            let mut chunks = LOGITS_CHUNK_BYTES
                .map(|bytes| self.logits_rows(micro_batch * self.block_size, bytes))
                .to_vec();
            chunks.dedup();
            let recomputes = self.recomputes.iter();
            recomputes.flat_map(move |&recompute| {
                let rung = move |logits_rows| Rung {
                    micro_batch,
                    recompute,
                    logits_rows,
                };
                chunks.clone().into_iter().map(rung)
            })
        })
    }

    /// Rows of logits in at most `bytes`: chunks of about one size, none of them a small remainder,
    /// and of whole tiles where there is room for them.
    fn logits_rows(&self, rows: usize, bytes: usize) -> usize {
        let most = (bytes / (self.vocab_size * self.element_bytes)).clamp(1, rows);
        let equal = rows.div_ceil(rows.div_ceil(most));
        match equal.next_multiple_of(TILE_ROWS) {
            whole if whole <= most => whole,
            _ => equal,
        }
    }

    /// Start of the ladder: the smallest of the rungs that are as fast as any. With a pinned
    /// micro-batch, only rungs with that one and the least recompute count.
    fn top(&self, launches: &[Launch]) -> Launch {
        let largest = launches.iter().map(|launch| launch.rung.micro_batch).max();
        let eligible = |launch: &&Launch| {
            self.pinned.is_none()
                || Some(launch.rung.micro_batch) == largest
                    && launch.rung.recompute == self.recomputes[0]
        };
        let speed = |launch: &Launch| launch.tokens_per_second;
        let best = launches
            .iter()
            .filter(eligible)
            .map(speed)
            .fold(0.0, f64::max);
        let as_fast = launches
            .iter()
            .filter(eligible)
            .filter(|launch| speed(launch) >= RESOLUTION * best);
        let smallest = as_fast.min_by_key(|launch| launch.bytes);
        *smallest.unwrap_or(&launches[0])
    }
}

/// Puts a checkpoint's rung at the top. The rungs that stay below it take less memory, and none has a larger
/// micro-batch.
pub(super) fn begin_with(first: Launch, ladder: &mut Vec<Launch>) {
    ladder.retain(|launch| {
        launch.bytes < first.bytes && launch.rung.micro_batch <= first.rung.micro_batch
    });
    ladder.insert(0, first);
}
