//! The state of a run in nanoGPT's words, for its `ckpt.pt`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::weights::nanogpt::{AdamWState, NanoGptState};
use super::{CheckpointError, TrainedRun, stored_config};
use crate::config::Config;
use crate::schedule::LrSchedule;

/// The state of a run as nanoGPT's `train.py` would have saved it; without one, the state before the first step, with
/// nanoGPT's defaults.
///
/// # Errors
/// `StoredConfig` when the run's config is none of this version.
pub(super) fn nanogpt_state(run: Option<&TrainedRun>) -> Result<NanoGptState, CheckpointError> {
    let config = match run {
        Some(run) => stored_config(&run.config_toml)?,
        None => Config::default(),
    };
    let state = run.map(|run| &run.state);
    let iter_num = state.map_or(0, |state| state.step);
    let optimizer = &config.optimizer;
    let schedule = optimizer.schedule();
    let rung = state.and_then(|state| state.rung);
    Ok(NanoGptState {
        iter_num,
        best_val_loss: state.and_then(|state| state.best_val_loss),
        config: settings(&config, rung.map(|rung| rung.micro_batch)),
        optimizer: AdamWState {
            learning_rate: schedule.at(iter_num.saturating_sub(1)),
            beta1: optimizer.beta1,
            beta2: optimizer.beta2,
            eps: optimizer.eps,
            weight_decay: optimizer.weight_decay,
        },
    })
}

impl TrainedRun {
    /// Sentences about what nanoGPT will do otherwise in the run's remaining steps.
    pub fn notes_for_nanogpt(&self) -> Vec<String> {
        let Ok(config) = stored_config(&self.config_toml) else {
            return Vec::new();
        };
        let mut notes = Vec::new();
        let optimizer = &config.optimizer;
        let schedule = optimizer.schedule();
        let is_warming_up = self.state.step < schedule.warmup_iters;
        let goes_on_with = match schedule.lr_schedule {
            LrSchedule::Linear | LrSchedule::Wsd => Some("its cosine"),
            LrSchedule::Constant if is_warming_up => Some("the whole rate at once"),
            LrSchedule::Constant | LrSchedule::Cosine => None,
        };
        notes.extend(goes_on_with.map(|other| {
            format!(
                "nanoGPT has no `lr_schedule` = \"{}\": it goes on with {other}",
                schedule.lr_schedule.name()
            )
        }));
        if optimizer.skip_loss_zscore > 0.0 || optimizer.skip_grad_zscore > 0.0 {
            notes.push(
                "nanoGPT leaves out no update: the guards against outliers stay behind".into(),
            );
        }
        notes
    }
}

/// The settings that nanoGPT's `train.py` has, too. A constant learning rate is `decay_lr = False` there. A step is split into
/// the micro-batches of the run.
fn settings(config: &Config, micro_batch: Option<usize>) -> BTreeMap<String, Value> {
    let Config {
        model,
        data,
        train,
        optimizer,
        eval,
        checkpoint,
        ..
    } = config;
    let sequences = config.sequences_per_step();
    let micro_batch = micro_batch.or(train.batch_size.pinned());
    let micro_batch = micro_batch.filter(|batch| *batch > 0 && sequences.is_multiple_of(*batch));
    let micro_batch = micro_batch.unwrap_or(sequences);
    let settings = json!({
        "batch_size": micro_batch,
        "beta1": optimizer.beta1,
        "beta2": optimizer.beta2,
        "bias": model.bias,
        "block_size": model.block_size,
        "dataset": data.dataset,
        "decay_lr": optimizer.schedule().decay_start().is_some(),
        "dropout": model.dropout,
        "eval_interval": eval.eval_interval,
        "eval_iters": eval.eval_iters,
        "grad_clip": optimizer.grad_clip,
        "gradient_accumulation_steps": sequences / micro_batch,
        "learning_rate": optimizer.learning_rate,
        "log_interval": train.log_interval,
        "lr_decay_iters": optimizer.lr_decay_iters,
        "max_iters": train.max_iters,
        "min_lr": optimizer.min_lr,
        "n_embd": model.n_embd,
        "n_head": model.n_head,
        "n_layer": model.n_layer,
        "out_dir": checkpoint.out_dir,
        "warmup_iters": optimizer.warmup_iters,
        "weight_decay": optimizer.weight_decay,
    });
    match settings {
        Value::Object(settings) => settings.into_iter().collect(),
        _ => BTreeMap::new(),
    }
}
