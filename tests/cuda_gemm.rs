//! Products on a GPU: cuBLASLt and our own kernels, verified and timed by the same code as on the CPU, and each a
//! fallback for the other. On the virtual GPU: `scripts/vgpu rtx3060 -- cargo test --release --features cuda --test cuda_gemm`.
#![cfg(feature = "cuda")]

#[path = "common/places.rs"]
mod places;

use std::process::Command;

use taper::device::DeviceProfile;
use taper::ops::gemm::candidate::{Device, Operand};
use taper::ops::gemm::check::{Comparison, Fill, Tolerance};
use taper::ops::gemm::gpu::{GpuCandidate, GpuGemm};
use taper::ops::gemm::tune::{TuneOutcome, tune};
use taper::ops::gemm::{Dispatch, Epilogue, Problem, TrainingGemm};
use taper::terms::{Effort, Gelu, GemmBackend, Inputs, ModelDims, Recompute, Rung};

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
    Problem::of_training(&dims, rung, inputs)
}

fn is_ours(candidate: &GpuCandidate) -> bool {
    matches!(candidate, GpuCandidate::Ptx { .. })
}

#[test]
fn every_product_of_a_step_is_right_by_whatever_computes_it() {
    for inputs in [
        Inputs::Bfloat16,
        Inputs::Float16,
        Inputs::Float32,
        Inputs::Tf32,
    ] {
        let Some(gpu) = gpu(GemmBackend::Auto) else {
            return;
        };
        for TrainingGemm { name, problem, .. } in gemms(inputs, Gelu::Tanh) {
            let tuned = tune(&gpu, &problem, Effort::Limited, None);
            // On a virtual GPU time is up before all are timed.
            let right = |ours: bool| {
                let of_side = tuned.outcomes.iter().filter(|(c, _)| is_ours(c) == ours);
                of_side
                    .filter(|(_, o)| matches!(o, TuneOutcome::Timed { .. } | TuneOutcome::Untimed))
                    .count()
            };
            for (candidate, outcome) in &tuned.outcomes {
                assert!(
                    !matches!(outcome, TuneOutcome::Wrong(_)),
                    "{name} {candidate}: {outcome:?}"
                );
            }
            // Plain fp32 is what our simple kernel alone does.
            let tiles = if inputs == Inputs::Float32 { 1 } else { 3 };
            assert!(
                right(true) >= tiles,
                "{name} {problem}: {:?}",
                tuned.outcomes
            );
            assert!(right(false) >= 2, "{name} {problem}: {:?}", tuned.outcomes);
        }
    }
}

#[test]
fn a_gelu_that_cublaslt_does_not_have_is_applied_afterwards() {
    let Some(gpu) = gpu(GemmBackend::Auto) else {
        return;
    };
    let gemms = gemms(Inputs::Bfloat16, Gelu::Erf).into_iter();
    let with_gelu = gemms.filter(|gemm| matches!(gemm.name, "c_fc" | "mlp.c_proj dX"));
    for TrainingGemm { name, problem, .. } in with_gelu {
        let tuned = tune(&gpu, &problem, Effort::Limited, None);
        let (fallback, outcome) = &tuned.outcomes[0];
        assert!(
            fallback.to_string().ends_with(", then gelu"),
            "{name} {fallback}"
        );
        assert!(
            matches!(outcome, TuneOutcome::Timed { .. }),
            "{name} {outcome:?}"
        );
        let fused = |(c, o): &(GpuCandidate, TuneOutcome)| match o {
            TuneOutcome::Unavailable(because) => {
                let reason = match name {
                    "c_fc" => "before they are rounded",
                    _ => "erf",
                };
                c.to_string() == "cublaslt" && because.0.contains(reason)
            }
            _ => false,
        };
        assert!(
            tuned.outcomes.iter().any(fused),
            "{name} {:?}",
            tuned.outcomes
        );
    }
}

#[test]
fn winners_are_kept_for_this_backend_on_this_gpu() {
    let Some(auto) = gpu(GemmBackend::Auto) else {
        return;
    };
    let ptx = gpu(GemmBackend::Ptx).unwrap();
    let profile = DeviceProfile::gpu(0).unwrap();
    let (mut auto, mut ptx) = (auto.header(&profile), ptx.header(&profile));
    assert_eq!(auto["device"], profile.name);
    assert_eq!(
        [auto.remove("backend"), ptx.remove("backend")].map(Option::unwrap),
        ["auto", "ptx"]
    );
    assert_eq!(auto, ptx);
}

#[test]
fn only_the_backend_that_was_asked_for_is_searched() {
    let problem = gemms(Inputs::Bfloat16, Gelu::Tanh)[0].problem;
    let Some(ptx) = gpu(GemmBackend::Ptx) else {
        return;
    };
    let offers = ptx.offers(&problem, Effort::Full);
    assert!(offers.len() > 4 && offers.iter().all(|offer| is_ours(&offer.candidate)));
    let cublaslt = gpu(GemmBackend::Cublaslt).unwrap();
    let offers = cublaslt.offers(&problem, Effort::Full);
    // The last resort stays.
    let ours = offers.iter().filter(|offer| is_ours(&offer.candidate));
    assert_eq!(ours.count(), 1);
    assert!(!is_ours(&offers[0].candidate));
}

/// Two matrices of these sizes, the second one kept, and where they differ by more than the tolerance allows.
fn compared(
    gpu: &GpuGemm,
    problem: &Problem,
    fills: [Fill; 2],
    tolerance: &Tolerance,
) -> Comparison {
    let mut trial = gpu.trial(&[*problem]).unwrap();
    let [got, want] = fills;
    gpu.fill(&mut trial, problem, Operand::C, want).unwrap();
    gpu.keep(&mut trial, problem).unwrap();
    gpu.fill(&mut trial, problem, Operand::C, got).unwrap();
    gpu.compare(&mut trial, problem, Operand::C, tolerance)
        .unwrap()
}

#[test]
fn operands_are_filled_and_results_compared_on_the_gpu_as_on_the_host() {
    let Some(gpu) = gpu(GemmBackend::Auto) else {
        return;
    };
    for inputs in [Inputs::Bfloat16, Inputs::Float16, Inputs::Tf32] {
        // One element, a few beside whole vectors, and in fp32 more than the blocks of a launch take at once.
        let large = match inputs {
            Inputs::Tf32 => (1100, 1024),
            _ => (1100, 64),
        };
        for (m, n) in [(1, 1), (37, 19), large] {
            let problem = Problem::forward(m, n, 24, inputs, Epilogue::Bias);
            let mut trial = gpu.trial(&[problem]).unwrap();
            let of_host = |fill: Fill, operand, index| fill.value(operand, index, inputs);
            for fill in [Fill::Integers, Fill::Random] {
                for (operand, elements) in [
                    (Operand::A, m * 24),
                    (Operand::Bias, n),
                    (Operand::C, m * n),
                ] {
                    gpu.fill(&mut trial, &problem, operand, fill).unwrap();
                    let indices: Vec<usize> = (0..64).map(|i| i * (elements - 1) / 63).collect();
                    let read = gpu.read(&mut trial, &problem, operand, &indices).unwrap();
                    let wanted = indices.iter().map(|index| of_host(fill, operand, *index));
                    assert_eq!(
                        read,
                        wanted.collect::<Vec<_>>(),
                        "{inputs} {operand:?} {fill:?}"
                    );
                }
            }
            for (fills, absolute) in [
                ([Fill::Random, Fill::Integers], 0.75),
                ([Fill::Random, Fill::Integers], 10.0),
                ([Fill::Integers, Fill::Integers], 0.0),
            ] {
                let tolerance = Tolerance {
                    absolute,
                    ..Tolerance::default()
                };
                let elements = (0..m * n).map(|index| {
                    let [got, want] = fills.map(|fill| of_host(fill, Operand::C, index));
                    Comparison::of(index, got, want, &tolerance)
                });
                let wanted = elements.fold(Comparison::default(), Comparison::and);
                let found = compared(&gpu, &problem, fills, &tolerance);
                assert_eq!(found, wanted, "{inputs} {m} x {n} {absolute}");
                if m > 1 {
                    assert_eq!(wanted.first.is_some(), absolute == 0.75);
                }
            }
        }
    }
}

/// What [`algorithms_have_the_same_names_in_every_process`] starts.
#[test]
#[ignore = "prints the names of this process"]
fn names_of_this_process() {
    let gpu = gpu(GemmBackend::Auto).unwrap();
    for TrainingGemm { problem, .. } in gemms(Inputs::Bfloat16, Gelu::Tanh) {
        let offers = gpu.offers(&problem, Effort::Full).into_iter();
        let names: Vec<String> = offers.map(|offer| offer.candidate.to_string()).collect();
        println!("names: {}", names.join("; "));
    }
}

#[test]
fn algorithms_have_the_same_names_in_every_process() {
    if gpu(GemmBackend::Auto).is_none() {
        return;
    }
    let names = || {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "names_of_this_process",
                "--ignored",
                "--nocapture",
            ])
            .output()
            .unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let lines = stdout.lines().filter(|line| line.starts_with("names: "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let (first, second) = (names(), names());
    assert!(
        first.len() > 10 && first[0].matches("cublaslt #").count() > 1,
        "{first:?}"
    );
    assert_eq!(first, second);
}

#[test]
fn cublaslt_adds_no_slices_of_k_in_less_than_fp32() {
    let Some(gpu) = gpu(GemmBackend::Cublaslt) else {
        return;
    };
    // Long sums, whose slices would lose bits.
    let problem = Problem::forward(64, 64, 4096, Inputs::Bfloat16, Epilogue::None);
    let tuned = tune(&gpu, &problem, Effort::Full, None);
    for (candidate, outcome) in tuned.outcomes.iter().filter(|(c, _)| !is_ours(c)) {
        let wrong = matches!(outcome, TuneOutcome::Wrong(_) | TuneOutcome::Unavailable(_));
        assert!(!wrong, "{candidate}: {outcome:?}");
    }
}

#[test]
fn a_lack_of_memory_while_tuning_leaves_the_fallback() {
    let Some(gpu) = gpu(GemmBackend::Auto) else {
        return;
    };
    let problem = gemms(Inputs::Bfloat16, Gelu::Tanh)[0].problem;
    let tuned = tune(&gpu, &problem, Effort::Full, Some(1000));
    assert_eq!(tuned.chosen, 0);
    assert!(
        tuned.because.contains("tuning it takes"),
        "{}",
        tuned.because
    );
}

/// Runs in a process of its own, on a card that [`a_launch_that_fails_is_taken_over_and_the_run_goes_on`] chose.
#[test]
#[ignore = "needs a card whose cuBLASLt fails"]
fn run_where_cublaslt_fails() {
    let device = taper::device::open(0).unwrap();
    let open = || {
        let workspace = device.cuda_stream().alloc_zeros(WORKSPACE_ELEMENTS);
        GpuGemm::new(&device, GemmBackend::Auto, workspace.unwrap()).unwrap()
    };
    let (gpu, dispatch) = (open(), Dispatch::untuned(open()));
    let problem = gemms(Inputs::Bfloat16, Gelu::Tanh)[0].problem;
    let mut trial = gpu.trial(&[problem]).unwrap();
    for operand in [Operand::A, Operand::B, Operand::Bias] {
        gpu.fill(&mut trial, &problem, operand, Fill::Integers)
            .unwrap();
    }
    for _ in 0..3 {
        let mut operands = gpu.operands(&mut trial, &problem);
        dispatch.run(&problem, &mut operands).unwrap();
    }
    let (n, k) = (problem.n, problem.k);
    let indices = [0, 1, n - 1, n, problem.m * n - 1];
    let c = gpu
        .read(&mut trial, &problem, Operand::C, &indices)
        .unwrap();
    for (index, value) in indices.into_iter().zip(c) {
        let at = |operand, index| Fill::Integers.value(operand, index, problem.inputs);
        let (row, column) = (index / n, index % n);
        let products = (0..k)
            .map(|depth| at(Operand::A, row * k + depth) * at(Operand::B, column * k + depth));
        assert_eq!(value, products.sum::<f32>() + at(Operand::Bias, column));
    }
    let choices = dispatch.take_choices();
    assert_eq!(choices.len(), 1, "{choices:?}");
    assert_eq!(choices[0].value, "ptx simple");
    assert!(
        choices[0]
            .because
            .contains("failed: cuBLASLt did not multiply"),
        "{choices:?}"
    );
}

#[test]
fn a_launch_that_fails_is_taken_over_and_the_run_goes_on() {
    if std::env::var_os("VGPU_CARD").is_none() {
        eprintln!("skipped: this test chooses its card, use scripts/vgpu");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let card = folder.path().join("card.toml");
    std::fs::write(&card, "like = \"rtx3060\"\nfail = [\"cublasLtMatmul\"]\n").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "run_where_cublaslt_fails", "--ignored"])
        .env("VGPU_CARD", card)
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("1 passed"), "{stdout}");
}

/// `taper bench gemm` on a virtual card with these failures planned: by product, what was chosen and why
/// others were not; nothing where there is no virtual GPU.
fn bench(failures: &str) -> Option<serde_json::Value> {
    if std::env::var_os("VGPU_CARD").is_none() {
        eprintln!("skipped: this test chooses its card, use scripts/vgpu");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let card = folder.path().join("card.toml");
    std::fs::write(&card, format!("like = \"rtx3060\"\nfail = [{failures}]\n")).unwrap();
    let output = Command::new(places::taper())
        .args([
            "bench", "gemm", "--device", "cuda", "--json", "--square", "64",
        ])
        .args([
            "--set",
            "model.n_embd=64",
            "--set",
            "model.n_head=2",
            "--set",
            "model.block_size=32",
        ])
        .args([
            "--set",
            "train.sequences_per_step=2",
            "--set",
            "gemm.autotune=limited",
        ])
        .env("VGPU_CARD", card)
        .env("XDG_CACHE_HOME", folder.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// (name, why not) of the candidates of cuBLASLt, of all products.
fn cublaslt(report: &serde_json::Value) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    for problem in report["problems"].as_array().unwrap() {
        let candidates = problem["candidates"].as_array().unwrap();
        let chosen: Vec<_> = candidates.iter().filter(|c| c["chosen"] == true).collect();
        assert_eq!(chosen.len(), 1, "{problem}");
        for candidate in candidates
            .iter()
            .filter(|c| text(&c["name"]).starts_with("cublaslt"))
        {
            assert!(
                candidate["chosen"] == false || candidate["seconds"].is_number(),
                "{candidate}"
            );
            found.push((text(&candidate["name"]), text(&candidate["because"])));
        }
    }
    found
}

#[test]
fn a_library_that_does_not_start_leaves_everything_to_our_kernels() {
    let Some(report) = bench("\"cublasLtCreate\"") else {
        return;
    };
    for (name, because) in cublaslt(&report) {
        assert_eq!(name, "cublaslt");
        assert!(because.contains("cuBLASLt does not start"), "{because}");
    }
}

#[test]
fn a_heuristic_without_an_answer_leaves_everything_to_our_kernels() {
    let Some(report) = bench("\"cublasLtMatmulAlgoGetHeuristic\"") else {
        return;
    };
    for (name, because) in cublaslt(&report) {
        assert_eq!(name, "cublaslt");
        assert!(because.contains("cuBLASLt has no algorithm"), "{because}");
    }
}

#[test]
fn a_product_that_fails_or_is_wrong_is_never_chosen() {
    for (failure, word) in [
        (
            "\"cublasLtMatmul\"",
            "unavailable: cuBLASLt did not multiply",
        ),
        ("\"cublasLtMatmul.wrong\"", "wrong: "),
    ] {
        let Some(report) = bench(failure) else { return };
        let found = cublaslt(&report);
        assert!(found.len() > 10);
        for (name, because) in found {
            assert!(because.contains(word), "{name}: {because}");
        }
    }
}

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
/// For the driver to compile a kernel: ptxas's time, `TAPER_PTXAS_SECONDS` where it was measured.
const PTXAS_SECONDS: f64 = 0.5;

/// The search of the default plan, which no virtual GPU can do in time, by arithmetic:
/// `scripts/vgpu h100 -- cargo test --release --features cuda --test cuda_gemm arithmetic -- --ignored --nocapture`.
#[test]
#[ignore = "prints a table"]
fn arithmetic_of_the_search_of_openwebtext() {
    let Some(gpu) = gpu_with(GemmBackend::Auto, 8 << 20) else {
        return;
    };
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
    let mut gemms = Problem::of_training(&dims, rung, Inputs::Bfloat16);
    let mut seen = Vec::new();
    gemms.retain(|gemm| {
        !seen.contains(&gemm.problem) && {
            seen.push(gemm.problem);
            true
        }
    });
    let (mut kernels, mut seconds, mut bytes) = (std::collections::BTreeSet::new(), 0.0, 0.0);
    println!(
        "{:<16}{:>12}{:>6}{:>8}{:>9}",
        "problem", "elements", "tried", "GB", "ms"
    );
    for TrainingGemm { name, problem, .. } in &gemms {
        let written = (problem.m * problem.n) as f64;
        let c_bytes = written * if problem.accumulate { 4.0 } else { 2.0 };
        let offers = gpu.offers(problem, Effort::Full).into_iter();
        let tried = offers.filter(|offer| offer.available.is_ok() && !offer.is_spare);
        let mut rates = vec![LIBRARY_RATE; ALGORITHMS];
        for offer in tried {
            if let GpuCandidate::Ptx { tile, .. } = offer.candidate {
                kernels.insert(tile.kernel(problem));
                rates.push(match tile.to_string().starts_with("wgmma") {
                    true => LIBRARY_RATE,
                    false => MMA_RATE,
                });
            }
        }
        let product = |rate: &f64| {
            let computed = problem.flops() as f64 / rate;
            computed.max(problem.bytes() as f64 / MEMORY_RATE)
        };
        let products: f64 = rates.iter().map(product).sum();
        // C is filled before every launch, and read with what was kept of it after it.
        let checked = VERIFIED * rates.len() as f64 * 3.0 * c_bytes;
        let here = products * (VERIFIED + TIMED) + checked / MEMORY_RATE;
        let (count, gigabytes) = (rates.len(), checked / 1e9);
        println!(
            "{name:<16}{written:>12}{count:>6}{gigabytes:>8.1}{:>9.0}",
            here * 1e3
        );
        seconds += here;
        bytes += checked;
    }
    let ptxas = std::env::var("TAPER_PTXAS_SECONDS").ok();
    let ptxas = ptxas
        .and_then(|text| text.parse().ok())
        .unwrap_or(PTXAS_SECONDS);
    let compiled = kernels.len() as f64 * ptxas;
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
