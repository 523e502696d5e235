//! What is timed of a training step on a GPU, by its own clock. Times on the virtual card mean nothing: only
//! what is told, and that it is told of everything.
#![cfg(feature = "cuda")]

#[path = "common/mod.rs"]
mod common;
#[allow(dead_code)]
mod process;

use candle_core::CudaDevice;
use common::parity::{Run, all, ours};
use half::bf16;
use serde_json::Value;
use taper::device::DeviceProfile;
use taper::memory::Memory;
use taper::ops::backend::{Backend, OpKind};
use taper::ops::cuda::OnGpu;
use taper::ops::gemm::{Dispatch, gpu};
use taper::step::Trainer;
use taper::terms::{GemmBackend, Inputs, Recompute, Rung};

/// The GPU as a run has it, or nothing where there is none. On the virtual card there is one.
fn open() -> Option<CudaDevice> {
    match taper::device::open(0) {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("VGPU_CARD").is_none() => {
            eprintln!("skipped, for there is no GPU ({error}): use scripts/vgpu");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Micro-steps are recorded as graphs.
fn backend(device: &CudaDevice) -> Box<dyn Backend> {
    let profile = DeviceProfile::gpu(0).unwrap();
    let products = gpu::GpuGemm::on(device, &profile, GemmBackend::Auto).unwrap();
    let (products, inputs) = (Dispatch::untuned(products), Inputs::Bfloat16);
    Box::new(OnGpu::<bf16>::new(device, products, inputs, true).unwrap())
}

/// What may be compared after every step: loss, gradient norm, weights and a moment.
fn step(trainer: &mut Trainer, run: &Run, step: usize) -> (f64, f64, Vec<f32>, Vec<f32>) {
    let (tokens, t) = (run.tokens(), run.config.block_size);
    let read = |sample: u32, inputs: &mut [u32], targets: &mut [u32]| {
        let start = (step * run.sequences() + sample as usize) * (t + 1);
        inputs.copy_from_slice(&tokens[start..start + t]);
        targets.copy_from_slice(&tokens[start + 1..start + t + 1]);
        Ok::<_, taper::memory::AllocationError>(())
    };
    let outcome = trainer.step(step as u64, read).unwrap();
    let [weights, _, v] = trainer.values().map(|values| all(&*values));
    (outcome.loss, outcome.gradient_norm, weights, v)
}

#[test]
fn timing_changes_no_bit_and_recordings_go_on_after_it() {
    let Some(device) = open() else {
        return;
    };
    let run = &ours()[0];
    let rung = Rung {
        micro_batch: run.batch_size,
        recompute: Recompute::None,
        logits_rows: 7,
    };
    let mut plain = run.trainer(backend(&device), rung, Memory::default());
    let mut timed = run.trainer(backend(&device), rung, Memory::default());
    for index in 0..6 {
        // Recorded in the second step; off, on, and off again.
        let on = (3..5).contains(&index);
        if on {
            timed.executor().start_clock();
        }
        let expected = step(&mut plain, run, index);
        assert_eq!(step(&mut timed, run, index), expected, "step {index}");
        let laps = timed.executor().stop_clock().unwrap();
        assert_eq!(!laps.is_empty(), on);
        for lap in &laps {
            assert!(lap.seconds.is_finite() && lap.seconds >= 0.0, "{lap:?}");
        }
        if on {
            let micro_steps = run.sequences() / run.batch_size;
            let calls = |kind| laps.iter().filter(|lap| lap.kind == kind).count();
            assert_eq!(calls(OpKind::Attention), micro_steps * run.config.n_layer);
            assert_eq!(calls(OpKind::Update), 1);
        }
    }
}

const SMALL: &str = "model.n_layer=1 model.n_head=1 model.n_embd=64 model.block_size=16 \
    model.dropout=0.1 model.bias=true train.sequences_per_step=2 train.batch_size=1 gemm.autotune=off";

fn bench(words: &str) -> process::Outcome {
    let folder = tempfile::tempdir().unwrap();
    let mut arguments = vec!["bench", "step", "--square", "32", "--steps", "2"];
    for setting in SMALL.split_whitespace() {
        arguments.extend(["--set", setting]);
    }
    arguments.extend(words.split_whitespace());
    process::taper(folder.path(), &arguments)
}

#[test]
fn a_step_is_measured_against_the_card() {
    if open().is_none() {
        return;
    }
    let outcome = bench("--device cuda --json").succeeded();
    assert_eq!((outcome.stdout.lines().count(), &*outcome.stderr), (1, ""));
    let object: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(object["device"]["hardware"]["kind"], "cuda");
    assert_eq!(object["gradient_accumulation_steps"], 2);
    let figure = |key: &str| {
        let figure = object[key].as_f64();
        figure.unwrap_or_else(|| panic!("{key} in {object}"))
    };
    let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-9, "{a} {b}");
    let achieved = 100.0 * figure("model_flops_per_second");
    for (share, whole) in [
        ("model_flops_of_peak_percent", "peak_flops_per_second"),
        ("model_flops_of_ceiling_percent", "ceiling_flops_per_second"),
    ] {
        near(figure(share) * figure(whole), achieved);
    }
    assert!(figure("used_bytes") > 0.0);
    let parts = object["parts"].as_array().unwrap();
    let seconds = parts.iter().map(|part| part["seconds"].as_f64().unwrap());
    near(
        seconds.sum::<f64>() + figure("other_seconds"),
        figure("taken_apart_step_seconds"),
    );
    let bandwidth = object["device"]["hardware"]["memory_bytes_per_second"].as_f64();
    let update = parts.iter().find(|part| part["name"] == "update").unwrap();
    near(
        update["of_memory_bandwidth_percent"].as_f64().unwrap() * bandwidth.unwrap(),
        100.0 * update["bytes_per_second"].as_f64().unwrap(),
    );
}

#[test]
fn text_has_the_datasheet_and_the_ceiling() {
    if open().is_none() {
        return;
    }
    let text = bench("--device cuda:0 --set system.cuda_graph=on")
        .succeeded()
        .stdout;
    for words in [
        ", recorded as CUDA graphs\n",
        ", the datasheet's\n",
        ", the ceiling: a large square product in this run\n",
        " of the card in use more than before, ",
        " % of the datasheet\n",
    ] {
        assert!(text.contains(words), "no `{words}` in {text}");
    }
}

#[test]
fn a_gpu_that_is_not_there_is_refused() {
    if open().is_none() {
        return;
    }
    bench("--device cuda:7").refused(&["no GPU 7"]);
}
