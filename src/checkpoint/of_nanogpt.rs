//! Runs of nanoGPT that taper goes on with: a `ckpt.pt` by its name, or in a run's folder without checkpoints of taper's.

use std::path::Path;

use super::weights::foreign::{ForeignFormat, format_of};
use super::weights::nanogpt::{CHECKPOINT, Run, open_run};
use super::{Checkpoint, CheckpointError, FoundCheckpoint, Lineage, find_latest, open};

/// Opens what `--resume PATH` names: a checkpoint or a run's folder, as [`open`] does, or nanoGPT's `ckpt.pt`.
///
/// # Errors
/// Those of [`open`]; for a file of nanoGPT's `Torch`, `Tensor`, `UnsupportedModel`, `NotACheckpoint`.
pub fn open_to_resume(path: &Path) -> Result<FoundCheckpoint, CheckpointError> {
    if path.is_file() && format_of(path) == ForeignFormat::NanoGpt {
        return found(path);
    }
    or_nanogpt(path, open(path))
}

/// The newest checkpoint in a run's folder, as [`find_latest`] finds it; where there is none, intact or not, nanoGPT's
/// `ckpt.pt` in it.
///
/// # Errors
/// Those of [`find_latest`] and [`open_to_resume`].
pub fn find_latest_to_resume(out_dir: &Path) -> Result<FoundCheckpoint, CheckpointError> {
    or_nanogpt(out_dir, find_latest(out_dir))
}

fn or_nanogpt(
    folder: &Path,
    own: Result<FoundCheckpoint, CheckpointError>,
) -> Result<FoundCheckpoint, CheckpointError> {
    let path = folder.join(CHECKPOINT);
    match own {
        Err(CheckpointError::NoneFound { skipped, .. }) if skipped.is_empty() && path.is_file() => {
            found(&path)
        }
        own => own,
    }
}

fn found(path: &Path) -> Result<FoundCheckpoint, CheckpointError> {
    let Run {
        weights,
        moments,
        state,
        config_toml,
    } = open_run(path)?;
    Ok(FoundCheckpoint {
        checkpoint: Checkpoint {
            path: path.to_owned(),
            state,
            lineage: Lineage::default(),
            dims: weights.dims.clone(),
            config_toml,
            is_of_nanogpt: true,
            weights,
            moments,
        },
        skipped: Vec::new(),
    })
}
