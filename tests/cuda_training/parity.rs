//! The runs computed with PyTorch in f32, trained on a GPU.

use half::{bf16, f16};
use taper::ops::launch::{Gpu, GpuElement};
use taper::terms::Precision;

use crate::common::parity::{Allowed, ours};
use crate::{backend, open};

fn reproduce<T: GpuElement>(allowed: Allowed, cuda_graph: bool) {
    let Some(device) = open() else {
        return;
    };
    let has = Gpu::new(&device).unwrap().limits().compute_capability;
    if T::PRECISION == Precision::Bfloat16 && has < (8, 0) {
        eprintln!("skipped, for this GPU has no bf16");
        return;
    }
    for run in ours() {
        println!("{}", run.folder.display());
        for micro_batch in [run.batch_size, run.sequences()] {
            run.reproduce(backend::<T>(&device, cuda_graph), micro_batch, allowed);
        }
    }
}

#[test]
fn float32_follows_pytorch() {
    let allowed = Allowed {
        gradients: 2e-6,
        loss: 4e-7,
        gradient_norm: 1e-6,
        final_weights: 4e-5,
    };
    reproduce::<f32>(allowed, true);
}

/// A rounding to bf16 is off by at most 2^-8 of a value. Allowed is about three times what was measured.
#[test]
fn bfloat16_follows_pytorchs_float32_within_its_rounding() {
    let allowed = Allowed {
        gradients: 3e-2,
        loss: 1.2e-4,
        gradient_norm: 5e-3,
        final_weights: 6e-2,
    };
    reproduce::<bf16>(allowed, false);
}

/// A rounding to f16 is off by at most 2^-12 of a value. The loss is scaled.
#[test]
fn float16_follows_pytorchs_float32_within_its_rounding() {
    let allowed = Allowed {
        gradients: 5e-3,
        loss: 1.5e-5,
        gradient_norm: 6e-4,
        final_weights: 3e-2,
    };
    reproduce::<f16>(allowed, false);
}
