//! The valid values of a key.

use std::ops::RangeInclusive;

use toml::de::DeValue;

use super::{list, nearest};
use crate::config::{DeviceRequest, MemoryLimit};
use crate::terms::expand_home;

/// The valid values of a key.
#[derive(Debug)]
pub(in crate::config) enum Domain {
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
pub(super) const COUNT: Domain = Domain::Whole(1..=u64::MAX);
/// Sizes of a model and of a step. The limit is far beyond any use, and no product of sizes overflows.
pub(super) const SIZE: Domain = Domain::Whole(1..=1 << 20);

pub(super) const STEPS: Domain = Domain::Whole(0..=u64::MAX);
pub(super) const FRACTION: Domain =
    Domain::Number("a number from 0 up to, but not including, 1", |x| {
        (0.0..1.0).contains(&x)
    });
pub(super) const POSITIVE: Domain =
    Domain::Number("a number above 0", |x| x > 0.0 && x.is_finite());
/// With the value itself among the 128 of its window, none is further from their mean than sqrt(127) = 11.27 deviations.
pub(super) const ZSCORE: Domain = Domain::Number("0 for off, or a number below 11.26", |x| {
    (0.0..11.26).contains(&x)
});
pub(super) const NOT_NEGATIVE: Domain =
    Domain::Number("a number, 0 or more", |x| x >= 0.0 && x.is_finite());

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
pub(in crate::config) fn whole(value: &DeValue) -> Option<u64> {
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
