//! Settings that are valid and hardly meant.

use super::Config;

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
}

impl Config {
    /// Settings that are probably slips, for a run that trains.
    pub fn doubts(&self) -> Vec<Doubt> {
        let optimizer = &self.optimizer;
        let max_iters = self.train.max_iters;
        if !optimizer.decay_lr || max_iters == 0 || self.eval.eval_only {
            return Vec::new();
        }
        let warmup_iters = optimizer.warmup_iters;
        let ends_in_warmup = (warmup_iters >= max_iters).then_some(Doubt::EndsInWarmup {
            warmup_iters,
            max_iters,
            fitting: max_iters / WARMUP_SHARE,
        });
        let lr_decay_iters = optimizer.lr_decay_iters;
        let no_decay = (warmup_iters == lr_decay_iters && lr_decay_iters < max_iters).then_some(
            Doubt::NoDecay {
                lr_decay_iters,
                max_iters,
            },
        );
        ends_in_warmup.into_iter().chain(no_decay).collect()
    }
}

/// Steps for one of warm-up at least; nanoGPT's presets have 20 to 300.
const WARMUP_SHARE: u64 = 20;

/// Share of the learning rate that the last step of a run reaches which is all warm-up.
fn percent_reached(warmup_iters: u64, max_iters: u64) -> f64 {
    100.0 * max_iters as f64 / (warmup_iters as f64 + 1.0)
}
