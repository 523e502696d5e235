//! What was asked: a TOML file, presets compiled in, and `--set section.key=value`.
//!
//! `Config` holds the request as written, with nanoGPT's key names in a few flat sections. What is
//! resolved from it (derived numbers, paths, reasons) lives in [`crate::plan::Plan`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
}

/// The architecture; nanoGPT's `GPTConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    pub n_layer: usize,
    pub n_head: usize,
    pub n_embd: usize,
    pub block_size: usize,
    /// Rows of the token embedding; when absent, the dataset's vocabulary (GPT-2's 50,257 is
    /// padded to 50,304, the next multiple of 64, as nanoGPT does).
    pub vocab_size: Option<usize>,
    pub bias: bool,
    pub dropout: f64,
    pub gelu: Gelu,
}

/// The activation of the MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gelu {
    /// GPT-2's approximation, `gelu_new` in Hugging Face.
    Tanh,
    /// The exact form, PyTorch's `nn.GELU()` default.
    Erf,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// A folder below `data_dir` that holds `train.bin` and `val.bin`, or `quickstart`.
    pub dataset: String,
    pub data_dir: PathBuf,
    /// Token files to use instead of the dataset's: a path or a `*` pattern (llm.c shards).
    pub train_bin: Option<String>,
    pub val_bin: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// `scratch`, `resume`, `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl`, or a folder with a
    /// Hugging Face GPT-2 or a taper checkpoint.
    pub init_from: String,
    pub seed: u64,
    pub max_iters: u64,
    /// Sequences per micro-step.
    pub batch_size: usize,
    /// Micro-steps per optimizer step. Give this or one of the two below, never two of them.
    pub gradient_accumulation_steps: Option<usize>,
    pub sequences_per_step: Option<usize>,
    pub tokens_per_step: Option<usize>,
    pub log_interval: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    pub learning_rate: f64,
    pub weight_decay: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    /// Largest global gradient norm; 0 turns clipping off.
    pub grad_clip: f64,
    pub decay_lr: bool,
    pub warmup_iters: u64,
    pub lr_decay_iters: u64,
    pub min_lr: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    pub eval_interval: u64,
    /// Batches per split and evaluation.
    pub eval_iters: usize,
    /// Sequences per evaluation batch; when absent, `train.batch_size`.
    pub eval_batch_size: Option<usize>,
    pub eval_only: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    pub out_dir: PathBuf,
    /// Steps between checkpoints; when absent, `eval.eval_interval`.
    pub checkpoint_interval: Option<u64>,
    /// How many of the newest checkpoints stay; the best one always stays as well.
    pub keep: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SystemConfig {
    pub device: DeviceRequest,
    pub dtype: DtypeRequest,
    /// CPU threads; when absent, every core the process may use.
    pub threads: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceRequest {
    Auto,
    Cpu,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DtypeRequest {
    Auto,
    Float32,
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
            batch_size: 12,
            gradient_accumulation_steps: None,
            sequences_per_step: None,
            tokens_per_step: None,
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
            warmup_iters: 2000,
            lr_decay_iters: 600_000,
            min_lr: 6e-5,
        }
    }
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            eval_interval: 2000,
            eval_iters: 200,
            eval_batch_size: None,
            eval_only: false,
        }
    }
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self {
            out_dir: "out".into(),
            checkpoint_interval: None,
            keep: 2,
        }
    }
}

impl Default for SystemConfig {
    fn default() -> Self {
        Self {
            device: DeviceRequest::Auto,
            dtype: DtypeRequest::Auto,
            threads: None,
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {}

impl ConfigError {
    pub fn hint(&self) -> Option<String> {
        None
    }
}
