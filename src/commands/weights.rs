//! The sizes of a run that starts from weights: theirs, and not another model's.

use crate::checkpoint::{
    Checkpoint, check_resumable, check_resumable_data_aside, check_stored_keys, find_weights,
    stored_config,
};
use crate::config::{Config, GivenSizes};
use crate::error::{Error, Result};
use crate::hub::cache_folder;
use crate::plan::{GPT2_VOCAB, PlanError};
use crate::session::Start;
use crate::terms::{Gelu, ModelDims};

/// The config of the run that begins with `start`: `[model]` says what is trained.
///
/// # Errors
/// When a key that is given contradicts the weights, or the config is another experiment than the checkpoint's.
pub(super) fn settled(config: Config, given: &GivenSizes, start: &Start) -> Result<Config> {
    match start {
        Start::Scratch => Ok(config),
        Start::Pretrained(pretrained) => of_weights(&config, given, &pretrained.dims),
        Start::Resume(resumed) => of_checkpoint(config, given, &resumed.checkpoint),
    }
}

/// A run that began with weights, or is resumed as nanoGPT's `init_from = "resume"` does it, need not repeat sizes.
fn of_checkpoint(config: Config, given: &GivenSizes, checkpoint: &Checkpoint) -> Result<Config> {
    let (stored, done) = (&checkpoint.config_toml, checkpoint.state.step);
    // A dataset that is known by its contents may have another name: [`Start::check_dataset`].
    let check = match checkpoint.state.dataset {
        _ if checkpoint.is_of_nanogpt => check_stored_keys,
        Some(_) => check_resumable_data_aside,
        None => check_resumable,
    };
    if config.train.init_from == "scratch" {
        check(&config, stored, done)?;
        return Ok(config);
    }
    let completed = given.completed(&config, &stored_config(stored)?);
    check(&completed, stored, done)?;
    of_weights(&completed, given, &checkpoint.dims)
}

/// `config` with the sizes of the weights that its run starts from.
///
/// # Errors
/// When a key that is given contradicts them.
pub(super) fn of_weights(
    config: &Config,
    given: &GivenSizes,
    weights: &ModelDims,
) -> Result<Config> {
    let refuse = |what, hint| Error::Plan(PlanError::Contradiction { what, hint });
    let config = given.of_weights(config, weights).map_err(|conflicts| {
        let lines = conflicts.iter().map(|conflict| {
            format!(
                "\n  `model.{}`: the config has {}, the weights have {}",
                conflict.key, conflict.given, conflict.weights
            )
        });
        let edits: Vec<String> = conflicts
            .iter()
            .map(|conflict| format!("`--set model.{}={}`", conflict.key, conflict.weights))
            .collect();
        refuse(
            format!(
                "the config asks for another model than the weights it starts from{}",
                lines.collect::<String>()
            ),
            format!(
                "remove the keys, so that the weights decide, or use {}; `--set train.init_from=scratch` trains \
                 the model of the config without the weights",
                edits.join(" ")
            ),
        )
    })?;
    match config.conflict() {
        Some((what, expected)) => Err(refuse(what, format!("use {expected}"))),
        None => Ok(config),
    }
}

/// (name, n_layer, n_head, n_embd) of OpenAI's models (GPT-2 paper, table 2; heads of 64 channels).
const GPT2: [(&str, usize, usize, usize); 4] = [
    ("gpt2", 12, 12, 768),
    ("gpt2-medium", 24, 16, 1024),
    ("gpt2-large", 36, 20, 1280),
    ("gpt2-xl", 48, 25, 1600),
];

/// Sizes of the weights that `train.init_from` names; `None` where it names none. OpenAI's weights need not be here.
///
/// # Errors
/// When there are no such weights, or none that taper can use.
pub(super) fn weights(init_from: &str) -> Result<Option<ModelDims>> {
    if let Some(&(_, n_layer, n_head, n_embd)) = GPT2.iter().find(|(name, ..)| *name == init_from) {
        return Ok(Some(ModelDims {
            n_layer,
            n_head,
            n_embd,
            block_size: 1024,
            vocab_size: GPT2_VOCAB,
            bias: true,
            dropout: 0.0,
            gelu: Gelu::Tanh,
        }));
    }
    match init_from {
        "scratch" | "resume" => Ok(None),
        name => Ok(Some(find_weights(name, &cache_folder())?.pretrained.dims)),
    }
}
