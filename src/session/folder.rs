//! The run's folder during a run: its branch, its metrics, and what others do to it.

use std::fs;
use std::path::{Path, PathBuf};

use super::start::Resumed;
use super::{Session, SessionError};
use crate::checkpoint::{self, Branch, CheckpointError, OutDir, Stuck};
use crate::report::{Reporter, Warning};
use crate::terms::FileError;

/// Takes the folder of a run and finishes what a killed run left in it.
///
/// # Errors
/// [`CheckpointError`] when it cannot be made, written or listed, or another run holds it.
pub fn hold_folder(path: &Path, reporter: &mut Reporter) -> Result<OutDir, CheckpointError> {
    let (held, unlocked) = OutDir::hold(path)?;
    if let Some(error) = unlocked {
        reporter.warning(Warning::OutDirNotLocked {
            out_dir: path.to_owned(),
            reason: error.to_string(),
        });
    }
    for stuck in checkpoint::sweep(path)? {
        reporter.warning(not_removed(&stuck));
    }
    Ok(held)
}

fn not_removed(stuck: &Stuck) -> Warning {
    Warning::NotRemoved {
        reason: stuck.to_string(),
    }
}

/// Puts the metrics of the checkpoint's branch at `path`. A branch that is left keeps its own in
/// `metrics.branch-<number>.jsonl`, so that each is one curve; returns that file.
pub(super) fn choose_metrics(
    path: &Path,
    resumed: &Resumed,
) -> Result<Option<PathBuf>, SessionError> {
    let of_branch = |branch: u64| path.with_file_name(format!("metrics.branch-{branch}.jsonl"));
    let is_file = fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
    let branch = &resumed.branch;
    let own = of_branch(resumed.checkpoint.lineage.branch);
    let rename =
        |from: &Path, to: &Path| fs::rename(from, to).map_err(FileError::at("rename", from));
    let Some(left) = branch.leaves else {
        // The file at `path` is of a branch that saved nothing.
        if own.exists() {
            rename(&own, path)?;
        }
        return Ok(None);
    };
    let kept = of_branch(left);
    if is_file && !kept.exists() {
        rename(path, &kept)?;
    }
    if branch.is_inside && own.exists() {
        fs::copy(&own, path).map_err(FileError::at("copy", &own))?;
    }
    Ok(kept.exists().then_some(kept))
}

impl Session<'_> {
    /// Goes on in `branch`, and says what else is in the folder. `curve`: the metrics of the branch that is left.
    pub(super) fn follow(&mut self, branch: &Branch, curve: Option<PathBuf>) {
        let step = self.state.step;
        let others = branch.others.iter().map(|(_, path)| path.clone()).collect();
        if branch.leaves.is_some() {
            self.reporter.warning(Warning::WentBack {
                step,
                others,
                curve,
            });
        } else if !branch.others.is_empty() {
            self.reporter
                .warning(Warning::OtherBranches { step, others });
        }
        self.extra_files.extend(branch.lineage.file());
        self.others.clone_from(&branch.others);
    }

    /// Notices that the run's folder was moved or removed, and goes on in a new one at its path.
    ///
    /// # Errors
    /// When there can be none, or another run holds the one that is there.
    pub(super) fn look_after_folder(&mut self) -> Result<(), SessionError> {
        if self.folder.is_in_place() {
            return Ok(());
        }
        let out_dir = &self.plan.out_dir;
        self.folder = hold_folder(out_dir, self.reporter)?;
        self.others.clear();
        self.reporter.warning(Warning::OutDirMoved {
            out_dir: out_dir.clone(),
        });
        self.reporter
            .reopen_metrics()
            .map_err(SessionError::Metrics)
    }

    /// Deletes old checkpoints. One that cannot be deleted stays, and is named once.
    pub(super) fn prune(&mut self) {
        let (plan, best_step) = (self.plan, self.state.best_step);
        let warnings = match checkpoint::prune(&plan.out_dir, plan.keep, best_step) {
            Ok(_) => return,
            Err(CheckpointError::NotRemoved { stuck }) => stuck.iter().map(not_removed).collect(),
            Err(other) => vec![Warning::NotRemoved {
                reason: other.to_string(),
            }],
        };
        for warning in warnings {
            self.reporter.warn_once(warning);
        }
    }

    /// Says that a checkpoint of another branch is replaced at the step of the one that was just saved.
    pub(super) fn tell_replaced(&mut self, step: u64) {
        if let Some(at) = self.others.iter().position(|(other, _)| *other == step) {
            let (_, path) = self.others.remove(at);
            self.reporter.warning(Warning::BranchReplaced { path });
        }
    }
}
