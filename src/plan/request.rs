//! The request for a plan, and its steps: a draft, the first rung that fits, the reasons, and the numbers.

use super::draft::Draft;
use super::reasons::Reasons;
use super::{Plan, PlanError, resolve};
use crate::config::Config;
use crate::data::DatasetInfo;
use crate::device::{DeviceProfile, Hardware};
use crate::ops::backend::OptimizerSettings;
use crate::outliers::SkipSettings;
use crate::rng::Seed;
use crate::step::StepSettings;
use crate::terms::{Choice, Job, ModelDims, NamedChoice, Rung};

/// Start of a run: weights that exist already, and the checkpoint that they are from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin<'a> {
    /// The sizes of the pretrained model or checkpoint.
    pub weights: Option<&'a ModelDims>,
    /// The rung of a checkpoint that was made with the same request, where going on with it keeps
    /// the resumed run equal bit for bit.
    pub rung: Option<Rung>,
    /// Whether the run goes on from a checkpoint; then the experiment cannot be changed.
    pub resumed: bool,
}

/// Inputs of a plan.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub config: &'a Config,
    pub device: &'a DeviceProfile,
    pub dataset: &'a DatasetInfo,
    pub origin: Origin<'a>,
    pub job: Job,
    /// Reason for this device.
    pub because: &'a str,
}

impl Request<'_> {
    /// Plans the first rung of the ladder that fits. It has the highest predicted throughput of those, see `ladder.rs`.
    ///
    /// # Errors
    /// When the parts contradict each other (a dataset with more ids than the model has rows, a
    /// block size that the weights lack), and [`Refusal`](super::Refusal) when not even the smallest rung fits.
    pub fn plan(&self) -> Result<Plan, PlanError> {
        let draft = Draft::new(self)?;
        let Some(chosen) = draft.first_that_fits() else {
            let available = Choice {
                value: draft.budget.value.unwrap_or(0),
                because: draft.budget.because.clone(),
            };
            return Err(self.refuse(&draft, &available).into());
        };
        let cuda_graph = self.cuda_graph(&draft, draft.ladder[chosen].rung);
        let choices = self.choices(&draft, chosen, cuda_graph.as_ref());
        let cuda_graph = cuda_graph.is_some_and(|choice| choice.value);
        Ok(self.numbers(draft, chosen, cuda_graph, choices))
    }

    /// Whether micro-steps are recorded; `None` where there are no graphs to record.
    fn cuda_graph(&self, draft: &Draft, rung: Rung) -> Option<Choice<bool>> {
        match &self.device.hardware {
            Hardware::Cuda(cuda) if self.job == Job::Train => {
                let (model, precision) = (&draft.measure.model, draft.measure.precision);
                Some(resolve::cuda_graph(
                    self.config,
                    cuda,
                    model,
                    precision,
                    rung,
                ))
            }
            _ => None,
        }
    }

    /// Every automatic decision with its reason, in the order in which they are printed.
    fn choices(
        &self,
        draft: &Draft,
        chosen: usize,
        cuda_graph: Option<&Choice<bool>>,
    ) -> Vec<NamedChoice> {
        let reasons = Reasons {
            draft,
            chosen,
            config: self.config,
        };
        let mut choices = vec![
            NamedChoice::new("device", &resolve::device(self.device, self.because)),
            NamedChoice::new("dtype", &draft.dtype),
        ];
        match &self.device.hardware {
            Hardware::Cpu(_) => choices.push(NamedChoice::new("threads", &draft.threads)),
            Hardware::Cuda(cuda) => choices
                .extend(resolve::kernels(cuda).map(|choice| NamedChoice::new("kernels", &choice))),
        }
        choices.extend([
            NamedChoice::new("vocab_size", &draft.vocab_size),
            NamedChoice::new("memory", &reasons.memory()),
            NamedChoice::new("micro-batch", &reasons.micro_batch()),
        ]);
        // An evaluation has no backward to compute anything again for.
        if self.job == Job::Train {
            choices.push(NamedChoice::new("recompute", &reasons.recompute()));
        }
        choices.extend([
            NamedChoice::new("logits chunk", &reasons.logits_chunk()),
            NamedChoice::new("gemm autotune", &draft.gemm),
        ]);
        choices.extend(cuda_graph.map(|choice| NamedChoice {
            name: "cuda graph".into(),
            value: if choice.value { "on" } else { "off" }.into(),
            because: choice.because.clone(),
        }));
        choices
    }

    fn numbers(
        &self,
        draft: Draft,
        chosen: usize,
        cuda_graph: bool,
        choices: Vec<NamedChoice>,
    ) -> Plan {
        let config = self.config;
        let measure = draft.measure;
        Plan {
            job: self.job,
            engine: measure.engine,
            precision: measure.precision,
            threads: draft.threads.value,
            gemm: draft.gemm.value,
            gemm_backend: config.gemm.backend,
            inputs: measure.inputs,
            cuda_graph,
            gpu_peak_flops: match &self.device.hardware {
                Hardware::Cuda(cuda) => cuda.peak(measure.inputs),
                Hardware::Cpu(_) => None,
            },
            memory: measure.table(draft.ladder[chosen].rung),
            ladder: draft.ladder,
            chosen,
            budget: draft.budget,
            step: step_settings(config),
            max_iters: config.train.max_iters,
            max_minutes: config.train.max_minutes,
            log_interval: config.train.log_interval,
            eval_interval: config.eval.eval_interval,
            eval_on_start: config.eval.eval_on_start,
            eval_sequences: config.eval_sequences(),
            out_dir: config.checkpoint.out_dir.clone(),
            checkpoint_interval: config
                .checkpoint
                .checkpoint_interval
                .unwrap_or(config.eval.eval_interval),
            keep: config.checkpoint.keep,
            tensorboard: config.checkpoint.tensorboard,
            config_toml: config.to_toml(),
            choices,
            model: measure.model,
        }
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
        schedule: optimizer.schedule(),
        skip: SkipSettings {
            loss_zscore: optimizer.skip_loss_zscore,
            grad_zscore: optimizer.skip_grad_zscore,
        },
    }
}
