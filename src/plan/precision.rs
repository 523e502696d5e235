//! The precision that a run computes in and stores in.

use super::PlanError;
use crate::config::{Config, DtypeRequest};
use crate::device::{Cpu, DeviceProfile, Hardware};
use crate::ops::gemm::cpu::SHORTEST_SIDE_IN_PIECES;
use crate::terms::{Choice, GemmBackend, Inputs, ModelDims, Precision, VectorExtension};

/// The precision asked for, else the best one of the device.
///
/// # Errors
/// When the device does not have the precision asked for.
pub(super) fn dtype(
    config: &Config,
    model: &ModelDims,
    device: &DeviceProfile,
) -> Result<Choice<Precision>, PlanError> {
    let best = best(config, model, device);
    let asked = match config.system.dtype {
        DtypeRequest::Auto => return Ok(best),
        DtypeRequest::Float32 => Precision::Float32,
        DtypeRequest::Bfloat16 => Precision::Bfloat16,
        DtypeRequest::Float16 => Precision::Float16,
    };
    // float16 runs wherever bfloat16 does, and float32 everywhere.
    let there = asked == best.value
        || asked == Precision::Float32
        || (best.value, asked) == (Precision::Bfloat16, Precision::Float16);
    let extension = match (&device.hardware, asked) {
        (Hardware::Cpu(cpu), Precision::Bfloat16) => bfloat16_extension(cpu),
        _ => None,
    };
    let says_so = "`system.dtype` says so";
    match extension {
        Some(extension) => Ok(Choice {
            value: asked,
            because: format!(
                "{says_so}; products are multiplied in it with {extension}, all else is float32"
            ),
        }),
        None if there => Ok(Choice {
            value: asked,
            because: says_so.into(),
        }),
        None => Err(PlanError::Contradiction {
            what: format!("`system.dtype` is `{asked}`, but {}", best.because),
            hint:
                "use `--set system.dtype=auto`: it takes the fastest precision that the device has"
                    .into(),
        }),
    }
}

/// The fastest precision of the device.
fn best(config: &Config, model: &ModelDims, device: &DeviceProfile) -> Choice<Precision> {
    match &device.hardware {
        Hardware::Cpu(cpu) => Choice {
            value: Precision::Float32,
            because: if multiplies_pieces(config, model, cpu) {
                "the CPU trains in float32; AMX multiplies it in bfloat16 pieces, as accurately"
            } else {
                "the CPU trains in float32"
            }
            .into(),
        },
        Hardware::Cuda(cuda) => {
            let (major, minor) = cuda.compute_capability;
            if cuda.peak_bf16.is_some() {
                Choice {
                    value: Precision::Bfloat16,
                    because: format!("compute capability {major}.{minor} has bfloat16"),
                }
            } else {
                Choice {
                    value: Precision::Float16,
                    because: format!(
                        "compute capability {major}.{minor} has no bfloat16 (8.0 has): float16 with a loss scaler"
                    ),
                }
            }
        }
    }
}

/// The fastest extension of a CPU that multiplies bf16: see `ops::gemm::cpu::bf16`.
fn bfloat16_extension(cpu: &Cpu) -> Option<VectorExtension> {
    [VectorExtension::AmxBf16, VectorExtension::Avx512Bf16]
        .into_iter()
        .find(|extension| cpu.vector_extensions.contains(extension))
}

/// Whether float32 is multiplied as three bfloat16 pieces each: see `ops::gemm::cpu::bf16`. One side of every
/// GEMM is `n_embd`.
fn multiplies_pieces(config: &Config, model: &ModelDims, cpu: &Cpu) -> bool {
    bfloat16_extension(cpu) == Some(VectorExtension::AmxBf16)
        && config.gemm.backend != GemmBackend::Fma
        && model.n_embd >= SHORTEST_SIDE_IN_PIECES
}

/// The precision of buffers, and the operands of GEMMs. On the CPU everything is kept in float32.
pub(super) fn storage(
    config: &Config,
    model: &ModelDims,
    device: &DeviceProfile,
    dtype: Precision,
) -> (Precision, Inputs) {
    match (&device.hardware, dtype) {
        (Hardware::Cpu(_), Precision::Bfloat16) => (Precision::Float32, Inputs::Float32AsBfloat16),
        (Hardware::Cpu(cpu), Precision::Float32) if multiplies_pieces(config, model, cpu) => {
            (Precision::Float32, Inputs::Float32InPieces)
        }
        (Hardware::Cuda(_), Precision::Float32) if config.system.tf32 => {
            (Precision::Float32, Inputs::Tf32)
        }
        (_, precision) => (precision, precision.into()),
    }
}
