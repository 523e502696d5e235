//! Config x DeviceProfile x DatasetInfo -> Plan: every number the run uses, with its reason.
//!
//! A pure function. After it, no code reads `Config`, an environment variable or the machine. `request.rs` goes from
//! one to the other. `resolve.rs` and `precision.rs` decide what memory has no say in. `ladder.rs` lists the launches
//! that `throughput.rs` ranks; `draft.rs` measures them. `budget.rs` says how much memory there is, `reasons.rs` why
//! a rung was chosen, and `refusal.rs` what to do when nothing fits.

mod budget;
mod draft;
mod error;
mod ladder;
mod precision;
mod reasons;
mod refusal;
mod request;
mod resolve;
mod throughput;

use std::path::PathBuf;

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
    pub log_interval: u64,
    pub eval_interval: u64,
    /// Sequences per split and evaluation.
    pub eval_sequences: usize,
    pub out_dir: PathBuf,
    pub checkpoint_interval: u64,
    /// Number of newest checkpoints that stay, besides the best.
    pub keep: usize,
    /// The request as written, for checkpoints.
    pub config_toml: String,
    /// Every automatic decision, for the startup report, the checkpoint and the summary.
    pub choices: Vec<NamedChoice>,
}

impl Plan {
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
