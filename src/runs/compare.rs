//! The keys in which the configs of several runs are not the same.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Run;
use crate::record::{flat, value_text};

/// A key that has several values in several runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Varied {
    /// The key without its section, as names are unique: `learning_rate`.
    pub key: String,
    /// One for each run, as TOML has it; `-` for none.
    pub values: Vec<String>,
}

/// Keys that always differ, or that follow from where a run was started.
const OF_THE_PLACE: [&str; 3] = ["checkpoint.out_dir", "data.data_dir", "system.memory_limit"];

/// The keys whose values are not the same in all runs that have a config, in alphabetical order.
pub fn varied(runs: &[Run]) -> Vec<Varied> {
    let configs: Vec<_> = runs
        .iter()
        .map(|run| run.config.as_ref().map(flat))
        .collect();
    let known = || configs.iter().flatten();
    let keys: BTreeSet<&String> = known().flat_map(|config| config.keys()).collect();
    let keys = keys.into_iter().filter(|key| {
        let mut values = known().map(|config| config.get(*key).unwrap_or(&Value::Null));
        let first = values.next();
        !OF_THE_PLACE.contains(&key.as_str()) && values.any(|value| Some(value) != first)
    });
    let varied = keys.map(|key| {
        let values = configs.iter().map(|config| {
            let value = config.as_ref().and_then(|config| config.get(key));
            value.map_or("-".into(), value_text)
        });
        let (_, name) = key.split_once('.').unwrap_or(("", key));
        Varied {
            key: name.into(),
            values: values.collect(),
        }
    });
    varied.collect()
}
