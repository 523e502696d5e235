//! Runs computed with PyTorch, and how closely a backend follows them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::places;
use candle_core::{Device, Tensor};
use serde::Deserialize;
use taper::memory::{AllocationError, Memory};
use taper::model::{ParamLayout, ParamSpec};
use taper::ops::backend::{Backend, CHUNK, OptimizerSettings, Values, ValuesMut};
use taper::outliers::SkipSettings;
use taper::rng::Seed;
use taper::schedule::{LrSchedule, Schedule};
use taper::step::{StepSettings, Trainer};
use taper::terms::{ModelDims, Recompute, Rung};

use super::worst;

/// `run.json` of a run.
#[derive(Deserialize)]
pub struct Run {
    #[serde(skip)]
    pub folder: PathBuf,
    pub config: ModelDims,
    pub batch_size: usize,
    pub gradient_accumulation_steps: usize,
    optimizer: Optimizer,
    pub steps: Vec<Step>,
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
pub struct Step {
    pub lr: f64,
    pub loss: f64,
    pub grad_norm: f64,
}

/// Largest errors, relative to the largest value of a tensor or to the number itself.
#[derive(Clone, Copy)]
pub struct Allowed {
    pub gradients: f64,
    pub loss: f64,
    pub gradient_norm: f64,
    pub final_weights: f64,
}

/// The runs of this repository.
pub fn ours() -> Vec<Run> {
    runs_in(&places::fixtures().join("parity"))
}

/// The run in a folder, or those in its folders.
pub fn runs_in(root: &Path) -> Vec<Run> {
    if root.join("run.json").exists() {
        return vec![Run::load(root)];
    }
    let entries = std::fs::read_dir(root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    let folders = entries.map(|entry| entry.unwrap().path());
    let runs: Vec<Run> = folders
        .filter(|folder| folder.join("run.json").exists())
        .map(|folder| Run::load(&folder))
        .collect();
    assert!(
        !runs.is_empty(),
        "no run.json in or below {}",
        root.display()
    );
    runs
}

pub fn load(path: PathBuf) -> BTreeMap<String, Tensor> {
    let tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    tensors.into_iter().collect()
}

/// All of them, on the host.
pub fn all(values: &dyn Values) -> Vec<f32> {
    let mut all = vec![0.0; values.len()];
    for (index, chunk) in all.chunks_mut(CHUNK).enumerate() {
        values.read(index * CHUNK, chunk).unwrap();
    }
    all
}

pub fn write_all(values: &mut dyn ValuesMut, from: &[f32]) {
    for (index, chunk) in from.chunks(CHUNK).enumerate() {
        values.write(index * CHUNK, chunk).unwrap();
    }
}

impl Run {
    fn load(folder: &Path) -> Self {
        let text = std::fs::read_to_string(folder.join("run.json")).unwrap();
        let run: Run = serde_json::from_str(&text).unwrap();
        Run {
            folder: folder.to_owned(),
            ..run
        }
    }

    pub fn sequences(&self) -> usize {
        self.batch_size * self.gradient_accumulation_steps
    }

    pub fn tokens(&self) -> Vec<u32> {
        let bytes = std::fs::read(self.folder.join("tokens.u16")).unwrap();
        let (pairs, _) = bytes.as_chunks::<2>();
        let ids = pairs.iter().map(|&pair| u16::from_le_bytes(pair).into());
        let ids: Vec<u32> = ids.collect();
        let per_sample = self.config.block_size + 1;
        assert_eq!(ids.len(), self.steps.len() * self.sequences() * per_sample);
        ids
    }

    /// The tensors of a nanoGPT state dict, flat in taper's order.
    pub fn flat(&self, file: &str) -> Vec<f32> {
        let tensors = load(self.folder.join(file));
        let of = |param: &ParamSpec| {
            let tensor = &tensors[&param.name];
            assert_eq!(tensor.dims(), param.shape, "{}", param.name);
            super::values::<f32>(tensor)
        };
        let layout = ParamLayout::new(&self.config);
        layout.params.iter().flat_map(of).collect()
    }

    /// A trainer with the run's initial weights.
    pub fn trainer(&self, backend: Box<dyn Backend>, rung: Rung, memory: Memory) -> Trainer {
        let settings = StepSettings {
            seed: Seed(0),
            sequences_per_step: self.sequences(),
            optimizer: self.optimizer.settings,
            schedule: Schedule {
                lr_schedule: LrSchedule::Cosine,
                learning_rate: self.optimizer.learning_rate,
                min_lr: self.optimizer.min_lr,
                warmup_iters: self.optimizer.warmup_iters,
                lr_decay_iters: self.optimizer.lr_decay_iters,
                warmdown_iters: 0,
            },
            skip: SkipSettings::default(),
        };
        let mut trainer =
            Trainer::new(&self.config, backend, vec![rung], settings, memory).unwrap();
        let init = self.flat("init.safetensors");
        let fill = |[weights, _, _]: [&mut dyn ValuesMut; 3], _: &taper::memory::Memory| {
            write_all(weights, &init);
            Ok::<_, AllocationError>(())
        };
        trainer.load(fill).unwrap();
        trainer
    }

    /// Trains it with micro-batches of `micro_batch` sequences, and compares everything.
    pub fn reproduce(&self, backend: Box<dyn Backend>, micro_batch: usize, allowed: Allowed) {
        println!(" micro-batch {micro_batch}");
        let rung = Rung {
            micro_batch,
            recompute: Recompute::None,
            logits_rows: 7,
        };
        let mut trainer = self.trainer(backend, rung, Memory::default());
        let (tokens, t) = (self.tokens(), self.config.block_size);
        let mut most = [0f64; 2];
        for (step, want) in self.steps.iter().enumerate() {
            let read = |sample: u32, inputs: &mut [u32], targets: &mut [u32]| {
                let start = (step * self.sequences() + sample as usize) * (t + 1);
                inputs.copy_from_slice(&tokens[start..start + t]);
                targets.copy_from_slice(&tokens[start + 1..start + t + 1]);
                Ok::<_, AllocationError>(())
            };
            let got = trainer.step(step as u64, read).unwrap();
            if step == 0 {
                let scale = trainer.loss_scale.value() as f32;
                let got = all(&*trainer.gradients());
                let got: Vec<f32> = got.iter().map(|x| x / scale).collect();
                let want = self.flat("grads0.safetensors");
                self.assert_params("first gradient", &got, &want, allowed.gradients);
            }
            let lr_error = (got.learning_rate - want.lr).abs() / want.lr;
            assert!(lr_error <= 1e-12, "lr of {step}");
            let pairs = [
                ("loss", got.loss, want.loss, allowed.loss),
                (
                    "norm",
                    got.gradient_norm,
                    want.grad_norm,
                    allowed.gradient_norm,
                ),
            ];
            for ((what, got, want, allowed), most) in pairs.into_iter().zip(&mut most) {
                let error = (got - want).abs() / want;
                assert!(error <= allowed, "{what} of {step}: {error:e}");
                *most = most.max(error);
            }
        }
        println!("  worst relative errors of loss and norm: {most:?}");
        let [weights, _, _] = trainer.values();
        let got = all(&*weights);
        let want = self.flat("final.safetensors");
        self.assert_params("final weight", &got, &want, allowed.final_weights);
    }

    fn assert_params(&self, what: &str, got: &[f32], want: &[f32], tolerance: f64) {
        let mut most = 0.0;
        for param in &ParamLayout::new(&self.config).params {
            for part in visible(param) {
                let used = worst(&got[part.clone()], &want[part], tolerance);
                let percent = used * 100.0;
                assert!(
                    used <= 1.0,
                    "{what} of {}: {percent:.0} % of what is allowed",
                    param.name
                );
                most = f64::max(most, percent);
            }
        }
        println!("  {what}: {most:.0} % of the allowed {tolerance:e}");
    }
}

/// The key third of the attention bias is left out: softmax does not see a shift of all its scores, so that
/// gradient is zero but for rounding, which Adam scales up to full steps.
fn visible(param: &ParamSpec) -> Vec<std::ops::Range<usize>> {
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
