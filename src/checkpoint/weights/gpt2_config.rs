//! Hugging Face's `config.json`: which GPT-2 it describes, or the key that describes another model.

use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::{Map, Value};

use super::huggingface::LAYER_NORM_EPSILON;
use crate::checkpoint::CheckpointError;
use crate::terms::{Gelu, ModelDims};

/// Names that transformers' `GPT2Config` has for four of its keys (its `attribute_map`), with the key.
const ALIASES: [(&str, &str); 4] = [
    ("hidden_size", "n_embd"),
    ("max_position_embeddings", "n_positions"),
    ("num_attention_heads", "n_head"),
    ("num_hidden_layers", "n_layer"),
];

/// Classes whose weights hold a whole GPT-2 that predicts the next token.
const ARCHITECTURES: [&str; 3] = ["GPT2LMHeadModel", "GPT2Model", "GPT2DoubleHeadsModel"];

/// Spellings of the two activations. `gelu_pytorch_tanh` is `gelu_new` in one kernel.
const ACTIVATIONS: [(&str, Gelu); 3] = [
    ("gelu_new", Gelu::Tanh),
    ("gelu_pytorch_tanh", Gelu::Tanh),
    ("gelu", Gelu::Erf),
];

/// Keys that change the computation in transformers, with the one value that is GPT-2's.
const SWITCHES: [(&str, bool); 4] = [
    ("scale_attn_weights", true),
    ("scale_attn_by_inverse_layer_idx", false),
    ("add_cross_attention", false),
    ("tie_word_embeddings", true),
];

/// Limits on the sizes, those of `[model]`; the vocabulary of weights may be larger. No product of sizes overflows.
pub(in crate::checkpoint) const LAYERS: RangeInclusive<usize> = 0..=4096;
pub(in crate::checkpoint) const SIZES: RangeInclusive<usize> = 1..=1 << 20;

/// Reads the architecture that a `config.json` describes. Keys that are absent have the defaults of transformers.
/// Dropout is its `resid_pdrop`.
///
/// # Errors
/// `Unreadable`, and `UnsupportedModel` with the first key whose value is none that taper can compute with.
pub(in crate::checkpoint) fn parse_config(
    path: &Path,
    json: &str,
) -> Result<ModelDims, CheckpointError> {
    let entries = serde_json::from_str(json).map_err(|error| CheckpointError::Unreadable {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    Entries { path, entries }.dims()
}

/// The entries of a `config.json`.
struct Entries<'a> {
    path: &'a Path,
    entries: Map<String, Value>,
}

impl Entries<'_> {
    fn dims(&self) -> Result<ModelDims, CheckpointError> {
        self.check_kind()?;
        for (alias, key) in ALIASES {
            self.check_alias(alias, key)?;
        }
        let n_embd = self.size("n_embd", 768, SIZES)?;
        let n_head = self.size("n_head", 12, SIZES)?;
        if !n_embd.is_multiple_of(n_head) {
            let expected = format!("a divisor of `n_embd`, which is {n_embd}");
            return Err(self.refusal("n_head", n_head.to_string(), expected));
        }
        self.size("n_inner", 4 * n_embd, 4 * n_embd..=4 * n_embd)?;
        self.check_numbers()?;
        Ok(ModelDims {
            n_layer: self.size("n_layer", 12, LAYERS)?,
            n_head,
            n_embd,
            block_size: self.size("n_positions", 1024, SIZES)?,
            vocab_size: self.size("vocab_size", 50257, SIZES)?,
            bias: self.bias()?,
            dropout: self.dropout()?,
            gelu: self.activation()?,
        })
    }

    /// Refuses models of another kind, and weights in a format of their own.
    fn check_kind(&self) -> Result<(), CheckpointError> {
        match self.get("model_type") {
            None => {}
            Some(Value::String(kind)) if kind == "gpt2" => {}
            Some(other) => return Err(self.refusal("model_type", other.to_string(), "\"gpt2\"")),
        }
        let known = |name: &Value| name.as_str().is_some_and(|n| ARCHITECTURES.contains(&n));
        match self.get("architectures") {
            None => {}
            Some(Value::Array(names)) if names.iter().all(known) => {}
            Some(other) => {
                let expected = format!("one of {}", ARCHITECTURES.join(", "));
                return Err(self.refusal("architectures", other.to_string(), expected));
            }
        }
        match self.get("quantization_config") {
            None => {}
            Some(_) => return Err(self.refusal("quantization_config", "there", "absent")),
        }
        match self.get("pruned_heads") {
            None => Ok(()),
            Some(Value::Object(heads)) if heads.is_empty() => Ok(()),
            Some(other) => Err(self.refusal("pruned_heads", other.to_string(), "none")),
        }
    }

    /// Refuses a key that is there under both of its names with two values.
    fn check_alias(&self, alias: &'static str, key: &'static str) -> Result<(), CheckpointError> {
        match (self.get(alias), self.get(key)) {
            (Some(one), Some(other)) if one != other => {
                let expected = format!("{other} as `{key}`, another name for the same");
                Err(self.refusal(alias, one.to_string(), expected))
            }
            _ => Ok(()),
        }
    }

    fn check_numbers(&self) -> Result<(), CheckpointError> {
        for (key, expected) in SWITCHES {
            if self.get(key).is_some_and(|found| *found != expected) {
                let found = self.get(key).map(Value::to_string).unwrap_or_default();
                return Err(self.refusal(key, found, expected.to_string()));
            }
        }
        let epsilon = "layer_norm_epsilon";
        match self.get(epsilon) {
            Some(found) if found.as_f64() != Some(LAYER_NORM_EPSILON) => {
                Err(self.refusal(epsilon, found.to_string(), LAYER_NORM_EPSILON.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// The size under `key` or its other name.
    fn size(
        &self,
        key: &'static str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> Result<usize, CheckpointError> {
        let alias = ALIASES.iter().find(|(_, name)| *name == key);
        let alias = alias.and_then(|(alias, _)| Some((*alias, self.get(alias)?)));
        let Some((key, found)) = self.get(key).map(|found| (key, found)).or(alias) else {
            return if self.entries.contains_key(key) && key != "n_inner" {
                Err(self.refusal(key, "null", expected(&range)))
            } else {
                Ok(default)
            };
        };
        let size = found.as_u64().and_then(|size| usize::try_from(size).ok());
        size.filter(|size| range.contains(size))
            .ok_or_else(|| self.refusal(key, found.to_string(), expected(&range)))
    }

    fn activation(&self) -> Result<Gelu, CheckpointError> {
        let key = "activation_function";
        let Some(found) = self.get(key) else {
            return Ok(Gelu::Tanh);
        };
        let known = ACTIVATIONS.iter().find(|(name, _)| *found == **name);
        known.map(|(_, gelu)| *gelu).ok_or_else(|| {
            let names = ACTIVATIONS.map(|(name, _)| name);
            self.refusal(
                key,
                found.to_string(),
                format!("one of {}", names.join(", ")),
            )
        })
    }

    fn dropout(&self) -> Result<f64, CheckpointError> {
        let key = "resid_pdrop";
        let Some(found) = self.get(key) else {
            return Ok(0.1);
        };
        let dropout = found.as_f64().filter(|p| (0.0..=1.0).contains(p));
        dropout.ok_or_else(|| self.refusal(key, found.to_string(), "a number from 0 to 1"))
    }

    /// taper's own key for what `GPT2Config` has no key for: whether the model has biases.
    fn bias(&self) -> Result<bool, CheckpointError> {
        let Some(found) = self.get("taper") else {
            return Ok(true);
        };
        let bias = found.get("bias").and_then(Value::as_bool);
        bias.ok_or_else(|| self.refusal("taper", found.to_string(), "{\"bias\": true} or false"))
    }

    /// The value of `key`, where it has one.
    fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key).filter(|value| !value.is_null())
    }

    fn refusal(
        &self,
        key: &'static str,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> CheckpointError {
        CheckpointError::UnsupportedModel {
            path: self.path.to_owned(),
            key,
            found: found.into(),
            expected: expected.into(),
        }
    }
}

fn expected(range: &RangeInclusive<usize>) -> String {
    if range.start() == range.end() {
        range.start().to_string()
    } else {
        format!("a whole number from {} to {}", range.start(), range.end())
    }
}

/// The ids that end a text, of `generation_config.json` or else `config.json`: transformers stops at any of them.
pub(in crate::checkpoint) fn end_of_text_ids(json: &str) -> Option<Vec<u32>> {
    let entries: Value = serde_json::from_str(json).ok()?;
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match entries.get("eos_token_id")? {
        Value::Array(ids) => ids.iter().map(id).collect(),
        one => id(one).map(|id| vec![id]),
    }
}
