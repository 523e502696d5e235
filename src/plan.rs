//! Config x DeviceProfile x DatasetInfo -> Plan: every number the run uses, with its reason.
//!
//! A pure function. After it, no code reads `Config`, an environment variable or the machine.

use std::fmt::Display;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{Config, DtypeRequest, Gelu};
use crate::data::DatasetInfo;
use crate::device::DeviceProfile;
use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::model::Sizes;
use crate::optim::OptimizerSettings;
use crate::rng::Seed;
use crate::schedule::Schedule;
use crate::step::{StepSettings, Trainer};

/// An automatic decision and why it was made. Printed once at launch, stored in the checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice<T> {
    pub value: T,
    pub because: String,
}

/// A [`Choice`] with its name, as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedChoice {
    pub name: String,
    pub value: String,
    pub because: String,
}

impl NamedChoice {
    pub fn new<T: Display>(name: impl Into<String>, choice: &Choice<T>) -> Self {
        Self {
            name: name.into(),
            value: choice.value.to_string(),
            because: choice.because.clone(),
        }
    }
}

/// The resolved architecture. L = n_layer, H = n_head, C = n_embd, T = block_size, V = vocab_size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelDims {
    pub n_layer: usize,
    pub n_head: usize,
    pub n_embd: usize,
    pub block_size: usize,
    pub vocab_size: usize,
    pub bias: bool,
    pub dropout: f64,
    pub gelu: Gelu,
}

/// Everything a run needs to know, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub model: ModelDims,
    pub sizes: Sizes,
    pub step: StepSettings,
    pub gradient_accumulation_steps: usize,
    pub max_iters: u64,
    pub log_interval: u64,
    pub eval_interval: u64,
    /// Sequences per split and evaluation.
    pub eval_sequences: usize,
    pub out_dir: PathBuf,
    pub checkpoint_interval: u64,
    /// How many of the newest checkpoints stay, besides the best.
    pub keep: usize,
    /// Bytes of the run's own buffers.
    pub buffer_bytes: u64,
    /// Every automatic decision, for the startup report, the checkpoint and the summary.
    pub choices: Vec<NamedChoice>,
}

/// Logits that exist at a time take at most this much: large enough to keep the products efficient,
/// a hundredth of the whole for GPT-2 at 64 x 1024.
const LOGITS_CHUNK_BYTES: usize = 64 << 20;

/// GPT-2's vocabulary and what nanoGPT pads it to: the next multiple of 64.
const GPT2_VOCAB: usize = 50_257;
const GPT2_VOCAB_PADDED: usize = 50_304;

impl Plan {
    /// `weights` are the sizes of the pretrained model or checkpoint that the run starts from.
    ///
    /// # Errors
    /// When the parts contradict each other: a dataset with more ids than the model has rows, a
    /// block size that the weights lack; or when the device has not what was asked for.
    pub fn new(
        config: &Config,
        device: &DeviceProfile,
        dataset: &DatasetInfo,
        weights: Option<&ModelDims>,
    ) -> Result<Plan> {
        let vocab_size = vocab_size(config, dataset, weights)?;
        let model = model_dims(config, vocab_size.value, weights)?;
        let threads = threads(config, device);
        let micro_batch = micro_batch(config);
        let logits_rows = logits_rows(micro_batch * model.block_size, model.vocab_size);
        let optimizer = &config.optimizer;
        let mut plan = Plan {
            sizes: Sizes {
                sequences: micro_batch,
                logits_rows: logits_rows.value,
                threads: threads.value,
            },
            step: StepSettings {
                seed: Seed(config.train.seed),
                sequences_per_step: config.sequences_per_step(),
                optimizer: OptimizerSettings {
                    weight_decay: optimizer.weight_decay,
                    beta1: optimizer.beta1,
                    beta2: optimizer.beta2,
                    eps: optimizer.eps,
                    grad_clip: optimizer.grad_clip,
                },
                schedule: Schedule {
                    learning_rate: optimizer.learning_rate,
                    min_lr: optimizer.min_lr,
                    warmup_iters: optimizer.warmup_iters,
                    lr_decay_iters: optimizer.lr_decay_iters,
                    decay_lr: optimizer.decay_lr,
                },
            },
            gradient_accumulation_steps: config.sequences_per_step() / micro_batch,
            max_iters: config.train.max_iters,
            log_interval: config.train.log_interval,
            eval_interval: config.eval.eval_interval,
            eval_sequences: config.eval_sequences(),
            out_dir: config.checkpoint.out_dir.clone(),
            checkpoint_interval: config
                .checkpoint
                .checkpoint_interval
                .unwrap_or(config.eval.eval_interval),
            keep: config.checkpoint.keep,
            buffer_bytes: 0,
            choices: vec![
                NamedChoice::new("device", &device_choice()),
                NamedChoice::new("dtype", &dtype_choice(config)?),
                NamedChoice::new("threads", &threads),
                NamedChoice::new("vocab_size", &vocab_size),
                NamedChoice::new("logits chunk", &logits_rows),
            ],
            model,
        };
        plan.buffer_bytes = plan.measure()?;
        Ok(plan)
    }

    /// The bytes of every buffer, from the constructors themselves.
    fn measure(&self) -> Result<u64> {
        let mut memory = Memory::planning();
        Trainer::<f32>::new(&self.model, self.sizes, self.step.clone(), &mut memory)?;
        Ok(memory.total_bytes())
    }

    pub fn tokens_per_step(&self) -> u64 {
        (self.step.sequences_per_step * self.model.block_size) as u64
    }
}

fn device_choice() -> Choice<&'static str> {
    Choice {
        value: "cpu",
        because: "this version trains on the CPU only".into(),
    }
}

fn dtype_choice(config: &Config) -> Result<Choice<&'static str>> {
    let refused = |dtype| {
        Err(Error::Usage {
            what: format!("the CPU trains in `float32`, not in `{dtype}`"),
            hint: "use `--set system.dtype=auto`".into(),
        })
    };
    match config.system.dtype {
        DtypeRequest::Auto | DtypeRequest::Float32 => Ok(Choice {
            value: "float32",
            because: "the CPU trains in float32".into(),
        }),
        DtypeRequest::Bfloat16 => refused("bfloat16"),
        DtypeRequest::Float16 => refused("float16"),
    }
}

/// Sequences per micro-step: the pinned number or nanoGPT's 12, or the largest divisor of the step's
/// sequences below it.
fn micro_batch(config: &Config) -> usize {
    let sequences = config.sequences_per_step();
    let most = config.train.batch_size.pinned().unwrap_or(12);
    let mut divisors = (1..=most.min(sequences)).rev();
    divisors
        .find(|micro_batch| sequences.is_multiple_of(*micro_batch))
        .unwrap_or(1)
}

fn threads(config: &Config, device: &DeviceProfile) -> Choice<usize> {
    match (config.system.threads, device.cores()) {
        (Some(value), _) => Choice {
            value,
            because: "`system.threads` says so".into(),
        },
        (None, Some(value)) => Choice {
            value,
            because: "every core this process may use".into(),
        },
        (None, None) => Choice {
            value: 1,
            because: "the system does not tell how many cores there are; `system.threads` can"
                .into(),
        },
    }
}

fn vocab_size(
    config: &Config,
    dataset: &DatasetInfo,
    weights: Option<&ModelDims>,
) -> Result<Choice<usize>> {
    let found = &dataset.vocab_size;
    let choice = match (weights, config.model.vocab_size) {
        (Some(weights), _) => Choice {
            value: weights.vocab_size,
            because: "the rows of the weights that training starts from".into(),
        },
        (None, Some(value)) => Choice {
            value,
            because: "`model.vocab_size` says so".into(),
        },
        (None, None) if found.value == GPT2_VOCAB => Choice {
            value: GPT2_VOCAB_PADDED,
            because: format!("{GPT2_VOCAB} rounded up to a multiple of 64, as nanoGPT does"),
        },
        (None, None) => found.clone(),
    };
    if choice.value < found.value {
        return Err(Error::Usage {
            what: format!(
                "the model has {} token embeddings ({}), but `{}` has {} token ids ({})",
                choice.value, choice.because, dataset.name, found.value, found.because
            ),
            hint: match weights {
                Some(_) => "use a dataset made with the tokenizer of the weights".into(),
                None => format!(
                    "remove `model.vocab_size`, or set it to {} or more",
                    found.value
                ),
            },
        });
    }
    Ok(choice)
}

/// The config's sizes; where training starts from weights, theirs, as in nanoGPT. Dropout is always
/// the config's, and its block size may be shorter than that of the weights.
fn model_dims(
    config: &Config,
    vocab_size: usize,
    weights: Option<&ModelDims>,
) -> Result<ModelDims> {
    let asked = &config.model;
    let Some(weights) = weights else {
        return Ok(ModelDims {
            n_layer: asked.n_layer,
            n_head: asked.n_head,
            n_embd: asked.n_embd,
            block_size: asked.block_size,
            vocab_size,
            bias: asked.bias,
            dropout: asked.dropout,
            gelu: asked.gelu,
        });
    };
    if asked.block_size > weights.block_size {
        return Err(Error::Usage {
            what: format!(
                "`model.block_size` is {}, but the weights have {} positions",
                asked.block_size, weights.block_size
            ),
            hint: format!(
                "use `--set model.block_size={}` or less",
                weights.block_size
            ),
        });
    }
    Ok(ModelDims {
        block_size: asked.block_size,
        dropout: asked.dropout,
        ..weights.clone()
    })
}

/// Rows of logits that exist at a time: all of them if they are few.
fn logits_rows(rows: usize, vocab_size: usize) -> Choice<usize> {
    let most = (LOGITS_CHUNK_BYTES / (vocab_size * size_of::<f32>())).max(1);
    if rows <= most {
        return Choice {
            value: rows,
            because: "all rows of a micro-batch: they are small".into(),
        };
    }
    // Chunks of one size, none of them a small remainder.
    let value = rows.div_ceil(rows.div_ceil(most));
    Choice {
        value,
        because: format!(
            "rows at a time, of {rows}: at most {} MiB of logits exist",
            LOGITS_CHUNK_BYTES >> 20
        ),
    }
}
