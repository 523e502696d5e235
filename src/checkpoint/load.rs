//! Finding, verifying and reading checkpoints.

use std::fs;
use std::path::{Path, PathBuf};

use super::manifest::{Manifest, json_flaw, unreadable};
use super::pretrained::{Fit, differences};
use super::tensor_file::TensorFile;
use super::{
    CheckpointError, Damage, Flaw, MANIFEST, MODEL_CONFIG, OPTIMIZER, RUN_CONFIG, STATE, Skipped,
    TrainState, folders, huggingface, pretrained,
};
use crate::model::ParamLayout;
use crate::ops::backend::ValuesMut;
use crate::terms::ModelDims;

/// A checkpoint whose files were all held against their checksums.
#[derive(Debug)]
pub struct Checkpoint {
    pub path: PathBuf,
    pub state: TrainState,
    pub dims: ModelDims,
    /// The run config as it was saved, valid for `--config` and for [`super::check_resumable`].
    pub config_toml: String,
}

/// A checkpoint that was found, and the damaged ones that were passed over. Tell the user about those.
#[derive(Debug)]
pub struct FoundCheckpoint {
    pub checkpoint: Checkpoint,
    /// Newest first.
    pub skipped: Vec<Skipped>,
}

/// Finds the newest intact checkpoint in a run's folder.
///
/// # Errors
/// `NoneFound` when there is none, with every damaged one and what is wrong with it; `Io` when the
/// folder cannot be listed.
pub fn find_latest(out_dir: &Path) -> Result<FoundCheckpoint, CheckpointError> {
    let mut skipped = Vec::new();
    let folders = folders::list(out_dir).map_err(CheckpointError::io("read", out_dir))?;
    for (_, path) in folders {
        match Checkpoint::verify(&path) {
            Ok(checkpoint) => {
                return Ok(FoundCheckpoint {
                    checkpoint,
                    skipped,
                });
            }
            Err(damage) => skipped.push(Skipped { path, damage }),
        }
    }
    Err(CheckpointError::NoneFound {
        looked_in: out_dir.to_owned(),
        skipped,
    })
}

/// Opens the checkpoint that `--resume PATH` names: one that must be intact, or the newest intact one in the folder of
/// a run.
///
/// # Errors
/// `Damaged`, `NotACheckpoint`, `NoneFound`, `Io`.
pub fn open(path: &Path) -> Result<FoundCheckpoint, CheckpointError> {
    let refuse = |found, hint: String| CheckpointError::NotACheckpoint {
        path: path.to_owned(),
        found,
        hint,
    };
    if !path.is_dir() {
        return Err(if path.exists() {
            refuse("it is a file", "name the folder that holds it".into())
        } else {
            refuse(
                "nothing exists there",
                "name a folder `ckpt-*` or the `checkpoint.out_dir` of the run".into(),
            )
        });
    }
    let name = path.file_name().and_then(|name| name.to_str());
    if path.join(MANIFEST).exists() || name.and_then(folders::step_of).is_some() {
        return match Checkpoint::verify(path) {
            Ok(checkpoint) => Ok(FoundCheckpoint {
                checkpoint,
                skipped: Vec::new(),
            }),
            Err(damage) => Err(CheckpointError::Damaged {
                path: path.to_owned(),
                damage,
            }),
        };
    }
    if path.join(MODEL_CONFIG).exists() {
        return Err(refuse(
            "it holds a model but no training state",
            format!(
                "start from its weights: `--set train.init_from={}`",
                path.display()
            ),
        ));
    }
    find_latest(path)
}

impl Checkpoint {
    fn verify(path: &Path) -> Result<Self, Damage> {
        Manifest::verify(path)?;
        let read = |name| fs::read_to_string(path.join(name)).map_err(unreadable(name));
        let state = serde_json::from_str(&read(STATE)?)
            .map_err(|error| Damage::new(STATE, json_flaw(error)))?;
        let dims = huggingface::parse_config(&path.join(MODEL_CONFIG), &read(MODEL_CONFIG)?)
            .map_err(|error| Damage::new(MODEL_CONFIG, Flaw::Unreadable(error.to_string())))?;
        Ok(Self {
            path: path.to_owned(),
            state,
            dims,
            config_toml: read(RUN_CONFIG)?,
        })
    }

    /// Fills weights and moments, each flat in the layout of `target`, to resume exactly. For a buffer that is
    /// not in the host's memory, the host holds at most one matrix of the model at a time.
    ///
    /// # Errors
    /// `OtherModel` when `target` is not the checkpoint's own architecture (only dropout may
    /// differ); `Tensor`, `Unreadable` or `Io` when the files changed since they were verified; `Io`
    /// when a device does not take the values.
    ///
    /// # Panics
    /// When a buffer is not as long as the layout of `target`: a defect of the caller.
    pub fn load_into(
        &self,
        target: &ModelDims,
        weights: &mut dyn ValuesMut,
        m: &mut dyn ValuesMut,
        v: &mut dyn ValuesMut,
    ) -> Result<(), CheckpointError> {
        let differences = differences(&self.dims, target, Fit::Exact);
        if !differences.is_empty() {
            return Err(CheckpointError::OtherModel {
                path: self.path.clone(),
                differences,
            });
        }
        self.load_weights(target, weights)?;
        let file = TensorFile::open(&self.path.join(OPTIMIZER))?;
        let layout = ParamLayout::new(target);
        load_moment(&file, "m", &layout, m)?;
        load_moment(&file, "v", &layout, v)
    }

    /// Fills only the weights, for sampling, evaluation and fine-tuning; a shorter `block_size` and
    /// a padded vocabulary are allowed, see [`super::Pretrained::load_weights`].
    pub fn load_weights(
        &self,
        target: &ModelDims,
        weights: &mut dyn ValuesMut,
    ) -> Result<(), CheckpointError> {
        pretrained::open_verified(&self.path)?.load_weights(target, weights)
    }
}

/// Fills one moment from `m.*` or `v.*`.
fn load_moment(
    file: &TensorFile,
    moment: &str,
    layout: &ParamLayout,
    values: &mut dyn ValuesMut,
) -> Result<(), CheckpointError> {
    assert_eq!(values.len(), layout.len, "`{moment}` has another layout");
    for param in &layout.params {
        let name = format!("{moment}.{}", param.name);
        file.expect_shape(&name, &param.shape)?;
        file.read(&name, values, param.range())?;
    }
    Ok(())
}
