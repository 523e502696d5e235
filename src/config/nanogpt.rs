//! nanoGPT's keys and values that taper does not have, each with what takes its place.

use toml::de::DeValue;

use super::keys::{self, Key};

/// Keys of nanoGPT's `train.py`, `sample.py` and `bench.py` that are no keys of a config here.
const KEYS: &[(&str, &str)] = &[
    (
        "always_save_checkpoint",
        "remove it: the newest `checkpoint.keep` checkpoints and the best one always stay",
    ),
    ("compile", "remove it: nothing is compiled at run time"),
    ("wandb_log", METRICS),
    ("wandb_project", METRICS),
    ("wandb_run_name", METRICS),
    (
        "start",
        "give it to `taper sample`, as `--prompt TEXT` or `--prompt FILE:PATH`",
    ),
    (
        "num_samples",
        "give it to `taper sample`, as `--num-samples`",
    ),
    (
        "max_new_tokens",
        "give it to `taper sample`, as `--max-new-tokens`",
    ),
    (
        "temperature",
        "give it to `taper sample`, as `--temperature`",
    ),
    ("top_k", "give it to `taper sample`, as `--top-k`"),
    ("real_data", BENCH),
    ("profile", BENCH),
];

const METRICS: &str = "remove it: every number goes to `metrics.jsonl` in `checkpoint.out_dir`, and to TensorBoard's event files there";
const BENCH: &str = "remove it: `taper bench step` times a step";

/// Values of a key that taper has for something else or in part.
const VALUES: &[(&str, &[&str], &str)] = &[
    (
        "device",
        &["mps"],
        "write `auto`: it takes the best device that taper can use here",
    ),
    (
        "backend",
        &["nccl", "gloo"],
        "remove it: taper trains in one process",
    ),
];

/// The substitute of a key that taper does not have.
pub(super) fn answer(name: &str) -> Option<&'static str> {
    let (_, answer) = KEYS.iter().find(|(key, _)| *key == name)?;
    Some(answer)
}

/// The substitute of a value that taper does not have.
pub(super) fn value_answer(key: &Key, value: &str) -> Option<&'static str> {
    // nanoGPT's devices may carry an index, `cuda:0`.
    let value = value.split(':').next().unwrap_or_default();
    let (_, _, answer) = VALUES
        .iter()
        .find(|(name, values, _)| *name == key.name && values.contains(&value))?;
    Some(answer)
}

/// The meaning of a setting in nanoGPT's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `section.key=value`, for `--set`.
    Set(String),
    /// A setting that taper needs no word for, and the reason.
    Superfluous(&'static str),
    /// The words to write in its place.
    Elsewhere(&'static str),
}

impl Setting {
    /// The advice to somebody whose line was refused.
    pub fn advice(&self) -> String {
        match self {
            Self::Set(set) => format!("write `--set {set}`"),
            Self::Superfluous(reason) => format!("{REMOVE}{reason}"),
            Self::Elsewhere(advice) => (*advice).into(),
        }
    }
}

/// The start of the answers that say that a setting is superfluous.
const REMOVE: &str = "remove it: ";

/// `--batch_size=32`, as nanoGPT's command line has it, in words of taper. `None` for a name that is no key of either.
pub fn setting(name: &str, value: Option<&str>) -> Option<Setting> {
    let name = name.replace('-', "_");
    let answered = |answer: &'static str| match answer.strip_prefix(REMOVE) {
        Some(reason) => Setting::Superfluous(reason),
        None => Setting::Elsewhere(answer),
    };
    let Some(key) = keys::find(&name) else {
        return answer(&name).map(answered);
    };
    let section = key.section;
    match value.and_then(|value| value_answer(key, value)) {
        // The best device that taper can use is what such a device was asked for as.
        Some(_) if name == "device" => return Some(Setting::Set(format!("{section}.device=auto"))),
        Some(answer) => return Some(answered(answer)),
        None => {}
    }
    let value = value.unwrap_or("VALUE");
    let meant = key.domain.meant(&DeValue::String(value.into()), value);
    let value = meant
        .as_deref()
        .map_or(value, |toml| toml.trim_matches('"'));
    Some(Setting::Set(format!("{section}.{name}={value}")))
}
