//! The table of keys: the section and the valid values of each.
//!
//! This table is the only source of the checks, the messages and the suggestions for one key. Rules that need
//! two keys are in `rules`.

use std::ops::RangeInclusive;

use toml::de::DeValue;

use super::{DeviceRequest, MemoryLimit};
use crate::terms::expand_home;

/// A key of the configuration. Names are unique across sections.
#[derive(Debug)]
pub(super) struct Key {
    pub section: &'static str,
    pub name: &'static str,
    pub domain: Domain,
}

/// The valid values of a key.
#[derive(Debug)]
pub(super) enum Domain {
    Switch,
    Whole(RangeInclusive<u64>),
    /// `auto`, or a whole number above 0.
    AutoOrCount,
    /// A description of the numbers that are valid, and the test for them.
    Number(&'static str, fn(f64) -> bool),
    Choice(&'static [&'static str]),
    Device,
    /// Bytes above 0, as text with a unit or as a whole number.
    Size,
    /// A path, with its meaning. `~` at its start is the home folder; what else a shell would expand is refused, because
    /// it is more likely a slip than a name.
    Path(&'static str),
}

const AUTO: &str = "auto";
const COUNT: Domain = Domain::Whole(1..=u64::MAX);
/// Sizes of a model and of a step. The limit is far beyond any use, and no product of sizes overflows.
const SIZE: Domain = Domain::Whole(1..=1 << 20);
const STEPS: Domain = Domain::Whole(0..=u64::MAX);
const FRACTION: Domain = Domain::Number("a number from 0 up to, but not including, 1", |x| {
    (0.0..1.0).contains(&x)
});
const POSITIVE: Domain = Domain::Number("a number above 0", |x| x > 0.0 && x.is_finite());
const NOT_NEGATIVE: Domain = Domain::Number("a number, 0 or more", |x| x >= 0.0 && x.is_finite());
const TOKEN_FILES: Domain = Domain::Path("a path or a `*` pattern");

pub(super) const KEYS: &[Key] = &[
    key("model", "n_layer", Domain::Whole(1..=4096)),
    key("model", "n_head", SIZE),
    key("model", "n_embd", SIZE),
    key("model", "block_size", SIZE),
    // Token files hold 16-bit ids.
    key("model", "vocab_size", Domain::Whole(1..=65_536)),
    key("model", "bias", Domain::Switch),
    key("model", "dropout", FRACTION),
    key("model", "gelu", Domain::Choice(&["tanh", "erf"])),
    key("data", "dataset", Domain::Path("the name of a dataset")),
    key("data", "data_dir", Domain::Path("a folder")),
    key("data", "train_bin", TOKEN_FILES),
    key("data", "val_bin", TOKEN_FILES),
    key(
        "train",
        "init_from",
        Domain::Path(
            "`scratch`, `resume`, `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl` or a folder",
        ),
    ),
    key("train", "seed", Domain::Whole(0..=u64::MAX)),
    key("train", "max_iters", STEPS),
    key("train", "batch_size", Domain::AutoOrCount),
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
    key("optimizer", "decay_lr", Domain::Switch),
    key("optimizer", "warmup_iters", STEPS),
    key("optimizer", "lr_decay_iters", STEPS),
    key("optimizer", "min_lr", NOT_NEGATIVE),
    key("eval", "eval_interval", COUNT),
    key("eval", "eval_iters", COUNT),
    key("eval", "eval_batch_size", COUNT),
    key("eval", "eval_only", Domain::Switch),
    key(
        "eval",
        "eval_tasks",
        Domain::Path("tasks of `taper eval` with commas between them"),
    ),
    key("eval", "eval_tasks_interval", COUNT),
    key("eval", "eval_tasks_limit", COUNT),
    key("checkpoint", "out_dir", Domain::Path("a folder")),
    key("checkpoint", "checkpoint_interval", COUNT),
    key("checkpoint", "keep", COUNT),
    key("system", "device", Domain::Device),
    key(
        "system",
        "dtype",
        Domain::Choice(&["auto", "float32", "bfloat16", "float16"]),
    ),
    key("system", "threads", Domain::Whole(1..=4096)),
    key("system", "memory_limit", Domain::Size),
    key(
        "system",
        "recompute",
        Domain::Choice(&["auto", "none", "gelu+ln", "block"]),
    ),
    key("system", "tf32", Domain::Switch),
    key(
        "system",
        "cuda_graph",
        Domain::Choice(&["auto", "on", "off"]),
    ),
    key(
        "gemm",
        "autotune",
        Domain::Choice(&["auto", "full", "limited", "off"]),
    ),
    key(
        "gemm",
        "backend",
        Domain::Choice(&["auto", "cublaslt", "ptx", "fma"]),
    ),
];

/// Three keys that each give the size of a step. A `--set` of one replaces another one of the file.
pub(super) const STEP_SIZE: [&str; 3] = [
    "gradient_accumulation_steps",
    "sequences_per_step",
    "tokens_per_step",
];

const fn key(section: &'static str, name: &'static str, domain: Domain) -> Key {
    Key {
        section,
        name,
        domain,
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

impl Domain {
    pub fn admits(&self, value: &DeValue) -> bool {
        match self {
            Domain::Switch => value.is_bool(),
            Domain::Whole(range) => whole(value).is_some_and(|number| range.contains(&number)),
            Domain::AutoOrCount => value.as_str() == Some(AUTO) || SIZE.admits(value),
            Domain::Number(_, holds) => number(value).is_some_and(holds),
            Domain::Size => match value.as_str() {
                Some(text) => text.parse::<MemoryLimit>().is_ok(),
                None => COUNT.admits(value),
            },
            Domain::Choice(choices) => value.as_str().is_some_and(|text| choices.contains(&text)),
            Domain::Device => value
                .as_str()
                .is_some_and(|text| text.parse::<DeviceRequest>().is_ok()),
            Domain::Path(_) => value.as_str().is_some_and(is_plain_path),
        }
    }

    /// Description of the valid values, for messages.
    pub fn expected(&self) -> String {
        match self {
            Domain::Switch => "`true` or `false`".into(),
            Domain::Whole(range) if *range.end() == u64::MAX => {
                format!("a whole number, {} or more", range.start())
            }
            Domain::Whole(range) => {
                format!("a whole number from {} to {}", range.start(), range.end())
            }
            Domain::AutoOrCount => format!("`{AUTO}` or {}", SIZE.expected()),
            Domain::Number(expected, _) => (*expected).into(),
            Domain::Size => MemoryLimit::EXPECTED.into(),
            Domain::Choice(choices) => list(choices.iter().copied(), "or"),
            Domain::Device => DeviceRequest::EXPECTED.into(),
            Domain::Path(expected) => format!(
                "text in quotes: {expected}; `~/` at its start is your home folder, and nothing else is expanded"
            ),
        }
    }

    /// The TOML of the valid value that was probably meant by `value`, written as `raw`.
    pub fn meant(&self, value: &DeValue, raw: &str) -> Option<String> {
        let text = match value {
            DeValue::String(text) => text.trim(),
            DeValue::Array(_) | DeValue::Table(_) => return None,
            _ => raw,
        };
        let candidates = match self {
            Domain::Switch if text == "0" => vec!["false".into()],
            Domain::Switch if text == "1" => vec!["true".into()],
            Domain::Switch => vec![text.to_lowercase()],
            // Numbers that Python would take: 5e3 for a count.
            Domain::Whole(_) => vec![
                text.into(),
                text.replace('_', "")
                    .parse()
                    .map(whole_text)
                    .unwrap_or_default(),
            ],
            Domain::AutoOrCount => [Domain::Choice(&[AUTO]), SIZE]
                .iter()
                .filter_map(|domain| domain.meant(value, raw))
                .collect(),
            Domain::Number(..) => vec![text.into(), with_zeros(text)],
            // A number without its unit: a card's memory is given in GiB.
            Domain::Size => vec![format!("\"{text}GiB\"")],
            Domain::Choice(choices) => nearest(&text.to_lowercase(), choices.iter().copied())
                .map(|choice| vec![format!("\"{choice}\"")])
                .unwrap_or_default(),
            Domain::Device => match text.to_lowercase().as_str() {
                "gpu" => vec!["\"cuda\"".into()],
                text => vec![format!("\"{text}\"")],
            },
            Domain::Path(_) => vec![
                format!("\"{text}\""),
                format!("\"{}\"", without_home_variable(text)),
            ],
        };
        candidates.into_iter().find(|candidate| {
            DeValue::parse(candidate).is_ok_and(|parsed| self.admits(parsed.get_ref()))
        })
    }
}

/// A number as TOML has it, `0.001` and `1.0`, where Python takes `.001` and `1.` too.
fn with_zeros(text: &str) -> String {
    let (sign, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (&text[..1], digits),
        None => ("", text),
    };
    let (fraction, exponent) = match digits.find(['e', 'E']) {
        Some(at) => digits.split_at(at),
        None => (digits, ""),
    };
    let before = if fraction.starts_with('.') { "0" } else { "" };
    let after = if fraction.ends_with('.') { "0" } else { "" };
    format!("{sign}{before}{fraction}{after}{exponent}")
}

/// Whether a path is one as it is written, apart from `~` at its start: no other account's home, no variable, and no
/// zero, which no system takes.
fn is_plain_path(text: &str) -> bool {
    let is_variable = |(at, _): (usize, &str)| {
        let next = text[at + 1..].chars().next();
        next.is_some_and(|c| c == '{' || c == '_' || c.is_ascii_alphabetic())
    };
    !text.is_empty()
        && !text.contains('\0')
        && !text.match_indices('$').any(is_variable)
        && !expand_home(text).to_string_lossy().starts_with('~')
}

/// `$HOME/x` as `~/x`.
fn without_home_variable(text: &str) -> String {
    let rest = text
        .strip_prefix("$HOME")
        .or_else(|| text.strip_prefix("${HOME}"));
    match rest {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("~{rest}"),
        _ => text.into(),
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

/// The value as a whole number, 0 or more.
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
