//! Config x DeviceProfile x DatasetInfo -> Plan: every number the run uses, with its reason.
//!
//! A pure function. After it, no code reads `Config`, an environment variable or the machine.
//! `resolve.rs` decides what memory has no say in; `ladder.rs` lists the launches that `throughput.rs`
//! ranks; `budget.rs` says how much memory there is, and `refusal.rs` what to do when nothing fits.

mod budget;
mod ladder;
mod refusal;
mod resolve;
mod throughput;

use std::fmt::Display;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{Config, Gelu};
use crate::data::DatasetInfo;
use crate::device::{DeviceProfile, Hardware};
use crate::error::Result;
use crate::evaluation::plan_evaluation;
use crate::memory::{Planned, Precision, Row};
use crate::model::{Engine, Recompute, Rung};
use crate::optim::OptimizerSettings;
use crate::rng::Seed;
use crate::schedule::Schedule;
use crate::step::{StepSettings, plan_training};
use crate::units::{bytes, count};

use ladder::Rungs;
use throughput::Predictor;

pub use budget::host_memory;
pub use ladder::Launch;
pub use refusal::{Edit, Refusal};
pub use resolve::AUTOTUNE_MIN_SMS;

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

/// What the memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    Train,
    Evaluate,
}

/// What a run starts from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'a> {
    /// The sizes of the pretrained model or checkpoint.
    pub weights: Option<&'a ModelDims>,
    /// The rung of a checkpoint that was made with the same request, where going on with it keeps
    /// the resumed run equal bit for bit.
    pub rung: Option<Rung>,
}

/// Everything a run needs to know, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub model: ModelDims,
    pub precision: Precision,
    pub threads: usize,
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
}

impl Request<'_> {
    /// The launch with the highest predicted throughput that fits.
    ///
    /// # Errors
    /// When the parts contradict each other (a dataset with more ids than the model has rows, a
    /// block size that the weights lack), and [`Refusal`] when not even the smallest rung fits.
    pub fn plan(&self) -> Result<Plan> {
        let Self {
            config,
            device,
            origin,
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
            sequences_per_step: config.sequences_per_step(),
            resumed: origin.rung.is_some(),
        };
        let mut choices = vec![
            NamedChoice::new("device", &resolve::device(device)),
            NamedChoice::new("dtype", &draft.precision),
        ];
        if let Hardware::Cpu(_) = device.hardware {
            choices.push(NamedChoice::new("threads", &draft.threads));
        }
        choices.extend([
            NamedChoice::new("vocab_size", &draft.vocab_size),
            NamedChoice::new("micro-batch", &picture.micro_batch()),
            NamedChoice::new("recompute", &picture.recompute()),
            NamedChoice::new("logits chunk", &picture.logits_chunk()),
            NamedChoice::new("gemm autotune", &resolve::autotune(config, device)),
        ]);
        Ok(Plan {
            precision: draft.precision.value,
            threads: draft.threads.value,
            memory: draft.measure.table(draft.ladder[chosen].rung),
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
        let reserve = self
            .memory
            .iter()
            .filter(|row| row.group == crate::memory::Group::Reserve);
        reserve.map(|row| row.bytes).sum()
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

/// What a request comes to before a rung is chosen.
struct Draft {
    vocab_size: Choice<usize>,
    precision: Choice<Precision>,
    threads: Choice<usize>,
    pinned: Option<usize>,
    measure: Measure,
    ladder: Vec<Launch>,
    budget: Choice<Option<u64>>,
}

impl Draft {
    fn new(request: &Request) -> Result<Self> {
        let Request {
            config,
            device,
            dataset,
            origin,
            job,
        } = *request;
        let vocab_size = resolve::vocab_size(config, dataset, origin.weights)?;
        let model = resolve::model_dims(config, vocab_size.value, origin.weights)?;
        let precision = resolve::precision(config, device)?;
        let threads = resolve::threads(config, device);
        let sequences_per_step = config.sequences_per_step();
        let pinned = config.train.batch_size.pinned();
        let rungs = Rungs {
            sequences_per_step,
            block_size: model.block_size,
            vocab_size: model.vocab_size,
            element_bytes: precision.value.element_bytes() as usize,
            pinned,
            // Nothing is kept in an evaluation, so nothing is recomputed.
            recomputes: match job {
                Job::Train => resolve::recomputes(config),
                Job::Evaluate => &[Recompute::Block],
            },
        };
        let predictor = Predictor::new(
            &model,
            device,
            precision.value,
            threads.value,
            sequences_per_step,
        );
        let measure = Measure::new(model.clone(), device, precision.value, threads.value, job);
        let mut ladder = rungs.ladder(&predictor, |rung| measure.bytes(rung));
        if let Some(rung) = origin.rung {
            let bytes = measure.bytes(rung);
            let below = |launch: &Launch| {
                launch.bytes < bytes && launch.rung.micro_batch <= rung.micro_batch
            };
            ladder.retain(below);
            let tokens_per_second = predictor.tokens_per_second(rung);
            ladder.insert(
                0,
                Launch {
                    rung,
                    bytes,
                    tokens_per_second,
                },
            );
        }
        Ok(Self {
            vocab_size,
            precision,
            threads,
            pinned,
            measure,
            ladder,
            budget: budget::budget(device, config.system.memory_limit.map(|limit| limit.0)),
        })
    }

    fn fits(&self, launch: &Launch) -> bool {
        self.budget
            .value
            .is_none_or(|budget| launch.bytes <= budget)
    }

    fn first_that_fits(&self) -> Option<usize> {
        self.ladder.iter().position(|launch| self.fits(launch))
    }

    /// The last rung.
    fn smallest(&self) -> &Launch {
        &self.ladder[self.ladder.len() - 1]
    }
}

/// Asks the constructors what they would allocate.
struct Measure {
    model: ModelDims,
    engine: Engine,
    precision: Precision,
    job: Job,
    reserve: Vec<Row>,
}

impl Measure {
    fn new(
        model: ModelDims,
        device: &DeviceProfile,
        precision: Precision,
        threads: usize,
        job: Job,
    ) -> Self {
        Self {
            model,
            engine: match device.hardware {
                Hardware::Cpu(_) => Engine::Cpu { threads },
                Hardware::Cuda(_) => Engine::Cuda,
            },
            precision,
            job,
            reserve: budget::reserve(device, threads),
        }
    }

    fn bytes(&self, rung: Rung) -> u64 {
        let reserve: u64 = self.reserve.iter().map(|row| row.bytes).sum();
        reserve + self.walk(rung, Planned::sum(self.precision)).total_bytes()
    }

    fn table(&self, rung: Rung) -> Vec<Row> {
        let mut rows = self.walk(rung, Planned::table(self.precision)).into_rows();
        rows.extend(self.reserve.iter().cloned());
        rows
    }

    fn walk(&self, rung: Rung, mut memory: Planned) -> Planned {
        match self.job {
            Job::Train => plan_training(&self.model, rung, self.engine, &mut memory),
            Job::Evaluate => plan_evaluation(&self.model, rung, self.engine, &mut memory),
        }
        memory
    }
}

/// The reasons behind the chosen rung.
struct Picture<'a> {
    draft: &'a Draft,
    chosen: usize,
    sequences_per_step: usize,
    resumed: bool,
}

impl Picture<'_> {
    /// The rung one would have with enough memory.
    fn wanted(&self) -> &Launch {
        &self.draft.ladder[0]
    }

    fn launch(&self) -> &Launch {
        &self.draft.ladder[self.chosen]
    }

    fn lack(&self) -> String {
        let wanted = bytes(self.wanted().bytes);
        let there = self.draft.budget.value.map(bytes).unwrap_or_default();
        format!("needs {wanted}, {there} may be used")
    }

    fn micro_batch(&self) -> Choice<String> {
        let (rung, wanted) = (self.launch().rung, self.wanted().rung);
        let times = |size: usize| format!("{size} x {}", self.sequences_per_step / size);
        let because = match self.draft.pinned {
            _ if rung.micro_batch < wanted.micro_batch => format!(
                "{} {}; the step keeps its {} sequences",
                times(wanted.micro_batch),
                self.lack(),
                count(self.sequences_per_step as u64)
            ),
            _ if self.resumed => {
                "as in the checkpoint, so that the resumed run is the same bit for bit; \
                 `--set train.batch_size=N` starts from another"
                    .into()
            }
            Some(pinned) if pinned == rung.micro_batch => "`train.batch_size` says so".into(),
            Some(pinned) => format!(
                "the largest divisor of {} that is not above `train.batch_size` = {pinned}",
                self.sequences_per_step
            ),
            None => "larger ones are predicted to be no faster".into(),
        };
        Choice {
            value: times(rung.micro_batch),
            because,
        }
    }

    fn recompute(&self) -> Choice<Recompute> {
        let (value, wanted) = (self.launch().rung.recompute, self.wanted().rung.recompute);
        let because = match value {
            _ if value != wanted => format!("keeping more {}", self.lack()),
            Recompute::None => "everything is kept: nothing is computed twice".into(),
            _ => "`system.recompute` says so, or nothing needs to be kept".into(),
        };
        Choice { value, because }
    }

    fn logits_chunk(&self) -> Choice<String> {
        let Measure {
            model, precision, ..
        } = &self.draft.measure;
        let rung = self.launch().rung;
        let rows = rung.micro_batch * model.block_size;
        let size =
            |rows: usize| bytes((rows * model.vocab_size) as u64 * precision.element_bytes());
        let all = rung.logits_rows == rows;
        Choice {
            value: format!("{} rows", count(rung.logits_rows as u64)),
            because: match all {
                true => format!("all of a micro-batch, {}", size(rows)),
                false => format!(
                    "{} at a time; all {} rows would be {}",
                    size(rung.logits_rows),
                    count(rows as u64),
                    size(rows)
                ),
            },
        }
    }
}
