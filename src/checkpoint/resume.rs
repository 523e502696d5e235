//! The check that a config goes on from a checkpoint: it must be the same experiment.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{CheckpointError, Difference};
use crate::config::Config;
use crate::schedule::LrSchedule;

/// Keys that may change on resume. They decide how long, how fast, where and how often, never
/// which numbers come out; but a guard may be turned on where a run needs it. All other keys must be equal, so a key added
/// later is covered.
const FREE_SECTIONS: [&str; 4] = ["eval", "checkpoint", "system", "gemm"];
const FREE_KEYS: [&str; 7] = [
    "data.data_dir",
    "train.init_from",
    "train.max_iters",
    "train.max_minutes",
    "train.log_interval",
    "optimizer.skip_loss_zscore",
    "optimizer.skip_grad_zscore",
];

/// Keys of the decay of the learning rate. They may change while it has not begun: from one stable run, several decays
/// may follow.
const DECAY_KEYS: [&str; 4] = [
    "optimizer.lr_schedule",
    "optimizer.lr_decay_iters",
    "optimizer.warmdown_iters",
    "optimizer.min_lr",
];

/// Names of the data, for a checkpoint that knows its dataset by contents.
const DATA_KEYS: [&str; 3] = ["data.dataset", "data.train_bin", "data.val_bin"];

/// Keys that are compared together, as the sequences of one optimizer step.
const BATCH_KEYS: [&str; 4] = [
    "train.batch_size",
    "train.gradient_accumulation_steps",
    "train.sequences_per_step",
    "train.tokens_per_step",
];

/// The key that stands for the size of a step, however it is spelled.
const STEP_SIZE: &str = "train.sequences_per_step";

/// Key that is derived from the dataset when absent on either side; loading compares the derived sizes.
const DERIVED_KEY: &str = "model.vocab_size";

/// Refuses a config that is another experiment than the one a checkpoint holds, in which `done` steps are done.
///
/// `stored_toml` is [`super::Checkpoint::config_toml`]; keys it lacks have their defaults.
///
/// # Errors
/// `Contradiction` lists every differing key with both values and the edit that makes it match;
/// `StoredConfig` when the stored text is no config of this version.
pub fn check_resumable(
    current: &Config,
    stored_toml: &str,
    done: u64,
) -> Result<(), CheckpointError> {
    compare(current, stored_toml, done, &[], |_| true)
}

/// As [`check_resumable`], for a dataset that is compared by its contents: it may lie elsewhere, under other names.
///
/// # Errors
/// As [`check_resumable`].
pub fn check_resumable_data_aside(
    current: &Config,
    stored_toml: &str,
    done: u64,
) -> Result<(), CheckpointError> {
    compare(current, stored_toml, done, &DATA_KEYS, |_| true)
}

/// Refuses a config that is another experiment than a run of another program, of which only the keys in `stored_toml`
/// are known.
///
/// # Errors
/// Those of [`check_resumable`].
pub fn check_stored_keys(
    current: &Config,
    stored_toml: &str,
    done: u64,
) -> Result<(), CheckpointError> {
    let sections: BTreeMap<String, toml::Table> =
        toml::from_str(stored_toml).map_err(unreadable)?;
    compare(current, stored_toml, done, &[], |key| {
        let (section, key) = key.split_once('.').unwrap_or_default();
        sections
            .get(section)
            .is_some_and(|keys| keys.contains_key(key))
    })
}

/// Refuses a config that differs from the stored one in a key that counts, and that is known.
fn compare(
    current: &Config,
    stored_toml: &str,
    done: u64,
    also_free: &[&str],
    is_known: impl Fn(&str) -> bool,
) -> Result<(), CheckpointError> {
    let stored = stored_config(stored_toml)?;
    let stored_keys = flat(&stored)?;
    let current_keys = flat(current)?;
    let mut differences: Vec<Difference> = Vec::new();
    let mut keys: Vec<&String> = stored_keys.keys().chain(current_keys.keys()).collect();
    keys.sort();
    keys.dedup();
    let decays_later = [current, &stored]
        .iter()
        .all(|config| is_stable(config, done));
    let is_free = |key: &str| {
        let of_decay = decays_later && DECAY_KEYS.contains(&key);
        is_free(key) || of_decay || also_free.contains(&key) || !is_known(key)
    };
    for key in keys.into_iter().filter(|key| !is_free(key)) {
        let (stored, current) = (stored_keys.get(key), current_keys.get(key));
        let derived = key == DERIVED_KEY && (stored.is_none() || current.is_none());
        if stored != current && !derived {
            differences.push(Difference {
                key: key.clone(),
                stored: stored.map(Value::to_string),
                current: current.map(Value::to_string),
                edit: edit(key, stored),
            });
        }
    }
    if is_known(STEP_SIZE) {
        differences.extend(step_size_difference(current, &stored));
    }
    if differences.is_empty() {
        Ok(())
    } else {
        Err(CheckpointError::Contradiction { differences })
    }
}

/// Whether `current` asks for the launch that the checkpoint's config asked for. If so, the run goes on with
/// the checkpoint's rung.
///
/// # Errors
/// `StoredConfig` when the stored text is no config of this version.
pub fn asks_for_the_same_launch(
    current: &Config,
    stored_toml: &str,
) -> Result<bool, CheckpointError> {
    let stored = stored_config(stored_toml)?;
    let launch = |config: &Config| {
        let system = &config.system;
        (
            config.train.batch_size,
            system.recompute,
            system.device,
            system.dtype,
        )
    };
    Ok(launch(current) == launch(&stored))
}

/// Whether `current` asks for the GEMMs that the checkpoint's config asked for. If so, the run goes on
/// with the checkpoint's table.
///
/// # Errors
/// `StoredConfig` when the stored text is no config of this version.
pub fn asks_for_the_same_gemm(
    current: &Config,
    stored_toml: &str,
) -> Result<bool, CheckpointError> {
    let stored = stored_config(stored_toml)?;
    Ok(current.gemm == stored.gemm)
}

/// The config that a checkpoint holds.
///
/// # Errors
/// `StoredConfig` when the stored text is no config of this version.
pub fn stored_config(stored_toml: &str) -> Result<Config, CheckpointError> {
    toml::from_str(stored_toml).map_err(unreadable)
}

/// Whether the learning rates of the first `done` steps do not depend on a decay.
fn is_stable(config: &Config, done: u64) -> bool {
    let schedule = config.optimizer.schedule();
    match schedule.lr_schedule {
        LrSchedule::Constant => config.optimizer.decay_lr,
        LrSchedule::Wsd => schedule.decay_start().is_some_and(|start| done <= start),
        LrSchedule::Cosine | LrSchedule::Linear => false,
    }
}

fn is_free(key: &str) -> bool {
    let section = key.split('.').next().unwrap_or_default();
    FREE_SECTIONS.contains(&section) || FREE_KEYS.contains(&key) || BATCH_KEYS.contains(&key)
}

fn edit(key: &str, stored: Option<&Value>) -> String {
    match stored {
        None => format!("remove `{key}`"),
        Some(Value::String(text)) => format!("`--set {key}={text}`"),
        Some(value) => format!("`--set {key}={value}`"),
    }
}

/// The difference in the size of a step. It may be spelled in several ways; only the number of sequences counts.
fn step_size_difference(current: &Config, stored: &Config) -> Option<Difference> {
    let (wanted, found) = (stored.sequences_per_step(), current.sequences_per_step());
    let train = &current.train;
    // The edit keeps the spelling of the config: two at once are not allowed.
    let edit = if let (Some(_), Some(batch)) =
        (train.gradient_accumulation_steps, train.batch_size.pinned())
    {
        let batch = largest_divisor(wanted, batch);
        let steps = wanted / batch;
        format!("`--set train.batch_size={batch} --set train.gradient_accumulation_steps={steps}`")
    } else if train.tokens_per_step.is_some() {
        let tokens = wanted * stored.model.block_size;
        format!("`--set train.tokens_per_step={tokens}`")
    } else {
        format!("`--set train.sequences_per_step={wanted}`")
    };
    (wanted != found).then(|| Difference {
        key: STEP_SIZE.into(),
        stored: Some(wanted.to_string()),
        current: Some(found.to_string()),
        edit,
    })
}

/// The largest divisor of `of` that is at most `most`, and at least 1.
fn largest_divisor(of: usize, most: usize) -> usize {
    let mut candidates = (1..=most.min(of)).rev();
    candidates
        .find(|divisor| of.is_multiple_of(*divisor))
        .unwrap_or(1)
}

/// Every key that has a value, as `section.key`. The values are JSON's, because TOML's hold no number above
/// 2^63, which a seed may be.
fn flat(config: &Config) -> Result<BTreeMap<String, Value>, CheckpointError> {
    let mut flat = BTreeMap::new();
    let sections: BTreeMap<String, BTreeMap<String, Value>> = serde_json::to_value(config)
        .and_then(serde_json::from_value)
        .map_err(unreadable)?;
    for (section, keys) in sections {
        let given = keys.into_iter().filter(|(_, value)| !value.is_null());
        flat.extend(given.map(|(key, value)| (format!("{section}.{key}"), value)));
    }
    Ok(flat)
}

fn unreadable(error: impl std::fmt::Display) -> CheckpointError {
    CheckpointError::StoredConfig {
        reason: error.to_string().trim_end().to_owned(),
    }
}
