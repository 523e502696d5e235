//! Sweeps: a `--set` with several values asks for several runs.

use std::ops::Range;

use super::error::{ConfigError, Diagnostic, SET, SourceText};
use super::keys::{self, Domain, Key};

/// Far more runs than anybody waits for.
const MOST_RUNS: usize = 1000;

/// A key that has several values in a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweptKey {
    pub section: &'static str,
    pub name: &'static str,
}

/// The runs that several values in `--set` ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// In the order of the command line.
    pub keys: Vec<SweptKey>,
    /// For each run the values for `--set`, every one of them single.
    pub runs: Vec<Vec<String>>,
}

impl Sweep {
    /// Reads `overrides`, the values of `--set`; `None` if they ask for one run. Several keys with several values ask for
    /// their product, the last key changing fastest.
    ///
    /// A value of a key that takes numbers, switches or one of some words is a list if it has a comma. Text, such as the
    /// name of a folder, may hold one.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for a list with an empty value, and for more than 1,000 runs.
    pub fn of(overrides: &[String]) -> Result<Option<Self>, ConfigError> {
        let mut axes: Vec<Axis> = Vec::new();
        for set in overrides {
            let axis = Axis::of(set)?;
            // The last of several counts.
            axes.retain(|earlier| axis.key.is_none() || earlier.key != axis.key);
            axes.push(axis);
        }
        let is_swept = |axis: &&Axis| axis.sets.len() > 1;
        let keys: Vec<SweptKey> = axes
            .iter()
            .filter(is_swept)
            .filter_map(|axis| axis.key)
            .collect();
        if keys.is_empty() {
            return Ok(None);
        }
        let mut runs: Vec<Vec<String>> = vec![Vec::new()];
        for axis in axes {
            if runs.len().saturating_mul(axis.sets.len()) > MOST_RUNS {
                return Err(too_many());
            }
            let longer = runs.iter().flat_map(|run| {
                let sets = axis.sets.iter();
                sets.map(|set| run.iter().chain([set]).cloned().collect())
            });
            runs = longer.collect();
        }
        Ok(Some(Self { keys, runs }))
    }
}

/// A `--set`, once for each of its values.
struct Axis {
    /// `None` for a name that is no key.
    key: Option<SweptKey>,
    sets: Vec<String>,
}

impl Axis {
    /// One that is not well-formed, or of an unknown key, has one value: it is refused when the config is read.
    fn of(set: &str) -> Result<Self, ConfigError> {
        let (path, value) = set.split_once('=').unwrap_or((set, ""));
        let name = path.rsplit('.').next().unwrap_or(path).trim();
        let key = keys::find(name);
        let sets = if key.is_some_and(|key| is_list(key, value)) {
            listed(set, path, value)?
        } else {
            vec![set.to_owned()]
        };
        let key = key.map(|key| SweptKey {
            section: key.section,
            name: key.name,
        });
        Ok(Self { key, sets })
    }
}

fn is_list(key: &Key, value: &str) -> bool {
    let is_toml = value.trim_start().starts_with(['"', '\'', '[', '{']);
    value.contains(',') && !is_toml && !matches!(key.domain, Domain::Path(_))
}

/// A `--set` for each value of a list.
fn listed(set: &str, path: &str, value: &str) -> Result<Vec<String>, ConfigError> {
    let mut start = path.len() + 1;
    let mut sets = Vec::new();
    for part in value.split(',') {
        if part.trim().is_empty() {
            return Err(missing(set, start..start + part.len()));
        }
        sets.push(format!("{path}={}", part.trim()));
        start += part.len() + 1;
    }
    Ok(sets)
}

/// `span`: the place of the missing value in `set`.
fn missing(set: &str, span: Range<usize>) -> ConfigError {
    let source = SourceText::set(set);
    ConfigError::Invalid(vec![Diagnostic {
        what: "a value is missing in the list".into(),
        excerpt: Some(source.excerpt(span.start + SET.len()..span.end + SET.len())),
        expected: Some("one value for each run, with a comma between two".into()),
        hint: Some("for example `--set optimizer.learning_rate=1e-3,6e-4`".into()),
    }])
}

fn too_many() -> ConfigError {
    ConfigError::Invalid(vec![Diagnostic {
        what: format!("the lists of `--set` ask for more than {MOST_RUNS} runs"),
        excerpt: None,
        expected: Some(format!("at most {MOST_RUNS}, one for each combination")),
        hint: Some("leave out some of the values".into()),
    }])
}
