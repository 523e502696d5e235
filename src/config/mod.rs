//! The request: a TOML file, presets compiled in, a config of nanoGPT, and `--set section.key=value`.
//!
//! `Config` holds the request as written, with nanoGPT's key names in a few flat sections. Values that are
//! resolved from it (derived numbers, paths, reasons) are in `plan::Plan`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use error::SourceText;
use reader::ConfigReader;
use translation::Language;

use crate::schedule::{LrSchedule, Schedule};
use crate::terms::Gelu;

pub use doubts::Doubt;
pub use error::{ConfigError, Diagnostic};
pub use explain::{KeyExplanation, UnknownName, explain_keys, sections};
pub use given::{GivenSizes, SizeConflict};
pub use machine::{
    AutotuneRequest, DeviceRequest, DtypeRequest, GemmConfig, GraphRequest, RecomputeRequest,
    SystemConfig,
};
pub use memory_limit::{MemoryLimit, NotASize};
pub use nanogpt::{Setting, setting};
pub use presets::{PRESETS, Preset, nearest as nearest_preset};
pub use running::{CheckpointConfig, EvalConfig};
pub use sweep::{Sweep, SweptKey};

mod doubts;
mod error;
mod explain;
mod flat;
mod given;
mod keys;
mod machine;
mod memory_limit;
mod nanogpt;
mod presets;
mod python;
mod reader;
mod rules;
mod running;
mod sweep;
mod translation;

/// The whole request. A key that is not given has the default of nanoGPT's `train.py`, except
/// where its documentation says otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub model: ModelConfig,
    pub data: DataConfig,
    pub train: TrainConfig,
    pub optimizer: OptimizerConfig,
    pub eval: EvalConfig,
    pub checkpoint: CheckpointConfig,
    pub system: SystemConfig,
    pub gemm: GemmConfig,
}

/// nanoGPT's `batch_size` and `gradient_accumulation_steps`.
const NANOGPT_BATCH_SIZE: usize = 12;
const NANOGPT_ACCUMULATION: usize = 40;

impl Config {
    /// The request in a file or preset, with every `--set` on top of it.
    ///
    /// `source` is the value of `--config`: a path, or a preset's name with or without `.toml`; a
    /// file of that name wins. A file `*.py` is a config of nanoGPT. An override is `section.key=value` or `key=value`, its value TOML or
    /// plain text. The last of several counts, and a `--set` of one way to give the step's size
    /// replaces the file's.
    ///
    /// # Errors
    /// [`ConfigError`] when there is no such file or preset, or with every defect of it and of the overrides.
    pub fn load(source: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        LoadedConfig::load(source, overrides).map(|loaded| loaded.config)
    }

    /// Every key that has a value, in a form that `--config` reads back as the same request.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("TOML holds sections of numbers, switches and text")
    }

    /// Sequences per optimizer step: a function of the request alone, whatever micro-batch is
    /// planned for it. `sequences_per_step` or `tokens_per_step`; else `batch_size` x
    /// `gradient_accumulation_steps`, of which a pinned `batch_size` alone is one micro-step; else
    /// nanoGPT's 12 x 40.
    pub fn sequences_per_step(&self) -> usize {
        let train = &self.train;
        let from_tokens = |tokens: usize| tokens / self.model.block_size.max(1);
        let given = train.tokens_per_step.map(from_tokens);
        given.or(train.sequences_per_step).unwrap_or_else(|| {
            let pinned = train.batch_size.pinned();
            let micro_steps = match (pinned, train.gradient_accumulation_steps) {
                (_, Some(micro_steps)) => micro_steps,
                (Some(_), None) => 1,
                (None, None) => NANOGPT_ACCUMULATION,
            };
            let batch_size = pinned.unwrap_or(NANOGPT_BATCH_SIZE);
            batch_size.saturating_mul(micro_steps)
        })
    }

    /// Sequences per split and evaluation: a function of the request alone, as the size of a step.
    pub fn eval_sequences(&self) -> usize {
        let batch_size = self.eval.eval_batch_size;
        let batch_size = batch_size.or(self.train.batch_size.pinned());
        let batch_size = batch_size.unwrap_or(NANOGPT_BATCH_SIZE);
        self.eval.eval_iters.saturating_mul(batch_size)
    }
}

/// A request, and what there is to know about its reading.
pub struct LoadedConfig {
    pub config: Config,
    /// The sizes of the model that are not defaults.
    pub given: GivenSizes,
    /// A config of nanoGPT that it was read from.
    pub python: Option<PythonConfig>,
}

/// A config of nanoGPT in taper's words.
pub struct PythonConfig {
    /// Sentences about what was read, added and left out. Tell the user about those.
    pub notes: Vec<String>,
    /// The same request for `--config`, without any `--set`.
    pub toml: String,
}

impl LoadedConfig {
    /// Reads what [`Config::load`] reads.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(source: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        let file = presets::locate(source)?;
        let language = is_python(source).then_some(Language::Python);
        Self::read(source, &file, language, overrides)
    }

    /// Reads a config of nanoGPT, in Python or in TOML without sections: its translation is in `python`.
    ///
    /// # Errors
    /// As [`Config::load`], and for a file that has sections.
    pub fn import(source: &str) -> Result<Self, ConfigError> {
        let file = presets::locate(source)?;
        let language = if is_python(source) {
            Language::Python
        } else {
            Language::FlatToml
        };
        Self::read(source, &file, Some(language), &[])
    }

    /// Reads `file`, translated if it is in a `language` of nanoGPT's.
    fn read(
        source: &str,
        file: &SourceText,
        language: Option<Language>,
        overrides: &[String],
    ) -> Result<Self, ConfigError> {
        let translation = language
            .map(|language| translation::translated(file, language))
            .transpose()?;
        let sets: Vec<SourceText> = overrides.iter().map(|text| SourceText::set(text)).collect();
        let mut reader = ConfigReader::default();
        match &translation {
            Some(translation) => reader.read_translation(file, translation),
            None => reader.read_file(file),
        }
        for set in &sets {
            reader.read_set(set);
        }
        let given = GivenSizes::of(reader.given_keys());
        let config = reader.resolve()?;
        let python = translation.map(|translation| PythonConfig {
            toml: translation.to_toml(source),
            notes: translation.notes,
        });
        Ok(Self {
            config,
            given,
            python,
        })
    }
}

fn is_python(source: &str) -> bool {
    Path::new(source)
        .extension()
        .is_some_and(|ending| ending == "py")
}

/// TOML is UTF-8; a path from a command line need not be.
fn path_as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// The architecture; nanoGPT's `GPTConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Transformer blocks.
    pub n_layer: usize,
    /// Attention heads per block; divides `n_embd`.
    pub n_head: usize,
    /// Channels of the residual stream.
    pub n_embd: usize,
    /// Tokens of context: the length of every training sequence.
    pub block_size: usize,
    /// Rows of the token embedding. When absent, the dataset's vocabulary (GPT-2's 50,257 is padded to 50,304, the next
    /// multiple of 64, as nanoGPT does).
    pub vocab_size: Option<usize>,
    /// Biases in the linear layers and layer norms: `true` for OpenAI's GPT-2 weights, `false` is a little better and
    /// faster from scratch.
    pub bias: bool,
    /// Probability of dropping an activation in training, in [0, 1).
    pub dropout: f64,
    /// The activation of the MLP: GPT-2 was trained with `tanh`. taper's own key: nanoGPT fixes `erf`.
    pub gelu: Gelu,
}

/// The tokens to train on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// A folder below `data_dir` that holds `train.bin` and `val.bin`, or `quickstart`.
    pub dataset: String,
    /// The folder that holds the datasets. taper's own key: nanoGPT fixes `data`.
    #[serde(serialize_with = "path_as_text")]
    pub data_dir: PathBuf,
    /// Training tokens: a path or a pattern (llm.c shards) of `*`, `?`, `[0-9]` and `**`, as in shells. When absent,
    /// the `train.bin` of the dataset. taper's own key.
    pub train_bin: Option<String>,
    /// Validation tokens: a path or a pattern. When absent, the `val.bin` of the dataset. taper's own key.
    pub val_bin: Option<String>,
}

/// The run: its start, its length and the size of its steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// `scratch`, `resume`, `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl`, or a folder with a Hugging Face GPT-2 or a
    /// taper checkpoint, or nanoGPT's `ckpt.pt`.
    pub init_from: String,
    /// Seed of the initial weights, the order of samples and the dropout. taper's own key: nanoGPT fixes 1337.
    pub seed: u64,
    /// Optimizer steps in the whole run.
    pub max_iters: u64,
    /// Sequences per micro-step. `auto` takes the fastest number that fits. A number is the start, and becomes smaller
    /// only where it must (nanoGPT: 12, per micro-step and GPU).
    pub batch_size: BatchSize,
    /// Micro-steps per optimizer step as asked for, with a number for `batch_size`: their product is the size of a
    /// step, whatever micro-batch it is computed in. Give this or one of the two below, never two of them. When absent,
    /// a step is `sequences_per_step` or `tokens_per_step`, else one `batch_size`, or nanoGPT's 12 x 40 = 480 sequences
    /// if that is `auto`.
    pub gradient_accumulation_steps: Option<usize>,
    /// Sequences per optimizer step. When absent, see `gradient_accumulation_steps`. taper's own key.
    pub sequences_per_step: Option<usize>,
    /// Tokens per optimizer step, a multiple of `block_size`. When absent, see `gradient_accumulation_steps`. taper's
    /// own key.
    pub tokens_per_step: Option<usize>,
    /// Minutes after which the run saves and ends, counted from the start of the command; 0 is no limit. The step under way is
    /// finished, an evaluation is left to the run that goes on. taper's own key.
    pub max_minutes: f64,
    /// Steps between two lines of the log.
    pub log_interval: u64,
}

/// The sequences of a micro-step asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchSize {
    /// The fastest number that fits.
    Auto,
    /// This many, or fewer if these do not fit.
    #[serde(untagged)]
    Sequences(usize),
}

impl BatchSize {
    /// The number, if there is one.
    pub fn pinned(self) -> Option<usize> {
        match self {
            BatchSize::Auto => None,
            BatchSize::Sequences(sequences) => Some(sequences),
        }
    }
}

/// AdamW and its learning rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// The largest learning rate, reached when the warm-up ends.
    pub learning_rate: f64,
    /// Decoupled decay, of matrices and embeddings only.
    pub weight_decay: f64,
    /// AdamW's decay of the first moment, in [0, 1).
    pub beta1: f64,
    /// AdamW's decay of the second moment, in [0, 1).
    pub beta2: f64,
    /// AdamW's addition to the root of the second moment. taper's own key: nanoGPT leaves it at PyTorch's 1e-8.
    pub eps: f64,
    /// Largest global gradient norm; 0 turns clipping off.
    pub grad_clip: f64,
    /// Warm-up, then `lr_schedule`; `false` keeps `learning_rate` throughout, without a warm-up, and goes with no `lr_schedule`
    /// but the default.
    pub decay_lr: bool,
    /// The learning rate after the warm-up. taper's own key: nanoGPT has the cosine.
    pub lr_schedule: LrSchedule,
    /// Steps of linear warm-up, at most `lr_decay_iters`.
    pub warmup_iters: u64,
    /// The step at which the decay reaches `min_lr`; about `max_iters`.
    pub lr_decay_iters: u64,
    /// Steps of the decay of `lr_schedule = "wsd"`, the last ones before `lr_decay_iters`. When absent, a fifth of
    /// `lr_decay_iters`, as in llm.c, or what the warm-up leaves. taper's own key.
    pub warmdown_iters: Option<u64>,
    /// The smallest learning rate after the decay; about a tenth of `learning_rate`.
    pub min_lr: f64,
    /// Leaves out an update whose loss is so many standard deviations above the mean of the last 128 steps; 0 is off (llm.c's
    /// `-sl`). On a GPU, every step then waits once more for the device. taper's own key.
    pub skip_loss_zscore: f64,
    /// The same by the norm of the gradient (llm.c's `-sg`). taper's own key.
    pub skip_grad_zscore: f64,
}

impl OptimizerConfig {
    /// The learning rates of the run.
    pub fn schedule(&self) -> Schedule {
        let (lr_schedule, warmup_iters) = if self.decay_lr {
            (self.lr_schedule, self.warmup_iters)
        } else {
            (LrSchedule::Constant, 0)
        };
        let lr_decay_iters = self.lr_decay_iters;
        let fifth = lr_decay_iters.div_ceil(5);
        let warmdown_iters = fifth.min(lr_decay_iters.saturating_sub(warmup_iters));
        Schedule {
            lr_schedule,
            learning_rate: self.learning_rate,
            min_lr: self.min_lr,
            warmup_iters,
            lr_decay_iters,
            warmdown_iters: self.warmdown_iters.unwrap_or(warmdown_iters),
        }
    }
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            n_layer: 12,
            n_head: 12,
            n_embd: 768,
            block_size: 1024,
            vocab_size: None,
            bias: false,
            dropout: 0.0,
            gelu: Gelu::Tanh,
        }
    }
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            dataset: "openwebtext".into(),
            data_dir: "data".into(),
            train_bin: None,
            val_bin: None,
        }
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            init_from: "scratch".into(),
            seed: 1337,
            max_iters: 600_000,
            batch_size: BatchSize::Auto,
            gradient_accumulation_steps: None,
            sequences_per_step: None,
            tokens_per_step: None,
            max_minutes: 0.0,
            log_interval: 1,
        }
    }
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            learning_rate: 6e-4,
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            grad_clip: 1.0,
            decay_lr: true,
            lr_schedule: LrSchedule::Cosine,
            warmup_iters: 2000,
            lr_decay_iters: 600_000,
            warmdown_iters: None,
            min_lr: 6e-5,
            skip_loss_zscore: 0.0,
            skip_grad_zscore: 0.0,
        }
    }
}
