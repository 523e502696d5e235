//! A trial of a plan: the memory of its launch is taken for a moment, as a run would take it.

use std::rc::Rc;

use serde::Serialize;

use crate::device::{DeviceError, DeviceProfile};
use crate::faults::Faults;
use crate::memory::{AllocationError, Memory, OutOfMemory, Recoverable};
use crate::ops::backend::{Buffer, BufferSpec};
use crate::ops::cpu;
use crate::plan::Plan;
use crate::step::recovery::{Recovery, Workspaces};
use crate::terms::Rung;

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
    let left = || DeviceProfile::cpu().available_bytes;
    attempt(plan, account(plan), cpu::allocate::<f32>, left)
}

/// Allocates every buffer of `plan`'s launch on the GPU that CUDA counts as `ordinal`, then releases them.
///
/// # Errors
/// The last refusal, when memory is refused at every rung; and the failure to open the GPU.
#[cfg(feature = "cuda")]
pub fn on_gpu(plan: &Plan, ordinal: usize) -> Result<Trial, TrialError> {
    use crate::ops::cuda::allocate;
    use crate::terms::Precision;
    use half::{bf16, f16};

    let device = crate::device::open(ordinal)?;
    let context = device.cuda_stream().context().clone();
    let memory = account(plan).in_pool(device.clone());
    let precision = plan.precision;
    let allocate = move |spec: &BufferSpec, memory: &mut Memory| match precision {
        Precision::Float32 => allocate::<f32>(&device, spec, memory),
        Precision::Bfloat16 => allocate::<bf16>(&device, spec, memory),
        Precision::Float16 => allocate::<f16>(&device, spec, memory),
    };
    let left = || context.mem_get_info().ok().map(|(free, _)| free as u64);
    Ok(attempt(plan, memory, allocate, left)?)
}

fn account(plan: &Plan) -> Memory {
    Memory::limited(plan.budget.value, plan.reserve_bytes(), Faults::default())
}

fn attempt(
    plan: &Plan,
    memory: Memory,
    allocate: impl Fn(&BufferSpec, &mut Memory) -> Result<Buffer, AllocationError> + 'static,
    left_bytes: impl FnOnce() -> Option<u64>,
) -> Result<Trial, AllocationError> {
    let allocate = Rc::new(move |specs: &[BufferSpec], memory: &mut Memory| {
        let buffers = specs.iter().map(|spec| allocate(spec, memory));
        buffers.collect::<Result<Vec<_>, _>>()
    });
    let (lasting, plan_of_build) = (plan.program(plan.launch().rung), plan.clone());
    let build = allocate.clone();
    let (mut workspaces, _lasting) = Workspaces::allocate(
        memory,
        plan.rungs(),
        |memory| allocate(lasting.lasting(), memory),
        move |rung, memory| build(plan_of_build.program(rung).of_rung(), memory),
    )?;
    Ok(Trial {
        rung: workspaces.rung(),
        held_bytes: workspaces.memory().held_bytes(),
        left_bytes: left_bytes(),
        recoveries: workspaces.take_recoveries(),
    })
}
