//! Promise 3, the checkpoint's half of it: what was saved comes back bit for bit, what is damaged
//! is named and passed over, and the folder is a Hugging Face GPT-2.

mod branches;
mod damage;
mod elsewhere;
mod folder;
mod foreign;
mod huggingface;
mod llmc;
mod nanogpt;
mod pretrained;
mod resume;
mod retention;
mod round_trip;
mod torch;

use std::fs;
use std::path::{Path, PathBuf};

use taper::checkpoint::{Checkpoint, Snapshot, TrainState, save};
use taper::model::ParamLayout;
use taper::ops::gemm::cache::Entry;
use taper::ops::gemm::{Problem, Table};
use taper::terms::{Gelu, Inputs, ModelDims, NamedChoice, Recompute, Rung};

const FILES: [&str; 7] = [
    "MANIFEST.json",
    "config.json",
    "config.toml",
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "vocab.json",
];

fn tiny(bias: bool) -> ModelDims {
    ModelDims {
        n_layer: 2,
        n_head: 2,
        n_embd: 10,
        block_size: 6,
        vocab_size: 13,
        bias,
        dropout: 0.1,
        gelu: Gelu::Tanh,
    }
}

/// A run as a trainer holds it.
struct Run {
    dims: ModelDims,
    weights: Vec<f32>,
    m: Vec<f32>,
    v: Vec<f32>,
    state: TrainState,
    config_toml: String,
    extra_files: Vec<(String, Vec<u8>)>,
}

impl Run {
    /// Buffers that differ from step to step, with every kind of float among them.
    fn at(dims: ModelDims, step: u64) -> Self {
        let len = ParamLayout::new(&dims).len;
        let buffer = |salt: u64| -> Vec<f32> {
            let special = [f32::NAN, f32::NEG_INFINITY, -0.0, 1e-45, f32::MIN_POSITIVE];
            let values = (0..len as u64).map(|i| {
                let bits = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ salt ^ step);
                match special.get(i as usize / 7) {
                    Some(&value) if i % 7 == salt => value,
                    _ => (bits >> 40) as f32 / 1024.0 - 8192.0,
                }
            });
            values.collect()
        };
        Self {
            weights: buffer(1),
            m: buffer(2),
            v: buffer(3),
            state: state(step),
            config_toml: "[train]\nseed = 7\n".into(),
            extra_files: vec![("vocab.json".into(), b"{\"a\": 0}".to_vec())],
            dims,
        }
    }

    fn save(&self, out_dir: &Path) -> PathBuf {
        save(out_dir, &self.snapshot()).expect("the checkpoint can be written")
    }

    fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            dims: &self.dims,
            weights: &self.weights,
            m: &self.m,
            v: &self.v,
            state: &self.state,
            config_toml: &self.config_toml,
            extra_files: &self.extra_files,
        }
    }

    fn assert_is(&self, checkpoint: &Checkpoint) {
        let len = self.weights.len();
        let (mut weights, mut m, mut v) = (vec![7.0; len], vec![7.0; len], vec![7.0; len]);
        checkpoint
            .load_into(&self.dims, &mut weights, &mut m, &mut v)
            .expect("it loads");
        assert_eq!(bits(&weights), bits(&self.weights));
        assert_eq!(bits(&m), bits(&self.m));
        assert_eq!(bits(&v), bits(&self.v));
        assert_eq!(checkpoint.state, self.state);
        assert_eq!(checkpoint.dims, self.dims);
        assert_eq!(checkpoint.config_toml, self.config_toml);
    }
}

fn state(step: u64) -> TrainState {
    TrainState {
        loss_scale: None,
        outliers: None,
        step,
        seed: u64::MAX - 1,
        sequences_per_step: 480,
        dataset: None,
        rung: Some(Rung {
            micro_batch: 12,
            recompute: Recompute::GeluLn,
            logits_rows: 100,
        }),
        tokens_seen: step * 491_520,
        best_val_loss: Some(std::f64::consts::LN_10),
        best_step: Some(step / 2),
        scored_step: None,
        evaluated_step: Some(3),
        metrics_bytes: 12_345,
        recoveries: Vec::new(),
        gemm: Table(vec![Entry {
            problem: Problem::weight_gradient(64, 24, 8, Inputs::Float32),
            candidates: vec!["tiles of 96 rows".into(), "gemm crate".into()],
        }]),
        choices: vec![NamedChoice {
            name: "micro_batch".into(),
            value: "12".into(),
            because: "as asked".into(),
        }],
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry
            .expect("an entry")
            .file_name()
            .to_string_lossy()
            .into_owned()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

fn temp_dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}
