//! Failures of cuBLASLt, planted on a virtual card: our kernels take over.

use std::process::Command;

use taper::ops::gemm::Dispatch;
use taper::ops::gemm::candidate::{Device, Operand};
use taper::ops::gemm::check::Fill;
use taper::ops::gemm::gpu::GpuGemm;
use taper::terms::{Gelu, GemmBackend, Inputs};

use crate::{WORKSPACE_ELEMENTS, gemms, places};

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
        .args(["--exact", "failures::run_where_cublaslt_fails", "--ignored"])
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
        ("\"cublasLtMatmul.wrong\"", "refused by the check"),
    ] {
        let Some(report) = bench(failure) else { return };
        let found = cublaslt(&report);
        assert!(found.len() > 10);
        for (name, because) in found {
            assert!(because.contains(word), "{name}: {because}");
        }
    }
}
