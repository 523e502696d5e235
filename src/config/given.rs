//! The sizes in `[model]` that somebody wrote, told from those that are defaults.

use super::{Config, rules};
use crate::terms::ModelDims;

/// Keys of `[model]` that weights decide.
const SIZES: [&str; 7] = [
    "n_layer",
    "n_head",
    "n_embd",
    "block_size",
    "vocab_size",
    "bias",
    "gelu",
];

/// The sizes in `[model]` that a file, a preset or a `--set` gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GivenSizes(Vec<&'static str>);

/// A size that is given and is not that of the weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizeConflict {
    pub key: &'static str,
    pub given: String,
    pub weights: String,
}

impl GivenSizes {
    pub(super) fn of(keys: impl Iterator<Item = &'static str>) -> Self {
        Self(keys.filter(|key| SIZES.contains(key)).collect())
    }

    fn has(&self, key: &str) -> bool {
        self.0.contains(&key)
    }

    /// Whether `key` is a size that is not given.
    pub(super) fn leaves_open(&self, key: &str) -> bool {
        SIZES.contains(&key) && !self.has(key)
    }

    /// `config` with every size that is not given taken from `other`.
    pub fn completed(&self, config: &Config, other: &Config) -> Config {
        let (mut config, model) = (config.clone(), &other.model);
        let sizes = &mut config.model;
        let absent = |key| !self.has(key);
        take(absent("n_layer"), &mut sizes.n_layer, &model.n_layer);
        take(absent("n_head"), &mut sizes.n_head, &model.n_head);
        take(absent("n_embd"), &mut sizes.n_embd, &model.n_embd);
        take(
            absent("block_size"),
            &mut sizes.block_size,
            &model.block_size,
        );
        take(absent("bias"), &mut sizes.bias, &model.bias);
        take(absent("gelu"), &mut sizes.gelu, &model.gelu);
        let padded = sizes.vocab_size.zip(model.vocab_size);
        let is_padded = padded.is_some_and(|(given, rows)| pads(given, rows));
        let takes_vocab = absent("vocab_size") || is_padded;
        take(takes_vocab, &mut sizes.vocab_size, &model.vocab_size);
        config
    }

    /// `config` with the sizes of the weights that a run starts from. A shorter `block_size` that is given stays.
    ///
    /// # Errors
    /// Every given size that the weights do not have. A vocabulary padded to the next multiple of 64 is no conflict.
    pub fn of_weights(
        &self,
        config: &Config,
        weights: &ModelDims,
    ) -> Result<Config, Vec<SizeConflict>> {
        let mut stored = config.clone();
        let model = &mut stored.model;
        (model.n_layer, model.n_head, model.n_embd) =
            (weights.n_layer, weights.n_head, weights.n_embd);
        (model.block_size, model.vocab_size) = (weights.block_size, Some(weights.vocab_size));
        (model.bias, model.gelu) = (weights.bias, weights.gelu);
        let config = self.completed(config, &stored);
        let (asked, model) = (&config.model, &stored.model);
        let gelu = |gelu| format!("{gelu:?}").to_lowercase();
        let vocab = |config: &Config| {
            config
                .model
                .vocab_size
                .map_or(String::new(), |size| size.to_string())
        };
        let pairs = [
            (
                "n_layer",
                asked.n_layer.to_string(),
                model.n_layer.to_string(),
            ),
            ("n_head", asked.n_head.to_string(), model.n_head.to_string()),
            ("n_embd", asked.n_embd.to_string(), model.n_embd.to_string()),
            ("vocab_size", vocab(&config), vocab(&stored)),
            ("bias", asked.bias.to_string(), model.bias.to_string()),
            ("gelu", gelu(asked.gelu), gelu(model.gelu)),
        ];
        let conflicts: Vec<SizeConflict> = pairs
            .into_iter()
            .filter(|(_, given, weights)| given != weights)
            .map(|(key, given, weights)| SizeConflict {
                key,
                given,
                weights,
            })
            .collect();
        if conflicts.is_empty() {
            Ok(config)
        } else {
            Err(conflicts)
        }
    }
}

impl Config {
    /// Two keys that contradict each other, and the expectation.
    pub fn conflict(&self) -> Option<(String, String)> {
        let conflict = rules::conflicts(self, None).into_iter().next()?;
        Some((conflict.what, conflict.expected))
    }
}

fn take<T: Clone>(takes: bool, to: &mut T, from: &T) {
    if takes {
        to.clone_from(from);
    }
}

/// Whether a vocabulary is that of the weights, padded as nanoGPT pads it.
fn pads(given: usize, rows: usize) -> bool {
    given == rows.next_multiple_of(64)
}
