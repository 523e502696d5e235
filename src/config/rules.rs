//! Rules that need more than one key.

use super::keys::{STEP_SIZE, list};
use super::{Config, NANOGPT_BATCH_SIZE};
use crate::schedule::LrSchedule;

/// A conflict between the values of some keys.
pub(super) struct Conflict {
    pub keys: Vec<&'static str>,
    pub what: String,
    pub expected: String,
    /// A key, and a value for it that removes the conflict.
    pub edit: Option<(&'static str, String)>,
}

/// Every conflict. `replaced_batch_size` is a number for `batch_size` that was given and then replaced.
pub(super) fn conflicts(config: &Config, replaced_batch_size: Option<usize>) -> Vec<Conflict> {
    [
        heads(config),
        one_step_size(config),
        micro_steps(config, replaced_batch_size),
        whole_sequences(config),
        countable(config),
        one_schedule(config),
        smallest_rate(config),
        warmup(config),
        warmdown(config),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Attention splits the channels evenly over the heads.
fn heads(config: &Config) -> Option<Conflict> {
    let (channels, heads) = (config.model.n_embd, config.model.n_head);
    if heads == 0 || channels.is_multiple_of(heads) {
        return None;
    }
    let divisors = (1..=channels.isqrt())
        .filter(|small| channels.is_multiple_of(*small))
        .flat_map(|small| [small, channels / small]);
    let below = divisors.clone().filter(|d| *d < heads).max();
    let above = divisors.filter(|d| *d > heads).min();
    Some(Conflict {
        keys: vec!["n_head", "n_embd"],
        what: format!("`n_embd` = {channels} does not divide into `n_head` = {heads} heads"),
        expected: format!(
            "`n_head` to divide {channels}: {}",
            nearest_two(below, above)
        ),
        edit: closest(heads, below, above).map(|count| ("n_head", count.to_string())),
    })
}

/// The size of a step is given in one way.
fn one_step_size(config: &Config) -> Option<Conflict> {
    let train = &config.train;
    let given = [
        train.gradient_accumulation_steps,
        train.sequences_per_step,
        train.tokens_per_step,
    ];
    let names = STEP_SIZE.iter().zip(given);
    let names: Vec<&str> = names
        .filter_map(|(name, size)| size.map(|_| *name))
        .collect();
    (names.len() > 1).then(|| Conflict {
        what: format!("{} all give the size of a step", list(names.clone(), "and"))
            .replace("all", if names.len() == 2 { "both" } else { "all" }),
        keys: names,
        expected: format!("at most one of {}", list(STEP_SIZE, "and")),
        edit: None,
    })
}

/// Micro-steps give the size of a step only with the size of a micro-step.
fn micro_steps(config: &Config, replaced_batch_size: Option<usize>) -> Option<Conflict> {
    let train = &config.train;
    let micro_steps = train.gradient_accumulation_steps?;
    let other_size = train.sequences_per_step.or(train.tokens_per_step);
    if train.batch_size.pinned().is_some() || other_size.is_some() {
        return None;
    }
    let batch_size = replaced_batch_size.unwrap_or(NANOGPT_BATCH_SIZE);
    let sequences = batch_size.saturating_mul(micro_steps);
    Some(Conflict {
        keys: vec!["gradient_accumulation_steps"],
        what: format!(
            "`gradient_accumulation_steps` = {micro_steps} does not give the size of a step while \
             `batch_size` is `auto`"
        ),
        expected: format!(
            "`sequences_per_step` instead, such as {sequences} for {micro_steps} micro-steps of \
             {batch_size}, or a number for `batch_size`"
        ),
        edit: Some(("sequences_per_step", sequences.to_string())),
    })
}

/// Samples of a step and of an evaluation are numbered with 32 bits; a step of more than 2^20 is a
/// slip.
fn countable(config: &Config) -> Option<Conflict> {
    const MOST: usize = 1 << 20;
    let too_large = |keys: &[&'static str], what: &str, sequences: usize, most: usize| {
        (sequences > most).then(|| Conflict {
            keys: keys.to_vec(),
            what: format!("{what} has {sequences} sequences"),
            expected: format!("at most {most}"),
            edit: None,
        })
    };
    let step = [&STEP_SIZE[..], &["batch_size"]].concat();
    let evaluation = ["eval_iters", "eval_batch_size"];
    too_large(&step, "a step", config.sequences_per_step(), MOST).or_else(|| {
        let sequences = config.eval_sequences();
        too_large(&evaluation, "an evaluation", sequences, u32::MAX as usize)
    })
}

/// A step is a whole number of sequences.
fn whole_sequences(config: &Config) -> Option<Conflict> {
    let (tokens, block) = (config.train.tokens_per_step?, config.model.block_size);
    if block == 0 || tokens.is_multiple_of(block) {
        return None;
    }
    let below = Some(tokens - tokens % block).filter(|below| *below > 0);
    let above = tokens.checked_next_multiple_of(block);
    Some(Conflict {
        keys: vec!["tokens_per_step"],
        what: format!("`tokens_per_step` = {tokens} is not a whole number of sequences"),
        expected: format!(
            "a multiple of `block_size` = {block}: {}",
            nearest_two(below, above)
        ),
        edit: closest(tokens, below, above).map(|tokens| ("tokens_per_step", tokens.to_string())),
    })
}

/// `decay_lr = false` is a schedule, too.
fn one_schedule(config: &Config) -> Option<Conflict> {
    let optimizer = &config.optimizer;
    let asked = optimizer.lr_schedule;
    if optimizer.decay_lr || asked == LrSchedule::default() {
        return None;
    }
    let differs = match asked {
        LrSchedule::Constant => "has a warm-up",
        _ => "decays",
    };
    Some(Conflict {
        keys: vec!["lr_schedule", "decay_lr"],
        what: format!(
            "`decay_lr` = false keeps `learning_rate` from the first step on, `lr_schedule` = \"{}\" {differs}",
            asked.name()
        ),
        expected: "`decay_lr` = true, or no `lr_schedule`".into(),
        edit: Some(("decay_lr", "true".into())),
    })
}

/// The learning rate falls from `learning_rate` to `min_lr`.
fn smallest_rate(config: &Config) -> Option<Conflict> {
    let (largest, smallest) = (config.optimizer.learning_rate, config.optimizer.min_lr);
    if config.optimizer.schedule().decay_start().is_none() || smallest <= largest {
        return None;
    }
    // A tenth, as nanoGPT has it, to three digits.
    let tenth = format!("{:.2e}", largest / 10.0).parse::<f64>();
    Some(Conflict {
        keys: vec!["min_lr", "learning_rate", "decay_lr"],
        what: format!("`min_lr` = {smallest:?} is above `learning_rate` = {largest:?}"),
        expected: format!("`min_lr` from 0 to {largest:?}, or `decay_lr` = false"),
        edit: tenth.ok().map(|tenth| ("min_lr", format!("{tenth:?}"))),
    })
}

/// The decay starts where the warm-up ends.
fn warmup(config: &Config) -> Option<Conflict> {
    let (warmup, decay) = (
        config.optimizer.warmup_iters,
        config.optimizer.lr_decay_iters,
    );
    let decays = config.optimizer.schedule().decay_start().is_some();
    (decays && warmup > decay).then(|| Conflict {
        keys: vec!["warmup_iters", "lr_decay_iters", "decay_lr"],
        what: format!("`warmup_iters` = {warmup} is above `lr_decay_iters` = {decay}"),
        expected: format!("`warmup_iters` from 0 to {decay}, or `decay_lr` = false"),
        edit: Some(("warmup_iters", decay.to_string())),
    })
}

/// The decay of `wsd` begins after its warm-up.
fn warmdown(config: &Config) -> Option<Conflict> {
    let schedule = config.optimizer.schedule();
    let (warmup, decay) = (schedule.warmup_iters, schedule.lr_decay_iters);
    let most = decay.checked_sub(warmup)?;
    let warmdown = schedule.warmdown_iters;
    (schedule.lr_schedule == LrSchedule::Wsd && warmdown > most).then(|| Conflict {
        keys: vec!["warmdown_iters", "warmup_iters", "lr_decay_iters"],
        what: format!(
            "`warmdown_iters` = {warmdown} does not fit between `warmup_iters` = {warmup} and `lr_decay_iters` = {decay}"
        ),
        expected: format!("`warmdown_iters` from 0 to {most}"),
        edit: Some(("warmdown_iters", most.to_string())),
    })
}

fn nearest_two(below: Option<usize>, above: Option<usize>) -> String {
    match (below, above) {
        (Some(below), Some(above)) => format!("the nearest are {below} and {above}"),
        (Some(one), None) | (None, Some(one)) => format!("the nearest is {one}"),
        (None, None) => "there is none in range".into(),
    }
}

fn closest(to: usize, below: Option<usize>, above: Option<usize>) -> Option<usize> {
    // The larger of two that are equally close.
    [above, below]
        .into_iter()
        .flatten()
        .min_by_key(|candidate| candidate.abs_diff(to))
}
