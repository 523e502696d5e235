//! Settings that are valid and hardly meant.

use super::Config;
use crate::outliers::WINDOW;
use crate::schedule::{LrSchedule, Schedule};

/// A request that can be carried out but is probably a slip.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// The run is over before the learning rate has risen to its value.
    #[error(
        "the run ends in its warm-up: `warmup_iters` is {warmup_iters} and `max_iters` {max_iters}, so that the learning \
         rate rises to {:.2} % of `learning_rate`; set `optimizer.warmup_iters` to {fitting}, or raise `train.max_iters`",
        percent_reached(*warmup_iters, *max_iters)
    )]
    EndsInWarmup {
        warmup_iters: u64,
        max_iters: u64,
        /// A warm-up that suits the run.
        fitting: u64,
    },
    /// The warm-up ends where the decay does: the learning rate falls from its value to the smallest in one step.
    #[error(
        "the learning rate falls to `min_lr` right after its warm-up: `warmup_iters` and `lr_decay_iters` are both \
         {lr_decay_iters}; set `optimizer.lr_decay_iters` to {max_iters}, the length of the run"
    )]
    NoDecay { lr_decay_iters: u64, max_iters: u64 },
    /// A run with warm-up, stable and decay ends before the decay does.
    #[error(
        "the run ends before its decay: `lr_schedule` is \"wsd\", whose learning rate falls from step {decay_start} to \
         {lr_decay_iters}, and `max_iters` is {max_iters}; set `optimizer.lr_decay_iters` to {max_iters}, unless the decay is \
         to follow in a run that goes on"
    )]
    EndsBeforeDecay {
        decay_start: u64,
        lr_decay_iters: u64,
        max_iters: u64,
    },
    /// The last steps have a learning rate of 0.
    #[error(
        "the steps after {lr_decay_iters} of {max_iters} change nothing: `min_lr` is 0, and the decay ends at \
         `lr_decay_iters`; set `optimizer.lr_decay_iters` to {max_iters}, or `optimizer.min_lr` above 0"
    )]
    RestsAtZero { lr_decay_iters: u64, max_iters: u64 },
    /// The length of a decay that the schedule does not have.
    #[error(
        "`warmdown_iters` is not used: it is the decay of `lr_schedule` = \"wsd\", and this run's is {schedule}"
    )]
    UnusedWarmdown { schedule: &'static str },
    /// The run is over before a guard has seen enough.
    #[error(
        "no update will be left out: `skip_loss_zscore` and `skip_grad_zscore` judge a step by the {window} before it, and \
         `max_iters` is {max_iters}"
    )]
    GuardSleeps { window: usize, max_iters: u64 },
}

impl Config {
    /// Settings that are probably slips, for a run that trains.
    pub fn doubts(&self) -> Vec<Doubt> {
        let max_iters = self.train.max_iters;
        if max_iters == 0 || self.eval.eval_only {
            return Vec::new();
        }
        let schedule = self.optimizer.schedule();
        let ends_in_warmup = (schedule.warmup_iters >= max_iters).then_some(Doubt::EndsInWarmup {
            warmup_iters: schedule.warmup_iters,
            max_iters,
            fitting: max_iters / WARMUP_SHARE,
        });
        let doubts = [
            ends_in_warmup,
            doubted_decay(&schedule, max_iters),
            self.unused_warmdown(&schedule),
            self.sleeping_guard(),
        ];
        doubts.into_iter().flatten().collect()
    }

    fn unused_warmdown(&self, schedule: &Schedule) -> Option<Doubt> {
        let is_unused = schedule.lr_schedule != LrSchedule::Wsd;
        let given = self.optimizer.warmdown_iters.filter(|_| is_unused);
        given.map(|_| Doubt::UnusedWarmdown {
            schedule: schedule.lr_schedule.name(),
        })
    }

    fn sleeping_guard(&self) -> Option<Doubt> {
        let optimizer = &self.optimizer;
        let is_on = optimizer.skip_loss_zscore > 0.0 || optimizer.skip_grad_zscore > 0.0;
        let max_iters = self.train.max_iters;
        (is_on && max_iters <= WINDOW as u64).then_some(Doubt::GuardSleeps {
            window: WINDOW,
            max_iters,
        })
    }
}

fn doubted_decay(schedule: &Schedule, max_iters: u64) -> Option<Doubt> {
    let decay_start = schedule.decay_start()?;
    let lr_decay_iters = schedule.lr_decay_iters;
    if schedule.warmup_iters == lr_decay_iters && lr_decay_iters < max_iters {
        return Some(Doubt::NoDecay {
            lr_decay_iters,
            max_iters,
        });
    }
    if schedule.lr_schedule == LrSchedule::Wsd && max_iters < lr_decay_iters {
        return Some(Doubt::EndsBeforeDecay {
            decay_start,
            lr_decay_iters,
            max_iters,
        });
    }
    (schedule.min_lr == 0.0 && lr_decay_iters < max_iters).then_some(Doubt::RestsAtZero {
        lr_decay_iters,
        max_iters,
    })
}

/// Steps for one of warm-up at least; nanoGPT's presets have 20 to 300.
const WARMUP_SHARE: u64 = 20;

/// Share of the learning rate that the last step of a run reaches which is all warm-up.
fn percent_reached(warmup_iters: u64, max_iters: u64) -> f64 {
    100.0 * max_iters as f64 / (warmup_iters as f64 + 1.0)
}
