//! Config x DeviceProfile x DatasetInfo -> Plan: every number the run uses, with its reason.
//!
//! A pure function. After it, no code reads `Config`, an environment variable or the machine. `request.rs` goes from
//! one to the other. `resolve.rs` and `precision.rs` decide what memory has no say in. `ladder.rs` lists the launches
//! that `throughput.rs` ranks; `draft.rs` measures them. `budget.rs` says how much memory there is, `reasons.rs` why
//! a rung was chosen, and `refusal.rs` what to do when nothing fits, with
//! `standing.rs` where not even the state of training does.

mod budget;
mod draft;
mod error;
mod ladder;
mod precision;
mod reasons;
mod refusal;
mod request;
mod resolve;
mod standing;
mod throughput;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::memory::{Group, Row, total_bytes};
use crate::model::Program;
use crate::step::StepSettings;
use crate::terms::{
    Choice, Effort, Engine, GemmBackend, Inputs, Job, ModelDims, NamedChoice, Precision, Rung,
};

pub use budget::memory_of;
pub use error::PlanError;
pub use ladder::Launch;
pub use refusal::{Edit, Refusal};
pub use request::{Origin, Request};
pub use resolve::{AUTOTUNE_MIN_SMS, GPT2_VOCAB, check_kernels};
pub use standing::Standing;

/// Everything a run needs to know, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub job: Job,
    pub model: ModelDims,
    pub engine: Engine,
    pub precision: Precision,
    /// Host threads; 0 = all (only with a GPU).
    pub threads: usize,
    /// Extent of the search for the fastest GEMMs.
    pub gemm: Effort,
    /// Code that may compute GEMMs.
    pub gemm_backend: GemmBackend,
    /// Operands of GEMMs, as they are multiplied.
    pub inputs: Inputs,
    /// Whether micro-steps are recorded as CUDA graphs.
    pub cuda_graph: bool,
    /// The GPU's datasheet rate at this precision, in operations per second.
    pub gpu_peak_flops: Option<f64>,
    /// Every rung, from the fastest down.
    pub ladder: Vec<Launch>,
    /// Index of the launched rung in `ladder`.
    pub chosen: usize,
    /// Bytes that the run may hold; `None` where that is not known.
    pub budget: Choice<Option<u64>>,
    /// Every buffer at the chosen rung, and the reserve.
    pub memory: Vec<Row>,
    pub step: StepSettings,
    pub max_iters: u64,
    /// Minutes after which the run saves and ends, from the start of the command; 0 is no limit.
    pub max_minutes: f64,
    pub log_interval: u64,
    pub eval_interval: u64,
    /// Whether untrained weights are evaluated, too.
    pub eval_on_start: bool,
    /// Sequences per split and evaluation.
    pub eval_sequences: usize,
    pub out_dir: PathBuf,
    pub checkpoint_interval: u64,
    /// Number of newest checkpoints that stay, besides the best.
    pub keep: usize,
    /// Whether event files for TensorBoard are written into `out_dir`.
    pub tensorboard: bool,
    /// The request as written, for checkpoints.
    pub config_toml: String,
    /// Every automatic decision, for the startup report, the checkpoint and the summary.
    pub choices: Vec<NamedChoice>,
}

/// Time of a run, predicted from the rate of its launch. It ranks and warns; it promises nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PredictedTime {
    /// `None` for an evaluation.
    pub step_seconds: Option<f64>,
    /// Every step that is left, with the evaluations in between; or both splits of an evaluation.
    pub run_seconds: f64,
}

/// Runs that take longer are pointed out.
pub const LONG_RUN: Duration = Duration::from_secs(7 * 24 * 3600);

/// Time of a token in an evaluation, of that in training: a forward without a backward (2 of 6 operations for each
/// parameter).
const EVALUATION_SHARE: f64 = 1.0 / 3.0;

impl PredictedTime {
    pub fn run(&self) -> Duration {
        seconds(self.run_seconds)
    }

    pub fn step(&self) -> Option<Duration> {
        self.step_seconds.map(seconds)
    }

    pub fn is_long(&self) -> bool {
        self.run() > LONG_RUN
    }
}

/// The longest time there is where there are more seconds.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

impl Plan {
    /// The time of the run after `done` steps.
    pub fn predicted_time(&self, done: u64) -> PredictedTime {
        let rate = self.launch().tokens_per_second;
        let evaluated = 2.0 * (self.eval_sequences * self.model.block_size) as f64;
        if self.job == Job::Evaluate {
            return PredictedTime {
                step_seconds: None,
                run_seconds: evaluated / rate,
            };
        }
        let step_seconds = self.tokens_per_step() as f64 / rate;
        let steps = self.max_iters.saturating_sub(done);
        let first = self.eval_on_start && done == 0 && steps > 0;
        let evaluations = steps.div_ceil(self.eval_interval.max(1)) as f64 + f64::from(first);
        let evaluation_seconds = EVALUATION_SHARE * evaluated / rate;
        PredictedTime {
            step_seconds: Some(step_seconds),
            run_seconds: steps as f64 * step_seconds + evaluations * evaluation_seconds,
        }
    }

    /// See [`Plan::max_minutes`]; `None` without a limit, or for one beyond any clock.
    pub fn max_time(&self) -> Option<Duration> {
        let limit = Duration::try_from_secs_f64(60.0 * self.max_minutes).ok();
        limit.filter(|_| self.max_minutes > 0.0)
    }

    pub fn launch(&self) -> &Launch {
        &self.ladder[self.chosen]
    }

    /// The model at `rung`.
    pub fn program(&self, rung: Rung) -> Program {
        Program::of(self.job, &self.model, rung, self.engine, self.precision)
    }

    /// The chosen rung and all below it.
    pub fn rungs(&self) -> Vec<Rung> {
        self.ladder[self.chosen..]
            .iter()
            .map(|launch| launch.rung)
            .collect()
    }

    /// Memory that the run does not allocate itself.
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
