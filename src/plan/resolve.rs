//! The parts of a plan that do not depend on memory, each with its reason.

use super::PlanError;
use crate::config::{AutotuneRequest, Config, GraphRequest, RecomputeRequest};
use crate::data::DatasetInfo;
use crate::device::{
    Cuda, DeviceError, DeviceProfile, Hardware, NEWEST_COMPUTE_CAPABILITY, has_kernels,
};
use crate::terms::{Choice, Effort, GemmBackend, Job, ModelDims, Precision, Recompute, Rung};

/// Token ids of GPT-2, and the next multiple of 64, to which nanoGPT pads them.
pub const GPT2_VOCAB: usize = 50_257;
const GPT2_VOCAB_PADDED: usize = 50_304;

/// TorchInductor refuses `max_autotune_gemm` below this many SMs, and says only "Not enough SMs"
/// (`is_big_gpu` in torch/_inductor/utils.py).
pub const AUTOTUNE_MIN_SMS: u32 = 68;

pub(super) fn device(device: &DeviceProfile, because: &str) -> Choice<String> {
    Choice {
        value: match &device.hardware {
            Hardware::Cpu(_) => "cpu".into(),
            Hardware::Cuda(_) => device.name.clone(),
        },
        because: because.into(),
    }
}

/// The largest head that attention's kernels take, in channels.
const GPU_MAX_HEAD_SIZE: usize = 128;

/// Checks that there are kernels to run.
///
/// # Errors
/// When the device has no kernels, or none for a model of these sizes.
pub fn check_kernels(model: &ModelDims, device: &DeviceProfile) -> Result<(), PlanError> {
    let size = model.n_embd / model.n_head;
    match &device.hardware {
        Hardware::Cuda(cuda) if !has_kernels(cuda.compute_capability) => Err(DeviceError::OldGpu {
            name: device.name.clone(),
            has: cuda.compute_capability,
        }
        .into()),
        Hardware::Cuda(_) if size > GPU_MAX_HEAD_SIZE => Err(PlanError::Contradiction {
            what: format!(
                "heads of {size} channels (`model.n_embd` {} over `model.n_head` {}), where the kernels \
                 for GPUs end at {GPU_MAX_HEAD_SIZE}",
                model.n_embd, model.n_head
            ),
            hint: "use more heads, such as one for every 64 channels, or the CPU with \
                   `--set system.device=cpu`"
                .into(),
        }),
        _ => Ok(()),
    }
}

/// Kernels of a GPU that is newer than all of them; `None` for others.
pub(super) fn kernels(cuda: &Cuda) -> Option<Choice<&'static str>> {
    let ((major, minor), newest) = (cuda.compute_capability, NEWEST_COMPUTE_CAPABILITY);
    (cuda.compute_capability > newest).then(|| Choice {
        value: "PTX for 8.0",
        because: format!(
            "compute capability {major}.{minor} is newer than this build, whose kernels end at {}.{}: it runs \
             those for 8.0, which do without what is new in {major}.{minor}",
            newest.0, newest.1
        ),
    })
}

/// Blocks of a grid in its third dimension, of which attention has one for every sequence: "Technical Specifications
/// per Compute Capability" of the CUDA C++ Programming Guide.
const GPU_MAX_SEQUENCES: usize = 65_535;

/// The most sequences of a micro-batch that kernels take. The values of the residual stream are counted with 32 bits.
pub(super) fn countable_sequences(model: &ModelDims, device: &DeviceProfile) -> usize {
    let by_values = (1 << 31) / (model.block_size * model.n_embd);
    let by_kernels = match device.hardware {
        Hardware::Cpu(_) => usize::MAX,
        Hardware::Cuda(_) => GPU_MAX_SEQUENCES,
    };
    by_values.min(by_kernels).max(1)
}

/// Whether micro-steps are recorded as CUDA graphs. They are where a kernel over the micro-batch's residual stream runs
/// for less time than the host takes to launch it.
pub(super) fn cuda_graph(
    config: &Config,
    cuda: &Cuda,
    model: &ModelDims,
    precision: Precision,
    rung: Rung,
) -> Choice<bool> {
    let says_so = |value| Choice {
        value,
        because: "`system.cuda_graph` says so".into(),
    };
    match config.system.cuda_graph {
        GraphRequest::On => return says_so(true),
        GraphRequest::Off => return says_so(false),
        GraphRequest::Auto => {}
    }
    let values = (rung.micro_batch * model.block_size * model.n_embd) as f64;
    // A norm reads and writes every value.
    let seconds = 2.0 * values * precision.element_bytes() as f64 / cuda.memory_bytes_per_second;
    Choice {
        value: seconds < LAUNCH_SECONDS,
        because: format!(
            "a pass over the residual stream takes about {:.1} us, a launch about {:.0} us",
            1e6 * seconds,
            1e6 * LAUNCH_SECONDS
        ),
    }
}

/// Time of the host for one launch. An assumption; 2 to 5 us are commonly seen.
const LAUNCH_SECONDS: f64 = 4e-6;

/// Extent of the search for the fastest GEMMs, which the number of SMs limits. Training goes on in every case.
///
/// # Errors
/// When the device does not have the backend asked for.
pub(super) fn autotune(
    config: &Config,
    device: &DeviceProfile,
    job: Job,
) -> Result<Choice<Effort>, PlanError> {
    let asked = config.gemm.autotune;
    let (value, because) = match (&device.hardware, asked) {
        (Hardware::Cuda(_), _) if config.gemm.backend == GemmBackend::Fma => {
            return Err(PlanError::Contradiction {
                what: "`gemm.backend` is `fma`, which is for CPUs".into(),
                hint: "use `--set gemm.backend=auto`".into(),
            });
        }
        (Hardware::Cpu(_), _)
            if !matches!(config.gemm.backend, GemmBackend::Auto | GemmBackend::Fma) =>
        {
            return Err(PlanError::Contradiction {
                what: format!(
                    "`gemm.backend` is `{}`, which is for GPUs",
                    config.gemm.backend
                ),
                hint: "use `--set gemm.backend=auto`, or `fma`".into(),
            });
        }
        (_, AutotuneRequest::Off) => (Effort::Off, "`gemm.autotune` says so".into()),
        _ if job == Job::Evaluate => (
            Effort::Off,
            "an evaluation is over before a search has paid".into(),
        ),
        (Hardware::Cuda(cuda), AutotuneRequest::Auto | AutotuneRequest::Full) => {
            of_card(cuda.sm_count, asked)
        }
        (Hardware::Cuda(_), AutotuneRequest::Limited) => {
            (Effort::Limited, "`gemm.autotune` says so".into())
        }
        (Hardware::Cpu(_), AutotuneRequest::Auto) => (
            Effort::Limited,
            "every candidate gives the same bits".into(),
        ),
        (Hardware::Cpu(_), AutotuneRequest::Limited) => (
            Effort::Limited,
            "`gemm.autotune` says so; every candidate gives the same bits".into(),
        ),
        (Hardware::Cpu(_), AutotuneRequest::Full) => (
            Effort::Full,
            "`gemm.autotune` says so; candidates that round differently count, too".into(),
        ),
    };
    Ok(Choice { value, because })
}

/// The choice for a GPU on which a search is asked for.
fn of_card(sm_count: u32, asked: AutotuneRequest) -> (Effort, String) {
    let bound = format!(
        "{sm_count} SMs are there, the full search needs {AUTOTUNE_MIN_SMS}, as in TorchInductor \
         (`is_big_gpu` in torch/_inductor/utils.py)"
    );
    match asked {
        AutotuneRequest::Full => (Effort::Full, format!("`gemm.autotune` says so; {bound}")),
        _ if sm_count < AUTOTUNE_MIN_SMS => (
            Effort::Limited,
            format!(
                "{bound}: fewer candidates are timed for each matrix product; precision, micro-batch \
                 and all else are not limited, and training goes on; `--set gemm.autotune=full` \
                 forces the full search"
            ),
        ),
        _ => (Effort::Full, bound),
    }
}

/// Allowed kinds of recompute, in order of preference.
pub(super) fn recomputes(config: &Config) -> &'static [Recompute] {
    match config.system.recompute {
        RecomputeRequest::Auto => &Recompute::ALL,
        RecomputeRequest::None => &[Recompute::None],
        RecomputeRequest::GeluLn => &[Recompute::GeluLn],
        RecomputeRequest::Block => &[Recompute::Block],
    }
}

pub(super) fn threads(config: &Config, device: &DeviceProfile) -> Choice<usize> {
    match (config.system.threads, device.cores()) {
        (Some(asked), Some(cores)) if asked > cores => Choice {
            value: cores,
            because: format!(
                "`system.threads` says {asked}, and this process may use {cores} cores: more threads would wait for \
                 one another"
            ),
        },
        (Some(value), _) => Choice {
            value,
            because: "`system.threads` says so".into(),
        },
        (None, Some(value)) => Choice {
            value,
            because: "every core this process may use".into(),
        },
        // The host only prepares and saves: as many as rayon finds, which is what 0 means to it.
        (None, None) if matches!(device.hardware, Hardware::Cuda(_)) => Choice {
            value: 0,
            because: "every core of the host".into(),
        },
        (None, None) => Choice {
            value: 1,
            because: "the system does not tell how many cores there are; `system.threads` can"
                .into(),
        },
    }
}

/// Rows of the token embedding.
///
/// # Errors
/// When the dataset has more token ids.
pub(super) fn vocab_size(
    config: &Config,
    dataset: &DatasetInfo,
    weights: Option<&ModelDims>,
) -> Result<Choice<usize>, PlanError> {
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
            because: format!(
                "{}; {GPT2_VOCAB} is rounded up to a multiple of 64, as nanoGPT does",
                found.because
            ),
        },
        (None, None) => found.clone(),
    };
    if choice.value < found.value {
        return Err(PlanError::Contradiction {
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

/// Sizes of the config. Where training starts from weights, theirs count, as in nanoGPT; but dropout is always
/// the config's, and its block size may be shorter than that of the weights.
///
/// # Errors
/// When the block size is longer than that of the weights.
pub(super) fn model_dims(
    config: &Config,
    vocab_size: usize,
    weights: Option<&ModelDims>,
) -> Result<ModelDims, PlanError> {
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
        return Err(PlanError::Contradiction {
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
