//! All warnings of taper. A warning never stops a run; it is printed when it happens and again in the summary.

use std::path::PathBuf;

use crate::step::recovery::Recovery;
use crate::units::bytes;

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
    /// Memory was refused; the work is repeated, at the same rung or at a smaller one.
    #[error("step {step}: {}", recovery_text(recovery))]
    MemoryRefused { step: u64, recovery: Recovery },
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
