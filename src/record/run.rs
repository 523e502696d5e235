//! The description of a run: all that a reader of its curves wants to know about it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::terms::{ModelDims, NamedChoice, Rung};

/// The start of a process that trains a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The name of the run's folder.
    pub name: String,
    /// Version of taper.
    pub version: String,
    /// Optimizer steps done before this process.
    pub step: u64,
    /// The checkpoint that it goes on from; absent in a run that begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<String>,
    /// The value of `--config`.
    pub source: String,
    /// The preset that `differs` compares with; absent if it compares with the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Keys, `section.key`, whose values are not those of the preset.
    pub differs: BTreeMap<String, Difference>,
    /// Every key with its value, in sections.
    pub config: Value,
    /// The device in words.
    pub device: String,
    pub model: ModelDims,
    pub parameters: u64,
    /// Operations of training on one token; see [`flops_per_token`](crate::metrics::flops_per_token).
    pub flops_per_token: f64,
    pub data: DataSummary,
    pub tokens_per_step: u64,
    pub max_iters: u64,
    /// The launch that was planned.
    pub rung: Rung,
    pub gradient_accumulation_steps: usize,
    pub planned_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_bytes: Option<u64>,
    /// The memory table of the plan, summed by name.
    pub memory: Vec<MemoryRecord>,
    /// Every decision, with its reason.
    pub choices: Vec<NamedChoice>,
}

/// A key whose value is not that of the preset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The preset's value, or the default. `null`: none.
    pub preset: Value,
    /// The run's value. `null`: none.
    pub run: Value,
}

/// A row of the memory table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryRecord {
    /// Purpose, such as `activations`.
    pub group: String,
    pub name: String,
    pub bytes: u64,
}

/// Dataset of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSummary {
    pub name: String,
    pub train_tokens: u64,
    pub val_tokens: u64,
    /// Vocabulary of the tokenizer; the model's may be padded.
    pub vocab_size: usize,
}

/// The keys of a config in sections, as `section.key`.
pub fn flat(config: &Value) -> BTreeMap<String, Value> {
    let sections = config.as_object().into_iter().flatten();
    let keys = sections.flat_map(|(section, keys)| {
        let keys = keys.as_object().into_iter().flatten();
        keys.map(move |(key, value)| (format!("{section}.{key}"), value.clone()))
    });
    keys.collect()
}

/// A value of a config as people write it, such as `6e-4`; `-` for none.
pub fn value_text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(number) if number != 0.0 && number.abs() < 1e-2 => format!("{number:e}"),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

/// The keys of two configs in sections that have different values.
pub fn differences(preset: &Value, run: &Value) -> BTreeMap<String, Difference> {
    let (preset, run) = (flat(preset), flat(run));
    let value = |of: &BTreeMap<String, Value>, key| of.get(key).cloned().unwrap_or_default();
    let keys = preset.keys().chain(run.keys());
    let pairs = keys.map(|key| {
        let difference = Difference {
            preset: value(&preset, key),
            run: value(&run, key),
        };
        (key.clone(), difference)
    });
    pairs
        .filter(|(_, difference)| difference.preset != difference.run)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_of_either_side() {
        let preset = json!({"train": {"seed": 1, "max_iters": 5}, "eval": {"a": null}});
        let run = json!({"train": {"seed": 2, "max_iters": 5, "more": "x"}});
        let found = differences(&preset, &run);
        let pair = |preset, run| Difference { preset, run };
        let expected = BTreeMap::from([
            ("train.more".to_owned(), pair(Value::Null, json!("x"))),
            ("train.seed".to_owned(), pair(json!(1), json!(2))),
        ]);
        assert_eq!(found, expected);
    }
}
