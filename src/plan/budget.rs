//! The memory that a run may hold, and the part of it that is not for its buffers.

use crate::device::{Cpu, DeviceProfile, GpuProcess, Hardware};
use crate::faults::Faults;
use crate::memory::{Group, Memory, Row, SPARE_BYTES, total_bytes};
use crate::ops::gemm;
use crate::terms::Choice;
use crate::units::bytes;

const MIB: u64 = 1 << 20;

/// Share of a CPU's available memory that is left to others. The kernel kills when nothing is left.
const CPU_HEADROOM: f64 = 0.05;

/// A CUDA context, for a card that is not here. On a card that is here, free memory is read after the context was made.
/// An assumption: with the code that is loaded later, 300 to 500 MiB are commonly seen.
const CUDA_CONTEXT_BYTES: u64 = 192 * MIB;

/// Code that a GPU's memory takes when it is first used: handles and kernels of cuBLAS, taper's own kernels. An
/// assumption, until a card has told.
const LAZY_CODE_BYTES: u64 = 256 * MIB;

/// Lower bound on the memory of a card that there are kernels for, or of a slice of one (1 GB is the least of NVIDIA's
/// vGPU profiles). A card of a test may have less, and then a sixteenth of it is kept for code.
const SMALLEST_CARD_BYTES: u64 = 768 * MIB;
const SMALLER_CARDS_SHARE: u64 = 16;

/// Inputs and results of one update: a few numbers, in a handful of buffers. A GPU's pool makes no small buffers.
const STEP_NUMBERS_BYTES: u64 = 64 << 10;

/// Block of a GPU's memory pool; the last block may be all but empty. The size is the granularity of `cuMemCreate`;
/// that pools have the same is an assumption, until a card has told.
const POOL_BLOCK_BYTES: u64 = 2 * MIB;

/// Code, tables and stacks that a run touches after it was planned.
const CPU_PROCESS_BYTES: u64 = 2 * MIB;

/// Stack of a thread, as Rust maps it.
const STACK_BYTES: u64 = 2 * MIB;

/// Operands that each thread of a GEMM packs for itself: a level-2 cache full.
const PACKED_PER_THREAD_BYTES: u64 = 2 * MIB;

/// The most that a run may hold on `device`, reserve included; `None` where neither a limit nor the
/// device's free memory is known.
pub(super) fn budget(device: &DeviceProfile, limit: Option<u64>) -> Choice<Option<u64>> {
    let (there, because) = match (&device.hardware, device.available_bytes) {
        (
            Hardware::Cpu(Cpu {
                mappable_bytes: Some(mappable),
                process_bytes,
                ..
            }),
            available,
        ) if available.is_none_or(|available| *mappable < available) => {
            let most = process_bytes.unwrap_or(0) + mappable;
            let because = format!(
                "a limit of this process, `ulimit -v` or `-d`, leaves {} to map",
                bytes(*mappable)
            );
            (Some(most), because)
        }
        (_, None) => (
            None,
            "the system does not tell how much there is".to_owned(),
        ),
        (Hardware::Cpu(cpu), Some(available)) => {
            let own = cpu.process_bytes.unwrap_or(0);
            let most = own + (available as f64 * (1.0 - CPU_HEADROOM)) as u64;
            (
                Some(most),
                format!(
                    "{} are available, a twentieth is left to others",
                    bytes(available)
                ),
            )
        }
        (Hardware::Cuda(cuda), Some(free)) => (Some(free), free_text(&cuda.holders)),
    };
    match (limit, there) {
        (Some(limit), Some(there)) if there < limit => Choice {
            value: Some(there),
            because: format!("{because}; the limit of {} is above that", bytes(limit)),
        },
        (Some(limit), _) => Choice {
            value: Some(limit),
            because: "the memory limit that was set".into(),
        },
        (None, there) => Choice {
            value: there,
            because,
        },
    }
}

/// Processes that are named at most.
const HOLDERS: usize = 3;

/// `free on the card; `python3` (pid 7) holds 8.42 GiB`.
fn free_text(holders: &[GpuProcess]) -> String {
    let mut text = String::from("free on the card");
    for holder in holders.iter().take(HOLDERS) {
        let name = holder.name.as_deref().unwrap_or("a process");
        text += &format!("; `{name}` (pid {}) holds ", holder.pid);
        text += &holder.bytes.map_or("some of it".into(), bytes);
    }
    text
}

/// The memory of a device under its budget, with the reserve held already. On a CPU the reserve is for `threads`
/// threads whose GEMMs pack up to `packed_bytes` together.
pub fn memory_of(
    device: &DeviceProfile,
    limit: Option<u64>,
    threads: usize,
    packed_bytes: usize,
    faults: Faults,
) -> Memory {
    let reserve = total_bytes(&reserve(device, threads, packed_bytes));
    Memory::limited(budget(device, limit).value, reserve, faults)
}

/// Memory that the plan counts besides the run's own buffers. `packed_bytes` are the packed operands of GEMMs on the
/// CPU.
pub(super) fn reserve(device: &DeviceProfile, threads: usize, packed_bytes: usize) -> Vec<Row> {
    let row = |name: &str, bytes| Row {
        group: Group::Reserve,
        name: name.into(),
        bytes,
    };
    match &device.hardware {
        Hardware::Cpu(cpu) => {
            let packed = threads as u64 * PACKED_PER_THREAD_BYTES + packed_bytes as u64;
            let mut rows = vec![
                row(
                    "process",
                    cpu.process_bytes.unwrap_or(0) + CPU_PROCESS_BYTES,
                ),
                row("packed operands", packed),
            ];
            if cpu.mappable_bytes.is_some() {
                let stacks = threads as u64 * STACK_BYTES;
                rows.push(row("spare address space", SPARE_BYTES as u64 + stacks));
            }
            rows
        }
        Hardware::Cuda(cuda) => {
            let mut rows = vec![
                row("cuBLAS workspace", gemm::workspace_bytes(cuda)),
                row("numbers of a step", STEP_NUMBERS_BYTES),
                row("last block of the pool", POOL_BLOCK_BYTES),
            ];
            let code = match device.total_bytes {
                Some(total) if total < SMALLEST_CARD_BYTES => total / SMALLER_CARDS_SHARE,
                _ => LAZY_CODE_BYTES,
            };
            rows.push(row("code loaded when used", code));
            if cuda.driver_version.is_none() {
                rows.push(row("CUDA context", CUDA_CONTEXT_BYTES));
            }
            rows
        }
    }
}
