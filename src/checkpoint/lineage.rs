//! `lineage.json`: the branch of a run that a checkpoint belongs to.
//!
//! A run that goes on from its newest checkpoint stays on its branch. One that goes back to an earlier checkpoint starts
//! another branch, whose number is one more than any in the folder. A checkpoint's branch and step are its [`Place`], and
//! the newest checkpoint of a folder is that of the highest place, whatever the steps of other branches. Checkpoints of
//! branch 0 have no such file: those of a run that never went back are as they always were.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::manifest::{Manifest, json_flaw, unreadable};
use super::{Checkpoint, CheckpointError, Damage, LINEAGE, folders};
use crate::terms::FileId;

/// A branch, and those it came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    pub branch: u64,
    /// Oldest first.
    pub ancestors: Vec<Ancestor>,
}

/// A branch that is left at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    pub branch: u64,
    pub until_step: u64,
}

/// Position of a checkpoint among all of a folder, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) branch: u64,
    pub(super) step: u64,
}

impl Lineage {
    /// The lineage of the checkpoint in `folder`, whose manifest and sizes are checked on the way.
    pub(super) fn read(folder: &Path) -> Result<Self, Damage> {
        let manifest = Manifest::read(folder)?;
        if !manifest.lists(LINEAGE) {
            return Ok(Self::default());
        }
        manifest.verify_file(folder, LINEAGE)?;
        let text = fs::read_to_string(folder.join(LINEAGE)).map_err(unreadable(LINEAGE))?;
        serde_json::from_str(&text).map_err(|error| Damage::new(LINEAGE, json_flaw(error)))
    }

    /// The file for [`super::Snapshot::extra_files`]; `None` on branch 0.
    pub fn file(&self) -> Option<(String, Vec<u8>)> {
        let text = serde_json::to_string_pretty(self).ok()?;
        (self.branch > 0).then(|| (LINEAGE.to_owned(), text.into_bytes()))
    }

    /// Whether a checkpoint is of this branch, or of the past that it came from.
    pub(super) fn holds(&self, place: Place) -> bool {
        let is_past = |ancestor: &Ancestor| {
            ancestor.branch == place.branch && place.step <= ancestor.until_step
        };
        place.branch == self.branch || self.ancestors.iter().any(is_past)
    }
}

/// The branch of a run that goes on from a checkpoint, in a folder with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    pub lineage: Lineage,
    /// The branch that was saved last, if this one begins here.
    pub leaves: Option<u64>,
    /// Checkpoints of other branches with later steps, by step.
    pub others: Vec<(u64, PathBuf)>,
    /// Whether the checkpoint lies in the run's folder.
    pub is_inside: bool,
}

impl Checkpoint {
    /// The branch of a run in `out_dir` that goes on from this checkpoint. Checkpoints in `skipped` are damaged: the run
    /// takes their place.
    ///
    /// # Errors
    /// `Io` when the folder cannot be listed.
    pub fn branch_in(
        &self,
        out_dir: &Path,
        skipped: &[super::Skipped],
    ) -> Result<Branch, CheckpointError> {
        let mut listed = folders::list(out_dir).map_err(CheckpointError::io("read", out_dir))?;
        listed.retain(|other| skipped.iter().all(|skipped| skipped.path != other.path));
        let folder = self.path.parent().and_then(folder_id);
        // A file of nanoGPT's is of no branch, wherever it lies.
        let is_inside = !self.is_of_nanogpt && folder.is_some() && folder == folder_id(out_dir);
        let own = Place {
            branch: self.lineage.branch,
            step: self.state.step,
        };
        let newest = listed.iter().map(|other| other.place).max();
        let is_newest = match newest {
            Some(newest) => is_inside && newest <= own,
            None => true,
        };
        let mut lineage = self.lineage.clone();
        let leaves = newest.filter(|_| !is_newest).map(|newest| newest.branch);
        if let Some(last) = leaves {
            if is_inside {
                lineage.ancestors.push(Ancestor {
                    branch: own.branch,
                    until_step: own.step,
                });
            } else {
                lineage.ancestors.clear();
            }
            lineage.branch = last.max(own.branch) + 1;
        }
        listed.retain(|other| !lineage.holds(other.place) && other.place.step > own.step);
        listed.sort_by_key(|other| other.place.step);
        Ok(Branch {
            lineage,
            leaves,
            others: listed
                .into_iter()
                .map(|other| (other.place.step, other.path))
                .collect(),
            is_inside,
        })
    }
}

/// The folder that holds a checkpoint; the parent of `ckpt-00000001` alone is the empty path.
fn folder_id(folder: &Path) -> Option<FileId> {
    let is_here = folder.as_os_str().is_empty();
    FileId::at(if is_here { Path::new(".") } else { folder })
}
