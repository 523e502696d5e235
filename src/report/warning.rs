//! All warnings of taper. A warning never stops a run; it is printed when it happens and again in the summary.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::Doubt;
use crate::data::DataWarning;
use crate::step::recovery::Recovery;
use crate::units::{bytes, span};

/// A problem that the user should know of although the run goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// The newest checkpoint could not be used; an older one is.
    #[error(
        "checkpoint `{}` is damaged ({reason}); continuing from `{}` instead",
        damaged.display(),
        used.display()
    )]
    CheckpointDamaged {
        damaged: PathBuf,
        reason: String,
        used: PathBuf,
    },
    /// The metrics file lost lines that the checkpoint counted on.
    #[error(
        "`{}` holds {} of the {} written before the checkpoint: the curve has a gap, the training has none",
        path.display(),
        bytes(*found_bytes),
        bytes(*expected_bytes)
    )]
    MetricsCut {
        path: PathBuf,
        expected_bytes: u64,
        found_bytes: u64,
    },
    /// The metrics file cannot be written: on a full disk, for instance.
    #[error(
        "cannot write `{}` ({reason}): the run goes on, lines that do not fit are lost",
        path.display()
    )]
    MetricsNotWritten { path: PathBuf, reason: String },
    #[error(
        "cannot write `{}` ({reason}): TensorBoard will not show what follows; `metrics.jsonl` goes on",
        path.display()
    )]
    TensorBoardNotWritten { path: PathBuf, reason: String },
    /// The metrics file was moved, removed or replaced during the run.
    #[error(
        "`{}` is not the file that this run began to write: it goes on in the one that is there now, made anew with all lines so far if there was none",
        path.display()
    )]
    MetricsMoved { path: PathBuf },
    /// The run's folder was moved or removed during the run.
    #[error(
        "`{}` was moved or removed: the run goes on in a new folder there, earlier checkpoints are where they went",
        out_dir.display()
    )]
    OutDirMoved { out_dir: PathBuf },
    /// No lock on the run's folder.
    #[error(
        "cannot lock `{}` ({reason}): make sure that no other run uses this folder",
        out_dir.display()
    )]
    OutDirNotLocked { out_dir: PathBuf, reason: String },
    /// A folder that should go stays.
    #[error("{reason}: remove it yourself, the run goes on")]
    NotRemoved { reason: String },
    /// A run goes on from another checkpoint than the one saved last.
    #[error(
        "step {step} is not the checkpoint saved last: this run is another branch{}{}",
        left_alone(others),
        curve.as_ref().map_or(String::new(), |curve| format!("; the metrics until now are in `{}`", curve.display()))
    )]
    WentBack {
        step: u64,
        others: Vec<PathBuf>,
        /// File with the metrics of the branch that is left.
        curve: Option<PathBuf>,
    },
    /// The folder has checkpoints of later steps, of a branch that the run left.
    #[error(
        "going on from step {step} of the branch saved last; `--resume PATH` goes on from one of another: {}",
        listed(others)
    )]
    OtherBranches { step: u64, others: Vec<PathBuf> },
    /// A checkpoint of another branch had the same step.
    #[error("`{}` was a checkpoint of another branch: this run's took its place", path.display())]
    BranchReplaced { path: PathBuf },
    /// Steps that could not be saved.
    #[error(
        "the last {} not in any checkpoint",
        if *steps == 1 { "step is".to_owned() } else { format!("{steps} steps are") }
    )]
    StepsLost { steps: u64 },
    /// Updates of outliers, since the very start of the run.
    #[error(
        "{} of {} left out as outliers (`optimizer.skip_loss_zscore`, `optimizer.skip_grad_zscore`)",
        if *skipped == 1 { "the update of 1 step".to_owned() } else { format!("the updates of {skipped} steps") },
        if *skipped == 1 { format!("{step} was") } else { format!("{step} were") }
    )]
    UpdatesSkipped { skipped: u64, step: u64 },
    /// The dataset is odd.
    #[error(transparent)]
    Data(#[from] DataWarning),
    /// stdout does not take results: it is a full disk, for instance.
    #[error("cannot write to standard output ({reason}): results that do not fit are lost")]
    ResultsNotWritten { reason: String },
    /// A setting that is probably a slip.
    #[error(transparent)]
    Doubt(#[from] Doubt),
    /// The run would take more than a week.
    #[error(
        "the run {} {}: a smaller model, fewer steps (`train.max_iters`) or a faster device would make it shorter",
        if *is_predicted { "is predicted to take" } else { "will take another" },
        span(*time)
    )]
    LongRun { time: Duration, is_predicted: bool },
    /// Memory was refused; the work is repeated, at the same rung or at a smaller one.
    #[error("step {step}: {}", recovery_text(recovery))]
    MemoryRefused { step: u64, recovery: Recovery },
}

fn listed(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths
        .iter()
        .map(|path| format!("`{}`", path.display()))
        .collect();
    paths.join(", ")
}

/// Checkpoints of later steps, when a run goes back.
fn left_alone(others: &[PathBuf]) -> String {
    if others.is_empty() {
        return String::new();
    }
    format!(
        ", and later checkpoints stay until it saves at their steps: {}",
        listed(others)
    )
}

/// Refusal, and what the run does about it.
pub(super) fn recovery_text(recovery: &Recovery) -> String {
    let follows = if recovery.is_descent() {
        format!(
            "going on with {}, the same samples and the same step",
            recovery.to
        )
    } else {
        format!(
            "released what can be made again, trying once more with {}",
            recovery.to
        )
    };
    format!("{}; {follows}", recovery.refusal)
}
