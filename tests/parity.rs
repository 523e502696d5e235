//! PyTorch's trajectories reproduced: logits, first gradients, every loss and gradient norm, and
//! the final weights.
//!
//! `tests/fixtures/parity/` holds two runs computed with PyTorch in f32. `TAPER_PARITY_DIR` names
//! another folder to check as well: one run (a folder with `run.json`), or a folder of such folders.

mod common;

use std::path::Path;

use common::gpt::Gpt;
use common::parity::{Allowed, Run, load, ours, runs_in};
use common::worst;
use taper::device::{Amx, Avx512Bf16};
use taper::ops::cpu::OnCpu;
use taper::ops::gemm::{Cpu, Products};
use taper::terms::{Gelu, Inputs, Recompute, Rung};

/// For the two runs here, about twice what was measured.
const OURS: Allowed = Allowed {
    gradients: 2e-6,
    loss: 4e-7,
    gradient_norm: 1e-6,
    final_weights: 4e-5,
};
const OUR_LOGITS: f64 = 1e-6;

/// For a run that `TAPER_PARITY_DIR` brings, of whatever size and length.
const ANY: Allowed = Allowed {
    gradients: 1e-4,
    loss: 1e-4,
    gradient_norm: 1e-3,
    final_weights: 1e-2,
};
const ANY_LOGITS: f64 = 1e-5;

fn reproduce(runs: Vec<Run>, allowed: Allowed, logits: f64) {
    for run in runs {
        println!("{}", run.folder.display());
        check_logits(&run, logits);
        // PyTorch's own micro-batch, and both extremes: the experiment is the same at any.
        for micro_batch in [run.batch_size, 1, run.sequences()] {
            let backend = Box::new(OnCpu::<f32>::untuned(2));
            run.reproduce(backend, micro_batch, allowed);
        }
    }
}

/// Of the first micro-batch.
fn check_logits(run: &Run, allowed: f64) {
    let rung = Rung {
        micro_batch: 1,
        recompute: Recompute::Block,
        logits_rows: 1,
    };
    let backend = Box::new(OnCpu::<f32>::untuned(2));
    let (t, weights) = (run.config.block_size, run.flat("init.safetensors"));
    let mut gpt = Gpt::of_logits(&run.config, rung, backend, &weights);
    let got: Vec<f32> = run.tokens()[..run.batch_size * (t + 1)]
        .chunks_exact(t + 1)
        .flat_map(|sample| gpt.logits::<f32>(&sample[..t]))
        .collect();
    let stored = load(run.folder.join("logits0.safetensors"));
    let want: Vec<f32> = common::values(stored.values().next().unwrap());
    let used = worst(&got, &want, allowed);
    assert!(
        used <= 1.0,
        "logits: {:.0} % of what is allowed",
        used * 100.0
    );
}

#[test]
fn pytorchs_trajectories_are_reproduced() {
    reproduce(ours(), OURS, OUR_LOGITS);
    if let Some(theirs) = std::env::var_os("TAPER_PARITY_DIR") {
        reproduce(runs_in(Path::new(&theirs)), ANY, ANY_LOGITS);
    }
}

/// As if plain float32 had multiplied.
#[test]
fn products_in_pieces_reproduce_pytorchs_trajectories_as_float32_does() {
    if Amx::probe().is_none() {
        eprintln!("skipped: this CPU has no AMX");
        return;
    }
    for run in ours() {
        println!("{}", run.folder.display());
        for micro_batch in [run.batch_size, 1, run.sequences()] {
            let cpu = Cpu::with_pieces_from(Inputs::Float32InPieces, 1);
            let backend = Box::new(OnCpu::<f32>::new(2, Products::untuned(cpu)));
            run.reproduce(backend, micro_batch, OURS);
        }
    }
}

/// A rounding to bf16 is off by at most 2^-8 of a value. Allowed is about three times what was measured.
#[test]
fn products_in_bfloat16_follow_pytorchs_float32_within_its_rounding() {
    if Avx512Bf16::probe().is_none() {
        eprintln!("skipped: this CPU does not multiply in bf16");
        return;
    }
    let allowed = Allowed {
        gradients: 3e-2,
        loss: 1.2e-4,
        gradient_norm: 5e-3,
        final_weights: 6e-2,
    };
    for run in ours() {
        println!("{}", run.folder.display());
        for micro_batch in [run.batch_size, 1] {
            let products = Products::untuned(Cpu::new(Inputs::Float32AsBfloat16));
            let backend = Box::new(OnCpu::<f32>::new(2, products));
            run.reproduce(backend, micro_batch, allowed);
        }
    }
}

#[test]
fn both_gelus_both_bias_settings_and_accumulation_are_covered() {
    let covered: Vec<(bool, Gelu, usize)> = ours()
        .iter()
        .map(|run| {
            let (bias, gelu) = (run.config.bias, run.config.gelu);
            (bias, gelu, run.gradient_accumulation_steps)
        })
        .collect();
    assert!(covered.contains(&(true, Gelu::Erf, 1)));
    assert!(covered.contains(&(false, Gelu::Tanh, 4)));
}
