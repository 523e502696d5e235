//! PyTorch's trajectories reproduced: logits, first gradients, every loss and gradient norm, and
//! the final weights.
//!
//! `tests/fixtures/parity/` holds two runs computed with PyTorch in f32. `TAPER_PARITY_DIR` names
//! another folder to check as well: one run (a folder with `run.json`), or a folder of such folders.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use candle_core::{Device, Tensor};
use common::worst;
use serde::Deserialize;
use taper::config::Gelu;
use taper::memory::Memory;
use taper::model::{Gpt, ParamLayout, Purpose, Recompute, Rung};
use taper::ops::cpu::OnCpu;
use taper::optim::OptimizerSettings;
use taper::plan::ModelDims;
use taper::rng::Seed;
use taper::schedule::Schedule;
use taper::step::{StepSettings, Trainer};

#[derive(Deserialize)]
struct Run {
    config: ModelDims,
    batch_size: usize,
    gradient_accumulation_steps: usize,
    optimizer: Optimizer,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Optimizer {
    learning_rate: f64,
    min_lr: f64,
    warmup_iters: u64,
    lr_decay_iters: u64,
    #[serde(flatten)]
    settings: OptimizerSettings,
}

#[derive(Deserialize)]
struct Step {
    lr: f64,
    loss: f64,
    grad_norm: f64,
}

/// Largest errors, relative to the largest value of a tensor or to the number itself.
#[derive(Clone, Copy)]
struct Allowed {
    logits: f64,
    gradients: f64,
    loss: f64,
    gradient_norm: f64,
    final_weights: f64,
}

/// For the two runs here, about twice what was measured.
const OURS: Allowed = Allowed {
    logits: 1e-6,
    gradients: 2e-6,
    loss: 4e-7,
    gradient_norm: 1e-6,
    final_weights: 4e-5,
};

/// For a run that `TAPER_PARITY_DIR` brings, of whatever size and length.
const ANY: Allowed = Allowed {
    logits: 1e-5,
    gradients: 1e-4,
    loss: 1e-4,
    gradient_norm: 1e-3,
    final_weights: 1e-2,
};

fn folders() -> Vec<(PathBuf, Allowed)> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity");
    let mut found = runs_in(&ours, OURS);
    if let Some(theirs) = std::env::var_os("TAPER_PARITY_DIR") {
        found.extend(runs_in(Path::new(&theirs), ANY));
    }
    found
}

fn runs_in(root: &Path, allowed: Allowed) -> Vec<(PathBuf, Allowed)> {
    if root.join("run.json").exists() {
        return vec![(root.to_owned(), allowed)];
    }
    let entries = std::fs::read_dir(root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    let runs: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("run.json").exists())
        .map(|path| (path, allowed))
        .collect();
    assert!(
        !runs.is_empty(),
        "no run.json in or below {}",
        root.display()
    );
    runs
}

fn load(path: PathBuf) -> BTreeMap<String, Tensor> {
    let tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    tensors.into_iter().collect()
}

/// The tensors of a nanoGPT state dict, flat in taper's order.
fn flat(layout: &ParamLayout, path: PathBuf) -> Vec<f32> {
    let tensors = load(path);
    let of = |param: &taper::model::ParamSpec| {
        let tensor = &tensors[&param.name];
        assert_eq!(tensor.dims(), param.shape, "{}", param.name);
        common::values::<f32>(tensor)
    };
    layout.params.iter().flat_map(of).collect()
}

#[track_caller]
fn assert_within(what: &str, got: &[f32], want: &[f32], tolerance: f64) -> f64 {
    let used = worst(got, want, tolerance);
    assert!(
        used <= 1.0,
        "{what}: {:.0} % of what is allowed",
        used * 100.0
    );
    used
}

/// The key third of the attention bias is left out of final weights: softmax does not see a shift
/// of all its scores, so that gradient is zero but for rounding, which Adam scales up to full steps.
fn visible(param: &taper::model::ParamSpec) -> Vec<std::ops::Range<usize>> {
    let range = param.range();
    if !param.name.ends_with("c_attn.bias") {
        return vec![range];
    }
    let third = param.len / 3;
    vec![
        range.start..range.start + third,
        range.end - third..range.end,
    ]
}

fn assert_params(what: &str, layout: &ParamLayout, got: &[f32], want: &[f32], tolerance: f64) {
    let mut most = 0.0;
    for param in &layout.params {
        let name = format!("{what} of {}", param.name);
        for part in visible(param) {
            let (got, want) = (&got[part.clone()], &want[part]);
            most = f64::max(most, assert_within(&name, got, want, tolerance));
        }
    }
    println!(
        "  {what}: {:.0} % of the allowed {tolerance:e}",
        most * 100.0
    );
}

/// Trains the run in `folder` with micro-batches of `micro_batch` sequences.
fn reproduce(folder: &Path, allowed: Allowed, micro_batch: usize) {
    let text = std::fs::read_to_string(folder.join("run.json")).unwrap();
    let run: Run = serde_json::from_str(&text).unwrap();
    let sequences = run.batch_size * run.gradient_accumulation_steps;
    let settings = StepSettings {
        seed: Seed(0),
        sequences_per_step: sequences,
        optimizer: run.optimizer.settings,
        schedule: Schedule {
            learning_rate: run.optimizer.learning_rate,
            min_lr: run.optimizer.min_lr,
            warmup_iters: run.optimizer.warmup_iters,
            lr_decay_iters: run.optimizer.lr_decay_iters,
            decay_lr: true,
        },
    };
    let rung = Rung {
        micro_batch,
        recompute: Recompute::None,
        logits_rows: 7,
    };
    let memory = Memory::default();
    let backend = OnCpu::<f32>::untuned(2);
    let mut trainer = Trainer::new(&run.config, backend, vec![rung], settings, memory).unwrap();
    let layout = trainer.layout.clone();
    trainer.state.weights = flat(&layout, folder.join("init.safetensors"));
    let t = run.config.block_size;
    let tokens: Vec<u32> = std::fs::read(folder.join("tokens.u16"))
        .unwrap()
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_le_bytes([pair[0], pair[1]])))
        .collect();
    assert_eq!(tokens.len(), run.steps.len() * sequences * (t + 1));

    check_logits(
        (&run.config, &trainer.state.weights),
        folder,
        &tokens[..run.batch_size * (t + 1)],
        allowed,
    );
    let mut worst_loss: f64 = 0.0;
    for (step, want) in run.steps.iter().enumerate() {
        let read = |sample: u32, inputs: &mut [u32], targets: &mut [u32]| {
            let start = (step * sequences + sample as usize) * (t + 1);
            inputs.copy_from_slice(&tokens[start..start + t]);
            targets.copy_from_slice(&tokens[start + 1..start + t + 1]);
            Ok(())
        };
        let got = trainer.step(step as u64, read).unwrap();
        if step == 0 {
            let want = flat(&layout, folder.join("grads0.safetensors"));
            let got = &trainer.state.gradients;
            assert_params("first gradient", &layout, got, &want, allowed.gradients);
        }
        assert!(
            (got.learning_rate - want.lr).abs() <= 1e-12 * want.lr,
            "lr of {step}"
        );
        let loss_error = (got.loss - want.loss).abs() / want.loss;
        assert!(loss_error <= allowed.loss, "loss of {step}: {loss_error:e}");
        let norm_error = (got.gradient_norm - want.grad_norm).abs() / want.grad_norm;
        assert!(
            norm_error <= allowed.gradient_norm,
            "norm of {step}: {norm_error:e}"
        );
        worst_loss = worst_loss.max(loss_error);
    }
    println!("  worst relative error of a loss: {worst_loss:e}");
    let want = flat(&layout, folder.join("final.safetensors"));
    let got = &trainer.state.weights;
    assert_params("final weight", &layout, got, &want, allowed.final_weights);
}

fn check_logits(
    (dims, weights): (&ModelDims, &Vec<f32>),
    folder: &Path,
    tokens: &[u32],
    allowed: Allowed,
) {
    let rung = Rung {
        micro_batch: 1,
        recompute: Recompute::Block,
        logits_rows: 1,
    };
    let backend = Rc::new(OnCpu::untuned(2));
    let memory = &mut Memory::default();
    let mut gpt = Gpt::new(dims, rung, &backend, Purpose::Inference, memory).unwrap();
    let t = dims.block_size;
    let got: Vec<f32> = tokens
        .chunks_exact(t + 1)
        .flat_map(|sample| gpt.logits(weights, &sample[..t], 1))
        .collect();
    let stored = load(folder.join("logits0.safetensors"));
    let want: Vec<f32> = common::values(stored.values().next().unwrap());
    assert_within("logits", &got, &want, allowed.logits);
}

#[test]
fn pytorchs_trajectories_are_reproduced() {
    for (folder, allowed) in folders() {
        println!("{}", folder.display());
        let text = std::fs::read_to_string(folder.join("run.json")).unwrap();
        let run: Run = serde_json::from_str(&text).unwrap();
        // PyTorch's own micro-batch, and both extremes: the experiment is the same at any.
        let whole = run.batch_size * run.gradient_accumulation_steps;
        for micro_batch in [run.batch_size, 1, whole] {
            println!(" micro-batch {micro_batch}");
            reproduce(&folder, allowed, micro_batch);
        }
    }
}

#[test]
fn both_gelus_both_bias_settings_and_accumulation_are_covered() {
    let covered: Vec<(bool, Gelu, usize)> = folders()
        .iter()
        .map(|(folder, _)| {
            let text = std::fs::read_to_string(folder.join("run.json")).unwrap();
            let run: Run = serde_json::from_str(&text).unwrap();
            (
                run.config.bias,
                run.config.gelu,
                run.gradient_accumulation_steps,
            )
        })
        .collect();
    assert!(covered.contains(&(true, Gelu::Erf, 1)));
    assert!(covered.contains(&(false, Gelu::Tanh, 4)));
}
