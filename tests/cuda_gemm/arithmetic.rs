//! Cost of the search of the default plan, by arithmetic.

use std::collections::BTreeSet;
use std::process::Command;

use taper::model::Program;
use taper::ops::gemm::candidate::Device;
use taper::ops::gemm::gpu::{GpuCandidate, GpuGemm};
use taper::ops::gemm::{Problem, TrainingGemm};
use taper::terms::{
    Effort, Engine, Gelu, GemmBackend, Inputs, Job, ModelDims, Precision, Recompute, Rung,
};

use crate::{gpu_with, places};

/// Rates that the arithmetic below takes for an H100, in operations and bytes per second: what good products reach of
/// its 989 TFLOP/s, `mma.sync` at 62 % of that, and device memory.
const LIBRARY_RATE: f64 = 600e12;
const MMA_RATE: f64 = 0.62 * LIBRARY_RATE;
const MEMORY_RATE: f64 = 2.7e12;
/// Launches for verification: once for every fill.
const VERIFIED: f64 = 2.0;
const TIMED: f64 = 7.0;
/// cuBLASLt's algorithms in a full search, of which the virtual library has fewer.
const ALGORITHMS: usize = 12;
/// Seconds for the driver to compile a kernel: ptxas's time, `TAPER_PTXAS_SECONDS` where it was measured.
const PTXAS_SECONDS: f64 = 0.5;

/// Every product of a step of the default plan, once.
fn gemms_of_openwebtext() -> Vec<TrainingGemm> {
    let plan = Command::new(places::taper())
        .args([
            "plan",
            "--config",
            "openwebtext.toml",
            "--device",
            "cuda",
            "--json",
        ])
        .output()
        .unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).unwrap();
    let number = |key: &str| plan["launch"][key].as_u64().unwrap() as usize;
    let dims = ModelDims {
        n_layer: 12,
        n_head: 12,
        n_embd: 768,
        block_size: 1024,
        vocab_size: 50_304,
        bias: false,
        dropout: 0.0,
        gelu: Gelu::Erf,
    };
    let rung = Rung {
        micro_batch: number("micro_batch"),
        recompute: Recompute::None,
        logits_rows: number("logits_rows"),
    };
    let program = Program::of(Job::Train, &dims, rung, Engine::Cuda, Precision::Bfloat16);
    let mut gemms = program.gemms(Inputs::Bfloat16);
    let mut seen = Vec::new();
    gemms.retain(|gemm| {
        !seen.contains(&gemm.problem) && {
            seen.push(gemm.problem);
            true
        }
    });
    gemms
}

/// Rates of the candidates that a full search tries for `problem`; the kernels of ours are added to `kernels`.
fn candidate_rates(gpu: &GpuGemm, problem: &Problem, kernels: &mut BTreeSet<String>) -> Vec<f64> {
    let offers = gpu.offers(problem, Effort::Full).into_iter();
    let tried = offers.filter(|offer| offer.available.is_ok() && !offer.is_spare);
    let mut rates = vec![LIBRARY_RATE; ALGORITHMS];
    for offer in tried {
        if let GpuCandidate::Ptx { tile, .. } = offer.candidate {
            kernels.insert(tile.kernel(problem));
            let is_wgmma = tile.to_string().starts_with("wgmma");
            rates.push(if is_wgmma { LIBRARY_RATE } else { MMA_RATE });
        }
    }
    rates
}

/// Cost of verifying and timing the candidates of one problem.
struct Cost {
    /// Bytes of C filled and compared.
    checked: f64,
    seconds: f64,
}

impl Cost {
    fn new(problem: &Problem, rates: &[f64]) -> Self {
        let product = |rate: &f64| {
            let computed = problem.flops() as f64 / rate;
            computed.max(problem.bytes() as f64 / MEMORY_RATE)
        };
        let products: f64 = rates.iter().map(product).sum();
        let written = (problem.m * problem.n) as f64;
        let c_bytes = written * if problem.accumulate { 4.0 } else { 2.0 };
        // C is filled before every launch, and read with what was kept of it after it.
        let checked = VERIFIED * rates.len() as f64 * 3.0 * c_bytes;
        let seconds = products * (VERIFIED + TIMED) + checked / MEMORY_RATE;
        Self { checked, seconds }
    }
}

/// Seconds to compile a kernel.
fn ptxas_seconds() -> f64 {
    let ptxas = std::env::var("TAPER_PTXAS_SECONDS").ok();
    ptxas
        .and_then(|text| text.parse().ok())
        .unwrap_or(PTXAS_SECONDS)
}

/// The search of the default plan, which no virtual GPU can do in time, by arithmetic:
/// `scripts/vgpu h100 -- cargo test --release --features cuda --test cuda_gemm arithmetic -- --ignored --nocapture`.
#[test]
#[ignore = "prints a table"]
fn arithmetic_of_the_search_of_openwebtext() {
    let Some(gpu) = gpu_with(GemmBackend::Auto, 8 << 20) else {
        return;
    };
    let gemms = gemms_of_openwebtext();
    let (mut kernels, mut seconds, mut bytes) = (BTreeSet::new(), 0.0, 0.0);
    println!(
        "{:<16}{:>12}{:>6}{:>8}{:>9}",
        "problem", "elements", "tried", "GB", "ms"
    );
    for TrainingGemm { name, problem, .. } in &gemms {
        let rates = candidate_rates(&gpu, problem, &mut kernels);
        let cost = Cost::new(problem, &rates);
        println!(
            "{name:<16}{:>12}{:>6}{:>8.1}{:>9.0}",
            problem.m * problem.n,
            rates.len(),
            cost.checked / 1e9,
            cost.seconds * 1e3
        );
        seconds += cost.seconds;
        bytes += cost.checked;
    }
    let compiled = kernels.len() as f64 * ptxas_seconds();
    println!(
        "{} problems: {:.0} GB filled and compared on the GPU, {seconds:.1} s; {} kernels compiled, {compiled:.1} s; {:.1} s in all",
        gemms.len(),
        bytes / 1e9,
        kernels.len(),
        seconds + compiled
    );
    for kernel in kernels {
        println!("kernel: {kernel}");
    }
}
