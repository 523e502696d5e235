//! The weights that a user names: a checkpoint, a run's folder, nanoGPT's or llm.c's file, a Hugging Face folder, or a
//! model of the
//! hub.

use std::path::Path;

use super::weights::foreign::{ForeignError, ForeignFormat, format_of, weights_of_others};
use super::weights::hub::{newest_snapshot, resolve_pretrained};
use super::weights::{llmc, nanogpt};
use super::{
    CheckpointError, MANIFEST, MODEL_CONFIG, Pretrained, Skipped, TrainedRun, folders, open,
    open_pretrained,
};

/// Weights that were found under a name.
pub struct FoundWeights {
    pub pretrained: Pretrained,
    /// The run that they are of, if they are a checkpoint's of taper.
    pub run: Option<TrainedRun>,
    /// Damaged checkpoints that were passed over, newest first. Tell the user about those.
    pub skipped: Vec<Skipped>,
    /// Sentences about what is read in another way than written, or left out. Tell the user about those, too.
    pub notes: Vec<String>,
}

/// Finds the weights that `--checkpoint` or `train.init_from` name: one checkpoint, a run's folder (its newest intact
/// checkpoint, else nanoGPT's `ckpt.pt`), such a file, a model file of llm.c, a Hugging Face GPT-2 folder, or a model that
/// lies in `hub_cache`. A path wins over the hub.
///
/// # Errors
/// `Foreign` for weights in a format that taper does not read, with the lines that convert them;
/// `PretrainedNotFound`; `Unreadable`, `Tensor` and `Io` for a model of llm.c; `Torch` for a file of PyTorch's that is
/// damaged, or holds something else; and the errors of [`open`] and [`open_pretrained`].
pub fn find_weights(name: &str, hub_cache: &Path) -> Result<FoundWeights, CheckpointError> {
    let path = Path::new(name);
    if !path.is_dir() {
        let format = format_of(path);
        if format == ForeignFormat::LlmC {
            return Ok(FoundWeights::of(llmc::open(path)?));
        }
        if path.exists() && format == ForeignFormat::NanoGpt {
            return Ok(FoundWeights::of(nanogpt::open_weights(path)?));
        }
        if path.exists() || format != ForeignFormat::Unknown {
            return Err(not_a_folder(path, format));
        }
        return foreign(&resolve_pretrained(name, hub_cache)?);
    }
    if is_of_hugging_face(path) {
        return foreign(path);
    }
    if let Some(snapshot) = newest_snapshot(path) {
        return foreign(&snapshot);
    }
    let found = match open(path) {
        Err(CheckpointError::NoneFound { skipped, .. }) if skipped.is_empty() => {
            let of_nanogpt = path.join(nanogpt::CHECKPOINT);
            if of_nanogpt.is_file() {
                return Ok(FoundWeights::of(nanogpt::open_weights(&of_nanogpt)?));
            }
            if let Some(error) = weights_of_others(path) {
                return Err(error.into());
            }
            return foreign(&resolve_pretrained(name, hub_cache)?);
        }
        found => found?,
    };
    let (pretrained, run) = found.checkpoint.into_parts();
    Ok(FoundWeights {
        run: Some(run),
        skipped: found.skipped,
        ..FoundWeights::of(pretrained)
    })
}

impl FoundWeights {
    fn of(pretrained: Pretrained) -> Self {
        Self {
            notes: pretrained.notes(),
            pretrained,
            run: None,
            skipped: Vec::new(),
        }
    }
}

/// Whether a folder is a Hugging Face GPT-2, and no checkpoint of taper's.
fn is_of_hugging_face(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let is_checkpoint = path.join(MANIFEST).exists() || name.and_then(folders::step_of).is_some();
    path.join(MODEL_CONFIG).is_file() && !is_checkpoint
}

fn foreign(folder: &Path) -> Result<FoundWeights, CheckpointError> {
    Ok(FoundWeights::of(open_pretrained(folder)?))
}

fn not_a_folder(path: &Path, format: ForeignFormat) -> CheckpointError {
    if path.exists() {
        let path = path.to_owned();
        return ForeignError::Format { path, format }.into();
    }
    CheckpointError::PretrainedNotFound {
        name: path.display().to_string(),
        looked_at: vec![path.to_owned()],
    }
}
