//! The search on a GPU: which candidates are offered, under which names, and which are right.

use std::process::Command;

use taper::device::DeviceProfile;
use taper::ops::gemm::candidate::Device;
use taper::ops::gemm::gpu::GpuCandidate;
use taper::ops::gemm::tune::{TuneOutcome, tune};
use taper::ops::gemm::{Epilogue, Problem, TrainingGemm};
use taper::terms::{Effort, Gelu, GemmBackend, Inputs};

use crate::{gemms, gpu, is_ours};

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
    let with_gelu = gemms.filter(|gemm| matches!(&*gemm.name, "c_fc" | "mlp.c_proj dX"));
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
                let reason = match &*name {
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

/// Runs in processes that [`algorithms_have_the_same_names_in_every_process`] starts.
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
                "search::names_of_this_process",
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
