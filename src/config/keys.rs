//! Every key once: its section and the values it may have.
//!
//! What a value must be is said here and nowhere else; the checks, the messages and the
//! suggestions all follow from this table. Rules that need two keys are in `rules`.

use std::ops::RangeInclusive;

use toml::de::DeValue;

use super::{DeviceRequest, MemoryLimit};

/// A key of the configuration. Names are unique across sections.
#[derive(Debug)]
pub(super) struct Key {
    pub section: &'static str,
    pub name: &'static str,
    pub rule: Rule,
}

/// The values a key may have.
#[derive(Debug)]
pub(super) enum Rule {
    Switch,
    Whole(RangeInclusive<u64>),
    /// `auto`, or a whole number above 0.
    AutoOrCount,
    /// What is expected, and whether a number is that.
    Number(&'static str, fn(f64) -> bool),
    Choice(&'static [&'static str]),
    Device,
    /// Bytes above 0, as text with a unit or as a whole number.
    Size,
    /// Any text that is not empty; the first field says what it means.
    Text(&'static str),
}

const AUTO: &str = "auto";
const COUNT: Rule = Rule::Whole(1..=u64::MAX);
/// The sizes of a model and of a step: far beyond any use, and no product of them overflows.
const SIZE: Rule = Rule::Whole(1..=1 << 20);
const STEPS: Rule = Rule::Whole(0..=u64::MAX);
const FRACTION: Rule = Rule::Number("a number from 0 up to, but not including, 1", |x| {
    (0.0..1.0).contains(&x)
});
const POSITIVE: Rule = Rule::Number("a number above 0", |x| x > 0.0 && x.is_finite());
const NOT_NEGATIVE: Rule = Rule::Number("a number, 0 or more", |x| x >= 0.0 && x.is_finite());
const TOKEN_FILES: Rule = Rule::Text("a path or a `*` pattern");

pub(super) const KEYS: &[Key] = &[
    key("model", "n_layer", Rule::Whole(1..=4096)),
    key("model", "n_head", SIZE),
    key("model", "n_embd", SIZE),
    key("model", "block_size", SIZE),
    // Token files hold 16-bit ids.
    key("model", "vocab_size", Rule::Whole(1..=65_536)),
    key("model", "bias", Rule::Switch),
    key("model", "dropout", FRACTION),
    key("model", "gelu", Rule::Choice(&["tanh", "erf"])),
    key("data", "dataset", Rule::Text("the name of a dataset")),
    key("data", "data_dir", Rule::Text("a folder")),
    key("data", "train_bin", TOKEN_FILES),
    key("data", "val_bin", TOKEN_FILES),
    key(
        "train",
        "init_from",
        Rule::Text(
            "`scratch`, `resume`, `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl` or a folder",
        ),
    ),
    key("train", "seed", Rule::Whole(0..=u64::MAX)),
    key("train", "max_iters", STEPS),
    key("train", "batch_size", Rule::AutoOrCount),
    key("train", "gradient_accumulation_steps", SIZE),
    key("train", "sequences_per_step", SIZE),
    key("train", "tokens_per_step", COUNT),
    key("train", "log_interval", COUNT),
    key("optimizer", "learning_rate", POSITIVE),
    key("optimizer", "weight_decay", NOT_NEGATIVE),
    key("optimizer", "beta1", FRACTION),
    key("optimizer", "beta2", FRACTION),
    key("optimizer", "eps", POSITIVE),
    key("optimizer", "grad_clip", NOT_NEGATIVE),
    key("optimizer", "decay_lr", Rule::Switch),
    key("optimizer", "warmup_iters", STEPS),
    key("optimizer", "lr_decay_iters", STEPS),
    key("optimizer", "min_lr", NOT_NEGATIVE),
    key("eval", "eval_interval", COUNT),
    key("eval", "eval_iters", COUNT),
    key("eval", "eval_batch_size", COUNT),
    key("eval", "eval_only", Rule::Switch),
    key("checkpoint", "out_dir", Rule::Text("a folder")),
    key("checkpoint", "checkpoint_interval", COUNT),
    key("checkpoint", "keep", COUNT),
    key("system", "device", Rule::Device),
    key(
        "system",
        "dtype",
        Rule::Choice(&["auto", "float32", "bfloat16", "float16"]),
    ),
    key("system", "threads", Rule::Whole(1..=4096)),
    key("system", "memory_limit", Rule::Size),
    key(
        "system",
        "recompute",
        Rule::Choice(&["auto", "none", "gelu+ln", "block"]),
    ),
    key("system", "tf32", Rule::Switch),
    key("system", "cuda_graph", Rule::Choice(&["auto", "on", "off"])),
    key(
        "gemm",
        "autotune",
        Rule::Choice(&["auto", "full", "limited", "off"]),
    ),
    key(
        "gemm",
        "backend",
        Rule::Choice(&["auto", "cublaslt", "ptx", "fma"]),
    ),
];

/// Three ways to give one size: a `--set` of one replaces the file's choice of another.
pub(super) const STEP_SIZE: [&str; 3] = [
    "gradient_accumulation_steps",
    "sequences_per_step",
    "tokens_per_step",
];

/// nanoGPT's settings that taper does not have, and what to do instead.
const NANOGPT: &[(&str, &str)] = &[
    (
        "always_save_checkpoint",
        "remove it: the newest `checkpoint.keep` checkpoints and the best one always stay",
    ),
    ("compile", "remove it: nothing is compiled at run time"),
    ("wandb_log", METRICS),
    ("wandb_project", METRICS),
    ("wandb_run_name", METRICS),
];

const METRICS: &str = "remove it: every number goes to `metrics.jsonl` in `checkpoint.out_dir`";

/// Values of nanoGPT's that taper does not have, and what to do instead.
const NANOGPT_VALUES: &[(&str, &[&str], &str)] = &[
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

const fn key(section: &'static str, name: &'static str, rule: Rule) -> Key {
    Key {
        section,
        name,
        rule,
    }
}

pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The sections, in order.
pub(super) fn sections() -> impl Iterator<Item = &'static str> {
    KEYS.chunk_by(|a, b| a.section == b.section)
        .map(|keys| keys[0].section)
}

/// What to do instead of a setting of nanoGPT's.
pub(super) fn nanogpt_answer(name: &str) -> Option<&'static str> {
    let (_, answer) = NANOGPT.iter().find(|(key, _)| *key == name)?;
    Some(answer)
}

/// The candidate that is nearest to what was typed, if one is near.
pub(super) fn nearest<'a>(
    typed: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    // Below 0.8 the Jaro-Winkler similarity pairs words that have little more than letters in
    // common (`steps` and `seed`).
    candidates
        .map(|candidate| (strsim::jaro_winkler(typed, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// `` `a`, `b` and `c` `` with the given last joint.
pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a str>, joint: &str) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} {joint} {last}", rest.join(", ")),
        None => String::new(),
    }
}

impl Rule {
    pub fn admits(&self, value: &DeValue) -> bool {
        match self {
            Rule::Switch => value.is_bool(),
            Rule::Whole(range) => whole(value).is_some_and(|number| range.contains(&number)),
            Rule::AutoOrCount => value.as_str() == Some(AUTO) || SIZE.admits(value),
            Rule::Number(_, holds) => number(value).is_some_and(holds),
            Rule::Size => match value.as_str() {
                Some(text) => text.parse::<MemoryLimit>().is_ok(),
                None => COUNT.admits(value),
            },
            Rule::Choice(choices) => value.as_str().is_some_and(|text| choices.contains(&text)),
            Rule::Device => value
                .as_str()
                .is_some_and(|text| text.parse::<DeviceRequest>().is_ok()),
            Rule::Text(_) => value.as_str().is_some_and(|text| !text.is_empty()),
        }
    }

    /// What would be valid.
    pub fn expected(&self) -> String {
        match self {
            Rule::Switch => "`true` or `false`".into(),
            Rule::Whole(range) if *range.end() == u64::MAX => {
                format!("a whole number, {} or more", range.start())
            }
            Rule::Whole(range) => {
                format!("a whole number from {} to {}", range.start(), range.end())
            }
            Rule::AutoOrCount => format!("`{AUTO}` or {}", SIZE.expected()),
            Rule::Number(expected, _) => (*expected).into(),
            Rule::Size => MemoryLimit::EXPECTED.into(),
            Rule::Choice(choices) => list(choices.iter().copied(), "or"),
            Rule::Device => DeviceRequest::EXPECTED.into(),
            Rule::Text(expected) => format!("text in quotes: {expected}"),
        }
    }

    /// The TOML of a valid value that `value`, written as `raw`, was probably meant to be.
    pub fn meant(&self, value: &DeValue, raw: &str) -> Option<String> {
        let text = match value {
            DeValue::String(text) => text.trim(),
            DeValue::Array(_) | DeValue::Table(_) => return None,
            _ => raw,
        };
        let candidates = match self {
            Rule::Switch if text == "0" => vec!["false".into()],
            Rule::Switch if text == "1" => vec!["true".into()],
            Rule::Switch => vec![text.to_lowercase()],
            // Numbers that Python would take: 5e3 for a count.
            Rule::Whole(_) => vec![
                text.into(),
                text.parse().map(whole_text).unwrap_or_default(),
            ],
            Rule::AutoOrCount => [Rule::Choice(&[AUTO]), SIZE]
                .iter()
                .filter_map(|rule| rule.meant(value, raw))
                .collect(),
            Rule::Number(..) => vec![text.into()],
            // A number without its unit: a card's memory is given in GiB.
            Rule::Size => vec![format!("\"{text}GiB\"")],
            Rule::Choice(choices) => nearest(&text.to_lowercase(), choices.iter().copied())
                .map(|choice| vec![format!("\"{choice}\"")])
                .unwrap_or_default(),
            Rule::Device => match text.to_lowercase().as_str() {
                "gpu" => vec!["\"cuda\"".into()],
                text => vec![format!("\"{text}\"")],
            },
            Rule::Text(_) => vec![format!("\"{text}\"")],
        };
        candidates.into_iter().find(|candidate| {
            DeValue::parse(candidate).is_ok_and(|parsed| self.admits(parsed.get_ref()))
        })
    }
}

impl Key {
    /// A specific answer to a value that nanoGPT has and taper has not.
    pub fn nanogpt_value_answer(&self, value: &DeValue) -> Option<&'static str> {
        let value = value.as_str()?;
        // nanoGPT's devices may carry an index, `cuda:0`.
        let name = value.split(':').next().unwrap_or_default();
        let (_, _, answer) = NANOGPT_VALUES
            .iter()
            .find(|(key, values, _)| *key == self.name && values.contains(&name))?;
        Some(answer)
    }
}

/// The digits of a number that has no fraction, else nothing.
fn whole_text(number: f64) -> String {
    if number.fract() == 0.0 {
        format!("{number:.0}")
    } else {
        String::new()
    }
}

/// The whole number, 0 or more, that a value is.
pub(super) fn whole(value: &DeValue) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn number(value: &DeValue) -> Option<f64> {
    match value {
        DeValue::Integer(_) => whole(value).map(|number| number as f64),
        DeValue::Float(float) => float.as_str().parse().ok(),
        _ => None,
    }
}
