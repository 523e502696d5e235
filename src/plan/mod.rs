//! Config x DeviceProfile x DatasetInfo -> Plan: every number the run uses, with its reason.
//!
//! A pure function. After it, no code reads `Config`, an environment variable or the machine.
//! `resolve.rs` decides what memory has no say in; `ladder.rs` lists the launches that `throughput.rs`
//! ranks; `draft.rs` measures them, `budget.rs` says how much memory there is, and `refusal.rs` what to
//! do when nothing fits.

mod budget;
mod draft;
mod error;
mod ladder;
mod reasons;
mod refusal;
mod resolve;
mod throughput;

use std::path::PathBuf;

use crate::config::Config;
use crate::data::DatasetInfo;
use crate::device::{DeviceProfile, Hardware};
use crate::memory::{Group, Row, total_bytes};
use crate::ops::backend::OptimizerSettings;
use crate::rng::Seed;
use crate::schedule::Schedule;
use crate::step::StepSettings;
use crate::terms::{
    Choice, Effort, GemmBackend, Inputs, Job, ModelDims, NamedChoice, Precision, Rung,
};

use draft::Draft;
use reasons::Picture;

pub use budget::host_memory;
pub use error::PlanError;
pub use ladder::Launch;
pub use refusal::{Edit, Refusal};
pub use resolve::{AUTOTUNE_MIN_SMS, GPT2_VOCAB};

/// What a run starts from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'a> {
    /// The sizes of the pretrained model or checkpoint.
    pub weights: Option<&'a ModelDims>,
    /// The rung of a checkpoint that was made with the same request, where going on with it keeps
    /// the resumed run equal bit for bit.
    pub rung: Option<Rung>,
    /// A checkpoint: the experiment is what it is.
    pub resumed: bool,
}

/// Everything a run needs to know, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub job: Job,
    pub model: ModelDims,
    pub precision: Precision,
    /// Of the host; 0 for all there are, beside a GPU.
    pub threads: usize,
    /// How far the search for the fastest matrix products goes.
    pub gemm: Effort,
    /// The code that may compute them.
    pub gemm_backend: GemmBackend,
    /// What products multiply.
    pub inputs: Inputs,
    /// Whether micro-steps are recorded.
    pub cuda_graph: bool,
    /// The GPU's datasheet rate at this precision, in operations per second.
    pub gpu_peak_flops: Option<f64>,
    /// Every rung there is, from the fastest down, and which of them is launched.
    pub ladder: Vec<Launch>,
    pub chosen: usize,
    /// What the run may hold, where that is known.
    pub budget: Choice<Option<u64>>,
    /// Every buffer at the chosen rung, and the reserve.
    pub memory: Vec<Row>,
    pub step: StepSettings,
    pub max_iters: u64,
    pub log_interval: u64,
    pub eval_interval: u64,
    /// Sequences per split and evaluation.
    pub eval_sequences: usize,
    pub out_dir: PathBuf,
    pub checkpoint_interval: u64,
    /// How many of the newest checkpoints stay, besides the best.
    pub keep: usize,
    /// The request as written, for checkpoints.
    pub config_toml: String,
    /// Every automatic decision, for the startup report, the checkpoint and the summary.
    pub choices: Vec<NamedChoice>,
}

/// What a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub config: &'a Config,
    pub device: &'a DeviceProfile,
    pub dataset: &'a DatasetInfo,
    pub origin: Origin<'a>,
    pub job: Job,
    /// Why it is this device.
    pub because: &'a str,
}

impl Request<'_> {
    /// The first rung of the ladder that fits: the highest predicted throughput there, see `ladder.rs`.
    ///
    /// # Errors
    /// When the parts contradict each other (a dataset with more ids than the model has rows, a
    /// block size that the weights lack), and [`Refusal`] when not even the smallest rung fits.
    pub fn plan(&self) -> Result<Plan, PlanError> {
        let Self {
            config,
            device,
            job,
            ..
        } = *self;
        let draft = Draft::new(self)?;
        let Some(chosen) = draft.first_that_fits() else {
            let available = Choice {
                value: draft.budget.value.unwrap_or(0),
                because: draft.budget.because.clone(),
            };
            return Err(self.refuse(&draft, &available).into());
        };
        let picture = Picture {
            draft: &draft,
            chosen,
            config,
            resumed: draft.resumed,
        };
        let mut choices = vec![
            NamedChoice::new("device", &resolve::device(device, self.because)),
            NamedChoice::new("dtype", &draft.dtype),
        ];
        match &device.hardware {
            Hardware::Cpu(_) => choices.push(NamedChoice::new("threads", &draft.threads)),
            Hardware::Cuda(cuda) => choices
                .extend(resolve::kernels(cuda).map(|choice| NamedChoice::new("kernels", &choice))),
        }
        choices.extend([
            NamedChoice::new("vocab_size", &draft.vocab_size),
            NamedChoice::new("memory", &picture.memory()),
            NamedChoice::new("micro-batch", &picture.micro_batch()),
        ]);
        // An evaluation has no backward to compute anything again for.
        if job == Job::Train {
            choices.push(NamedChoice::new("recompute", &picture.recompute()));
        }
        choices.extend([
            NamedChoice::new("logits chunk", &picture.logits_chunk()),
            NamedChoice::new("gemm autotune", &draft.gemm),
        ]);
        let rung = draft.ladder[chosen].rung;
        let cuda_graph = match &device.hardware {
            Hardware::Cuda(cuda) if job == Job::Train => {
                let compute = (&draft.measure.model, draft.precision);
                let choice = resolve::cuda_graph(config, cuda, compute, rung);
                choices.push(NamedChoice {
                    name: "cuda graph".into(),
                    value: if choice.value { "on" } else { "off" }.into(),
                    because: choice.because,
                });
                choice.value
            }
            _ => false,
        };
        Ok(Plan {
            job,
            cuda_graph,
            gpu_peak_flops: match &device.hardware {
                Hardware::Cuda(cuda) => cuda.peak(draft.inputs),
                Hardware::Cpu(_) => None,
            },
            inputs: draft.inputs,
            precision: draft.precision,
            threads: draft.threads.value,
            gemm: draft.gemm.value,
            gemm_backend: config.gemm.backend,
            config_toml: config.to_toml(),
            memory: draft.measure.table(rung),
            ladder: draft.ladder,
            chosen,
            budget: draft.budget,
            step: step_settings(config),
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
            choices,
            model: draft.measure.model,
        })
    }
}

impl Plan {
    pub fn launch(&self) -> &Launch {
        &self.ladder[self.chosen]
    }

    /// The chosen rung and all below it.
    pub fn rungs(&self) -> Vec<Rung> {
        self.ladder[self.chosen..]
            .iter()
            .map(|launch| launch.rung)
            .collect()
    }

    /// What the run does not allocate itself.
    pub fn reserve_bytes(&self) -> u64 {
        let reserve = self.memory.iter().filter(|row| row.group == Group::Reserve);
        total_bytes(reserve)
    }

    pub fn gradient_accumulation_steps(&self) -> usize {
        self.step.sequences_per_step / self.launch().rung.micro_batch
    }

    pub fn tokens_per_step(&self) -> u64 {
        (self.step.sequences_per_step * self.model.block_size) as u64
    }
}

fn step_settings(config: &Config) -> StepSettings {
    let optimizer = &config.optimizer;
    StepSettings {
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
    }
}
