//! Products on a GPU: cuBLASLt and our own kernels, verified and timed by the same code as on the CPU, and each a
//! fallback for the other. On the virtual GPU: `scripts/vgpu rtx3060 -- cargo test --release --features cuda --test cuda_gemm`.
#![cfg(feature = "cuda")]

use std::process::Command;

use taper::config::{BackendRequest, Gelu};
use taper::device::DeviceProfile;
use taper::model::{Recompute, Rung};
use taper::ops::gemm::candidate::{Device, Effort, Operand};
use taper::ops::gemm::gpu::{Candidate, Gpu};
use taper::ops::gemm::tune::{Outcome, tune};
use taper::ops::gemm::{Dispatch, Inputs, Problem};
use taper::plan::ModelDims;

const WORKSPACE_ELEMENTS: usize = 1 << 20;

/// The GPU, or nothing where there is none.
fn gpu(backend: BackendRequest) -> Option<Gpu> {
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
        .alloc_zeros(WORKSPACE_ELEMENTS)
        .unwrap();
    Some(Gpu::new(&device, backend, workspace).unwrap())
}

/// Every product of a small model's step.
fn problems(inputs: Inputs, gelu: Gelu) -> Vec<(&'static str, Problem)> {
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

fn is_ours(candidate: &Candidate) -> bool {
    matches!(candidate, Candidate::Ptx { .. })
}

#[test]
fn every_product_of_a_step_is_right_by_whatever_computes_it() {
    for inputs in [
        Inputs::Bfloat16,
        Inputs::Float16,
        Inputs::Float32,
        Inputs::Tf32,
    ] {
        let Some(gpu) = gpu(BackendRequest::Auto) else {
            return;
        };
        for (name, problem) in problems(inputs, Gelu::Tanh) {
            let tuned = tune(&gpu, &problem, Effort::Limited, None);
            // On a virtual GPU time is up before all are timed.
            let right = |ours: bool| {
                let of_side = tuned.outcomes.iter().filter(|(c, _)| is_ours(c) == ours);
                of_side
                    .filter(|(_, o)| matches!(o, Outcome::Timed { .. } | Outcome::Untimed))
                    .count()
            };
            for (candidate, outcome) in &tuned.outcomes {
                assert!(
                    !matches!(outcome, Outcome::Wrong(_)),
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
    let Some(gpu) = gpu(BackendRequest::Auto) else {
        return;
    };
    let problems = problems(Inputs::Bfloat16, Gelu::Erf).into_iter();
    let with_gelu = problems.filter(|(name, _)| matches!(*name, "c_fc" | "mlp.c_proj dX"));
    for (name, problem) in with_gelu {
        let tuned = tune(&gpu, &problem, Effort::Limited, None);
        let (fallback, outcome) = &tuned.outcomes[0];
        assert!(
            fallback.to_string().ends_with(", then gelu"),
            "{name} {fallback}"
        );
        assert!(
            matches!(outcome, Outcome::Timed { .. }),
            "{name} {outcome:?}"
        );
        let fused = |(c, o): &(Candidate, Outcome)| match o {
            Outcome::Unavailable(because) => {
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
    let Some(auto) = gpu(BackendRequest::Auto) else {
        return;
    };
    let ptx = gpu(BackendRequest::Ptx).unwrap();
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
    let problem = problems(Inputs::Bfloat16, Gelu::Tanh)[0].1;
    let Some(ptx) = gpu(BackendRequest::Ptx) else {
        return;
    };
    let offers = ptx.offers(&problem, Effort::Full);
    assert!(offers.len() > 4 && offers.iter().all(|offer| is_ours(&offer.candidate)));
    let cublaslt = gpu(BackendRequest::Cublaslt).unwrap();
    let offers = cublaslt.offers(&problem, Effort::Full);
    // The last resort stays.
    let ours = offers.iter().filter(|offer| is_ours(&offer.candidate));
    assert_eq!(ours.count(), 1);
    assert!(!is_ours(&offers[0].candidate));
}

#[test]
fn a_lack_of_memory_while_tuning_leaves_the_fallback() {
    let Some(gpu) = gpu(BackendRequest::Auto) else {
        return;
    };
    let problem = problems(Inputs::Bfloat16, Gelu::Tanh)[0].1;
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
        Gpu::new(&device, BackendRequest::Auto, workspace.unwrap()).unwrap()
    };
    let (gpu, dispatch) = (open(), Dispatch::untuned(open()));
    let problem = problems(Inputs::Bfloat16, Gelu::Tanh)[0].1;
    let mut trial = gpu.trial(&[problem]).unwrap();
    let ones = |_| 1.0;
    for operand in [Operand::A, Operand::B, Operand::Bias] {
        gpu.write(&mut trial, &problem, operand, &ones).unwrap();
    }
    for _ in 0..3 {
        let mut operands = gpu.operands(&mut trial, &problem);
        dispatch.run(&problem, &mut operands).unwrap();
    }
    let mut c = Vec::new();
    gpu.read(&trial, &problem, Operand::C, &mut c).unwrap();
    assert!(c.iter().all(|value| *value == problem.k as f32 + 1.0));
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
    let output = Command::new(env!("CARGO_BIN_EXE_taper"))
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
