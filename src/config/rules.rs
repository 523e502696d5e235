//! The rules that need more than one key.

use super::Config;
use super::keys::{STEP_SIZE, list};

/// Keys whose values do not go together.
pub(super) struct Conflict {
    pub keys: Vec<&'static str>,
    pub what: String,
    pub expected: String,
    /// A key and a value for it that would do.
    pub edit: Option<(&'static str, String)>,
}

pub(super) fn conflicts(config: &Config) -> Vec<Conflict> {
    [
        heads(config),
        step_size(config),
        smallest_rate(config),
        warmup(config),
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

/// A step is a whole number of micro-steps, given in one way.
fn step_size(config: &Config) -> Option<Conflict> {
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
    if names.len() > 1 {
        return Some(Conflict {
            what: format!("{} all give the size of a step", list(names.clone(), "and"))
                .replace("all", if names.len() == 2 { "both" } else { "all" }),
            keys: names,
            expected: format!("at most one of {}", list(STEP_SIZE, "and")),
            edit: None,
        });
    }
    let (batch, block) = (train.batch_size, config.model.block_size);
    if let Some(tokens) = train.tokens_per_step {
        let unit = batch.saturating_mul(block);
        let product = format!("`batch_size` x `block_size` = {batch} x {block} = {unit}");
        return not_multiple("tokens_per_step", &["block_size"], tokens, unit, &product);
    }
    let product = format!("`batch_size` = {batch}");
    not_multiple(
        "sequences_per_step",
        &[],
        train.sequences_per_step?,
        batch,
        &product,
    )
}

/// A conflict if `size` is not a multiple of `unit`, which `product` spells out.
fn not_multiple(
    name: &'static str,
    others: &[&'static str],
    size: usize,
    unit: usize,
    product: &str,
) -> Option<Conflict> {
    if unit == 0 || size.is_multiple_of(unit) {
        return None;
    }
    let below = Some(size - size % unit).filter(|below| *below > 0);
    let above = size.checked_next_multiple_of(unit);
    Some(Conflict {
        keys: [&[name, "batch_size"], others].concat(),
        what: format!("`{name}` = {size} is not a whole number of micro-steps"),
        expected: format!("a multiple of {product}: {}", nearest_two(below, above)),
        edit: closest(size, below, above).map(|size| (name, size.to_string())),
    })
}

/// The cosine falls from `learning_rate` to `min_lr`.
fn smallest_rate(config: &Config) -> Option<Conflict> {
    let (largest, smallest) = (config.optimizer.learning_rate, config.optimizer.min_lr);
    if !config.optimizer.decay_lr || smallest <= largest {
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
    (config.optimizer.decay_lr && warmup > decay).then(|| Conflict {
        keys: vec!["warmup_iters", "lr_decay_iters", "decay_lr"],
        what: format!("`warmup_iters` = {warmup} is above `lr_decay_iters` = {decay}"),
        expected: format!("`warmup_iters` from 0 to {decay}, or `decay_lr` = false"),
        edit: Some(("warmup_iters", decay.to_string())),
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
    // Of two that are equally close, the larger.
    [above, below]
        .into_iter()
        .flatten()
        .min_by_key(|candidate| candidate.abs_diff(to))
}
