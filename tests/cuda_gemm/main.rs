//! Products on a GPU: cuBLASLt and our own kernels, verified and timed by the same code as on the CPU, and each a
//! fallback for the other. On the virtual GPU: `scripts/vgpu rtx3060 -- cargo test --release --features cuda --test cuda_gemm`.
#![cfg(feature = "cuda")]

mod arithmetic;
mod failures;
mod operands;
mod search;

#[path = "../common/places.rs"]
mod places;

use taper::model::Program;
use taper::ops::gemm::TrainingGemm;
use taper::ops::gemm::gpu::{GpuCandidate, GpuGemm};
use taper::terms::{Engine, Gelu, GemmBackend, Inputs, Job, ModelDims, Recompute, Rung};

const WORKSPACE_ELEMENTS: usize = 1 << 20;

/// The GPU, or nothing where there is none.
fn gpu(backend: GemmBackend) -> Option<GpuGemm> {
    gpu_with(backend, WORKSPACE_ELEMENTS)
}

fn gpu_with(backend: GemmBackend, workspace_elements: usize) -> Option<GpuGemm> {
    let device = match taper::device::open(0) {
        Ok(device) => device,
        Err(error) if std::env::var_os("VGPU_CARD").is_none() => {
            eprintln!("skipped, for there is no GPU ({error}): use scripts/vgpu");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let workspace = device
        .cuda_stream()
        .alloc_zeros(workspace_elements)
        .unwrap();
    Some(GpuGemm::new(&device, backend, workspace).unwrap())
}

/// Every product of a small model's step.
fn gemms(inputs: Inputs, gelu: Gelu) -> Vec<TrainingGemm> {
    let dims = ModelDims {
        n_layer: 1,
        n_head: 2,
        n_embd: 64,
        block_size: 48,
        vocab_size: 200,
        bias: true,
        dropout: 0.0,
        gelu,
    };
    let rung = Rung {
        micro_batch: 2,
        recompute: Recompute::None,
        logits_rows: 64,
    };
    let precision = inputs.storage();
    Program::of(Job::Train, &dims, rung, Engine::Cuda, precision).gemms(inputs)
}

fn is_ours(candidate: &GpuCandidate) -> bool {
    matches!(candidate, GpuCandidate::Ptx { .. })
}
