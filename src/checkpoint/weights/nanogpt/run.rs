//! A run of nanoGPT at the step where it was saved: weights, moments, and the settings that decide its numbers.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table as Toml, Value};

use super::{entry, kind, weights};
use crate::checkpoint::weights::pretrained::Pretrained;
use crate::checkpoint::weights::tensor_file::{StoredTensor, TensorFile};
use crate::checkpoint::weights::tensor_names::few;
use crate::checkpoint::weights::torch::tensors::Saved;
use crate::checkpoint::weights::torch::{TorchFlaw, View};
use crate::checkpoint::{CheckpointError, TrainState};
use crate::model::{ParamLayout, ParamSpec};
use crate::ops::gemm::Table;
use crate::terms::ModelDims;

/// nanoGPT's own seed, which its `train.py` fixes.
const SEED: u64 = 1337;

/// Keys of nanoGPT's `config` that decide the numbers of a run, with taper's sections.
const FLOATS: [(&str, &str); 4] = [
    ("optimizer", "learning_rate"),
    ("optimizer", "min_lr"),
    ("optimizer", "grad_clip"),
    ("model", "dropout"),
];
const COUNTS: [(&str, &str); 2] = [
    ("optimizer", "warmup_iters"),
    ("optimizer", "lr_decay_iters"),
];

const EXPECTED: &str = "a run of nanoGPT's `train.py`: its steps as `iter_num`, and an AdamW that decays matrices \
    and embeddings alone";

/// Parts of a run that taper goes on without.
const NOT_CARRIED: &str = "the order of samples and the dropout masks begin anew, for the state of PyTorch's \
    generators is not in the file, nor is that of a float16 run's scaler";

/// A run of nanoGPT that can be gone on with.
pub(in crate::checkpoint) struct Run {
    pub(in crate::checkpoint) weights: Pretrained,
    /// Tensors `m.<parameter>` and `v.<parameter>`.
    pub(in crate::checkpoint) moments: TensorFile,
    pub(in crate::checkpoint) state: TrainState,
    /// The settings that the file knows, as a config of taper's.
    pub(in crate::checkpoint) config_toml: String,
}

/// Opens a checkpoint of nanoGPT to go on with its run.
///
/// # Errors
/// Those of [`super::open_weights`]; `NotACheckpoint` when it holds no moments, and `Torch` for another optimizer than
/// nanoGPT's AdamW.
pub(in crate::checkpoint) fn open_run(path: &Path) -> Result<Run, CheckpointError> {
    let saved = Saved::open(path)?;
    let mut weights = weights(path, &saved)?;
    let root = saved.root();
    let layout = ParamLayout::new(&weights.dims);
    let optimizer = Optimizer::find(path, &saved, root, &layout)?;
    let step = root.get("iter_num");
    let step = step
        .and_then(View::int)
        .and_then(|step| u64::try_from(step).ok())
        .ok_or_else(|| no_run(path, format!("{} as `iter_num`", kind(step))))?;
    let settings = Settings::of(root, &weights.dims, &optimizer)?;
    let updates = optimizer.updates(&layout);
    weights.told.push(format!(
        "goes on at step {step} with the weights, the moments of AdamW and the learning rate of nanoGPT's run; \
         {NOT_CARRIED}"
    ));
    if updates != Some(step as f64) {
        weights.told.push(format!(
            "its optimizer has made {} updates in {step} steps; taper corrects the moments for {step}",
            updates.map_or("an unknown number of".into(), |updates| updates.to_string())
        ));
    }
    if !settings.unknown.is_empty() {
        let unknown = few(settings.unknown.iter());
        weights.told.push(format!(
            "its `config` does not say these, the config of this run does: {unknown}"
        ));
    }
    let sequences = settings.sequences_per_step.unwrap_or(0);
    let tokens = (sequences as u64).saturating_mul(weights.dims.block_size as u64);
    let best = root.get("best_val_loss");
    Ok(Run {
        moments: saved.with(optimizer.moments(&layout)?)?,
        state: TrainState {
            step,
            seed: SEED,
            sequences_per_step: sequences,
            dataset: None,
            rung: None,
            tokens_seen: step.saturating_mul(tokens),
            best_val_loss: best.and_then(|best| saved.number(best)),
            best_step: None,
            scored_step: None,
            evaluated_step: None,
            metrics_bytes: 0,
            choices: Vec::new(),
            gemm: Table::default(),
            loss_scale: None,
            outliers: None,
            recoveries: Vec::new(),
        },
        config_toml: settings.toml.to_string(),
        weights,
    })
}

fn no_run(path: &Path, found: String) -> CheckpointError {
    let expected = EXPECTED;
    TorchFlaw::Run { found, expected }.of(path).into()
}

/// The state dictionary of nanoGPT's AdamW: a group of the parameters that decay, and one of those that do not.
struct Optimizer<'a> {
    path: &'a Path,
    saved: &'a Saved,
    state: View<'a>,
    groups: [View<'a>; 2],
    /// The number of each parameter in `state`, in the order of the layout.
    numbers: Vec<i64>,
}

impl<'a> Optimizer<'a> {
    fn find(
        path: &'a Path,
        saved: &'a Saved,
        root: View<'a>,
        layout: &ParamLayout,
    ) -> Result<Self, CheckpointError> {
        let optimizer = entry(path, root, "optimizer")?;
        let state = optimizer.get("state");
        let Some(state) = state.filter(|state| state.items().next().is_some()) else {
            return Err(CheckpointError::NotACheckpoint {
                path: path.to_owned(),
                found: "it holds a model but no moments of AdamW",
                hint: format!(
                    "start from its weights: `--set train.init_from={}`",
                    path.display()
                ),
            });
        };
        let groups: Vec<View> = optimizer
            .get("param_groups")
            .into_iter()
            .flat_map(View::list)
            .collect();
        let numbers = groups.iter().map(|group| {
            let numbers = group.get("params").into_iter().flat_map(View::list);
            numbers
                .map(View::int)
                .collect::<Option<Vec<i64>>>()
                .unwrap_or_default()
        });
        let numbers: Vec<Vec<i64>> = numbers.collect();
        let decaying = layout.params.iter().filter(|param| param.decays()).count();
        let expected = [decaying, layout.params.len() - decaying];
        let found: Vec<usize> = numbers.iter().map(Vec::len).collect();
        let (&[decay, rest], true) = (&groups[..], found == expected) else {
            return Err(no_run(
                path,
                format!(
                    "an optimizer with groups of {found:?} parameters, where this model's has {expected:?} (matrices, \
                     and all others)"
                ),
            ));
        };
        let mut of_group = numbers.into_iter().map(Vec::into_iter);
        let (mut decaying, mut others) = (of_group.next(), of_group.next());
        let number = |param: &ParamSpec| {
            let group = if param.decays() {
                &mut decaying
            } else {
                &mut others
            };
            group.as_mut().and_then(Iterator::next)
        };
        let numbers = layout.params.iter().filter_map(number).collect();
        let found = Self {
            path,
            saved,
            state,
            groups: [decay, rest],
            numbers,
        };
        found.check_rule()?;
        Ok(found)
    }

    /// Refuses hyperparameters that taper's AdamW does not have.
    fn check_rule(&self) -> Result<(), CheckpointError> {
        for group in self.groups {
            for switch in ["amsgrad", "maximize"] {
                if group.get(switch).and_then(View::bool) == Some(true) {
                    return Err(no_run(self.path, format!("an AdamW with `{switch}`")));
                }
            }
        }
        let decay = self.groups[1].get("weight_decay").and_then(View::float);
        match decay {
            Some(decay) if decay != 0.0 => Err(no_run(
                self.path,
                format!("an AdamW that decays biases and layer norms by {decay}"),
            )),
            _ => Ok(()),
        }
    }

    /// The places of both moments of every parameter.
    fn moments(
        &self,
        layout: &ParamLayout,
    ) -> Result<BTreeMap<String, StoredTensor>, CheckpointError> {
        let mut tensors = BTreeMap::new();
        for (param, &number) in layout.params.iter().zip(&self.numbers) {
            let state = self.state.get_number(number);
            for (moment, key) in [("m", "exp_avg"), ("v", "exp_avg_sq")] {
                let name = format!("{moment}.{}", param.name);
                let Some(tensor) = state.and_then(|state| state.get(key)) else {
                    let found = format!("an optimizer without `{key}` of `{}`", param.name);
                    return Err(no_run(self.path, found));
                };
                let stored = self.saved.stored(&name, tensor)?;
                if stored.shape != param.shape {
                    return Err(CheckpointError::Tensor {
                        path: self.path.to_owned(),
                        name,
                        found: format!("of shape {:?}", stored.shape),
                        expected: format!("shape {:?}", param.shape),
                    });
                }
                tensors.insert(name, stored);
            }
        }
        Ok(tensors)
    }

    /// Updates that every parameter has had; `None` where they differ.
    fn updates(&self, layout: &ParamLayout) -> Option<f64> {
        let numbers = self.numbers[..layout.params.len()].iter();
        let updates = numbers.map(|&number| {
            let step = self.state.get_number(number)?.get("step")?;
            self.saved.number(step)
        });
        let updates: Option<Vec<f64>> = updates.collect();
        let updates = updates?;
        let first = *updates.first()?;
        updates.iter().all(|&other| other == first).then_some(first)
    }
}

/// The settings of a run that decide its numbers, as far as the file knows them.
struct Settings {
    toml: Toml,
    sequences_per_step: Option<usize>,
    /// Settings that the file does not have.
    unknown: Vec<&'static str>,
}

impl Settings {
    fn of(root: View, dims: &ModelDims, optimizer: &Optimizer) -> Result<Self, CheckpointError> {
        let mut found = Self {
            toml: Toml::new(),
            sequences_per_step: None,
            unknown: Vec::new(),
        };
        for (key, size) in [
            ("n_layer", dims.n_layer),
            ("n_head", dims.n_head),
            ("n_embd", dims.n_embd),
            ("block_size", dims.block_size),
            ("vocab_size", dims.vocab_size),
        ] {
            found.set("model", key, Some(Value::Integer(size as i64)));
        }
        found.set("model", "bias", Some(dims.bias.into()));
        found.set("model", "gelu", Some("erf".into()));
        let config = |key: &str| root.get("config")?.get(key);
        for (section, key) in FLOATS {
            let number = config(key).and_then(View::float);
            found.set(section, key, number.map(Value::Float));
        }
        let count = |key: &str| {
            let count = config(key)?.float().filter(|count| count.fract() == 0.0);
            count.filter(|count| (0.0..9e15).contains(count))
        };
        for (section, key) in COUNTS {
            let count = count(key).map(|count| Value::Integer(count as i64));
            found.set(section, key, count);
        }
        let decay = config("decay_lr").and_then(View::bool);
        found.set("optimizer", "decay_lr", decay.map(Value::Boolean));
        found.set("optimizer", "lr_schedule", Some("cosine".into()));
        let sequences = count("batch_size").zip(count("gradient_accumulation_steps"));
        let sequences = sequences.map(|(batch, steps)| batch * steps);
        let sequences = sequences.filter(|product| (1.0..9e15).contains(product));
        found.sequences_per_step = sequences.map(|sequences| sequences as usize);
        let sequences = sequences.map(|sequences| Value::Integer(sequences as i64));
        found.set("train", "sequences_per_step", sequences);
        // PyTorch goes on with these of the optimizer's own.
        let group = optimizer.groups[0];
        let number = |key: &str| group.get(key).and_then(View::float).map(Value::Float);
        found.set("optimizer", "weight_decay", number("weight_decay"));
        found.set("optimizer", "eps", number("eps"));
        let mut betas = group.get("betas").into_iter().flat_map(View::list);
        for key in ["beta1", "beta2"] {
            let beta = betas.next().and_then(View::float);
            found.set("optimizer", key, beta.map(Value::Float));
        }
        Ok(found)
    }

    fn set(&mut self, section: &str, key: &'static str, value: Option<Value>) {
        let Some(value) = value else {
            self.unknown.push(key);
            return;
        };
        let section = self
            .toml
            .entry(section)
            .or_insert_with(|| Toml::new().into());
        if let Value::Table(section) = section {
            section.insert(key.into(), value);
        }
    }
}
