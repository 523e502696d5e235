//! A trial of a plan: the memory of its launch is taken for a moment, as a run would take it.

use std::any::Any;
use std::rc::Rc;

use serde::Serialize;

use crate::device::{DeviceError, DeviceProfile};
use crate::faults::Faults;
use crate::memory::{AllocationError, Allocator, Memory, OutOfMemory, Recoverable};
use crate::model::{ModelBuffers, ParamLayout};
use crate::ops::backend::{Packets, Tokens};
use crate::ops::cpu::Host;
use crate::plan::Plan;
use crate::step::Lasting;
use crate::step::evaluation::{weights, without_backward};
use crate::step::recovery::{Recovery, Workspaces};
use crate::terms::{Engine, Job, ModelDims, Purpose, Rung};

/// A trial that could not be made, or was refused at every rung.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Allocation(#[from] AllocationError),
}

impl Recoverable for TrialError {
    fn into_out_of_memory(self) -> Result<OutOfMemory, Self> {
        match self {
            Self::Allocation(error) => error.into_out_of_memory().map_err(Self::Allocation),
            device @ Self::Device(_) => Err(device),
        }
    }
}

impl TrialError {
    /// A literal edit or command that would help.
    pub fn hint(&self) -> String {
        match self {
            Self::Device(error) => error.hint(),
            Self::Allocation(error) => error.hint(),
        }
    }
}

/// Result of a trial: the rung that was granted, and the refusals before it.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    pub rung: Rung,
    /// Bytes held at that rung, the reserve included.
    pub held_bytes: u64,
    /// Bytes that the device then had left, where it tells.
    pub left_bytes: Option<u64>,
    pub recoveries: Vec<Recovery>,
}

/// Allocates every buffer of `plan`'s launch on the CPU, then releases them.
///
/// # Errors
/// The last refusal, when memory is refused at every rung.
pub fn on_cpu(plan: &Plan) -> Result<Trial, AllocationError> {
    let engine = Engine::Cpu {
        threads: plan.threads,
    };
    let allocate = |run: &TrialRun, rung, memory: &mut Memory| {
        run.allocate(rung, &mut Host::<f32>::new(memory))
    };
    let left = || DeviceProfile::cpu().available_bytes;
    attempt(plan, engine, account(plan), allocate, left)
}

/// Allocates every buffer of `plan`'s launch on the GPU that CUDA counts as `ordinal`, then releases them.
///
/// # Errors
/// The last refusal, when memory is refused at every rung; and the failure to open the GPU.
#[cfg(feature = "cuda")]
pub fn on_gpu(plan: &Plan, ordinal: usize) -> Result<Trial, TrialError> {
    use crate::ops::cuda::GpuMemory;
    use crate::terms::Precision;
    use half::{bf16, f16};

    let device = crate::device::open(ordinal)?;
    let context = device.cuda_stream().context().clone();
    let memory = account(plan).in_pool(device.clone());
    let precision = plan.precision;
    let allocate = move |run: &TrialRun, rung, memory: &mut Memory| match precision {
        Precision::Float32 => run.allocate(rung, &mut GpuMemory::<f32>::new(&device, memory)),
        Precision::Bfloat16 => run.allocate(rung, &mut GpuMemory::<bf16>::new(&device, memory)),
        Precision::Float16 => run.allocate(rung, &mut GpuMemory::<f16>::new(&device, memory)),
    };
    let left = || context.mem_get_info().ok().map(|(free, _)| free as u64);
    Ok(attempt(plan, Engine::Cuda, memory, allocate, left)?)
}

fn account(plan: &Plan) -> Memory {
    Memory::limited(plan.budget.value, plan.reserve_bytes(), Faults::default())
}

/// Buffers of any type, which are only held.
type Held = Box<dyn Any>;

/// Properties of a run that, with a rung, decide its buffers.
struct TrialRun {
    dims: ModelDims,
    job: Job,
    engine: Engine,
}

impl TrialRun {
    /// Allocates the buffers of a rung; without one, the buffers that no rung changes.
    fn allocate<A>(&self, rung: Option<Rung>, memory: &mut A) -> Result<Held, A::Error>
    where
        A: Allocator<Compute: 'static, Full: 'static, Ids: 'static>,
    {
        let parameters = ParamLayout::new(&self.dims).len;
        let Some(rung) = rung else {
            return Ok(match self.job {
                Job::Train => Box::new(Lasting::new(parameters, memory)?),
                Job::Evaluate => Box::new(weights(parameters, memory)?),
            });
        };
        let (rung, purpose) = match self.job {
            Job::Train => (rung, Purpose::Training),
            Job::Evaluate => (without_backward(rung), Purpose::Inference),
        };
        let buffers = ModelBuffers::new(&self.dims, rung, self.engine, purpose, memory)?;
        let rows = rung.micro_batch * self.dims.block_size;
        Ok(match self.engine {
            Engine::Cpu { .. } => Box::new((buffers, Tokens::new(rows, memory)?)),
            Engine::Cuda => Box::new((buffers, Packets::new(rows, memory)?)),
        })
    }
}

fn attempt(
    plan: &Plan,
    engine: Engine,
    memory: Memory,
    allocate: impl Fn(&TrialRun, Option<Rung>, &mut Memory) -> Result<Held, AllocationError> + 'static,
    left_bytes: impl FnOnce() -> Option<u64>,
) -> Result<Trial, AllocationError> {
    let run = TrialRun {
        dims: plan.model.clone(),
        job: plan.job,
        engine,
    };
    let allocate = Rc::new(move |rung, memory: &mut Memory| allocate(&run, rung, memory));
    let build = allocate.clone();
    let (mut workspaces, _lasting) = Workspaces::allocate(
        memory,
        plan.rungs(),
        |memory| allocate(None, memory),
        move |rung, memory| build(Some(rung), memory),
    )?;
    Ok(Trial {
        rung: workspaces.rung(),
        held_bytes: workspaces.memory().held_bytes(),
        left_bytes: left_bytes(),
        recoveries: workspaces.take_recoveries(),
    })
}
