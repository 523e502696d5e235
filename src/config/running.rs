//! Keys about the course of a run: the sections `eval` and `checkpoint`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The times and the size of evaluations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// Steps between evaluations.
    pub eval_interval: u64,
    /// Batches per split and evaluation.
    pub eval_iters: usize,
    /// Sequences per evaluation batch. A loss is the mean of `eval_iters` batches, whatever micro-batch they are
    /// computed in. When absent, `train.batch_size`, or nanoGPT's 12 if that is `auto`. taper's own key.
    pub eval_batch_size: Option<usize>,
    /// Evaluate before the first step, too, as nanoGPT does; nothing is saved then. taper's own key.
    pub eval_on_start: bool,
    /// Evaluate once and stop.
    pub eval_only: bool,
    /// Tasks of `taper eval` that are scored during the run, such as `hellaswag,lambada`. When absent, none. taper's
    /// own key.
    pub eval_tasks: Option<String>,
    /// Steps between two scorings. When absent, `eval_interval`. taper's own key.
    pub eval_tasks_interval: Option<u64>,
    /// The most examples of a task, the first ones. When absent, all. taper's own key.
    pub eval_tasks_limit: Option<u64>,
}

/// The checkpoints of the run, and their folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Folder for checkpoints, `metrics.jsonl` and the resolved config.
    #[serde(serialize_with = "super::path_as_text")]
    pub out_dir: PathBuf,
    /// Steps between checkpoints. When absent, `eval.eval_interval`. taper's own key.
    pub checkpoint_interval: Option<u64>,
    /// Number of the newest checkpoints that stay; the best one always stays as well. taper's own key.
    pub keep: usize,
    /// Whether TensorBoard's event files are written beside `metrics.jsonl`. taper's own key.
    pub tensorboard: bool,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            eval_interval: 2000,
            eval_iters: 200,
            eval_batch_size: None,
            eval_on_start: true,
            eval_only: false,
            eval_tasks: None,
            eval_tasks_interval: None,
            eval_tasks_limit: None,
        }
    }
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self {
            out_dir: "out".into(),
            checkpoint_interval: None,
            keep: 2,
            tensorboard: true,
        }
    }
}
