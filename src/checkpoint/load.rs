//! Finding, verifying and reading checkpoints.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::manifest::{Manifest, json_flaw, unreadable};
use super::weights::foreign::{ForeignFormat, format_of};
use super::weights::pretrained::{Fit, Pretrained, differences};
use super::weights::tensor_file::{Limit, TensorFile};
use super::weights::{gpt2_config, pretrained, safetensors};
use super::{
    CheckpointError, Damage, Flaw, Lineage, MANIFEST, MODEL, MODEL_CONFIG, OPTIMIZER, RUN_CONFIG,
    STATE, Skipped, TrainState, folders,
};
use crate::model::ParamLayout;
use crate::ops::backend::ValuesMut;
use crate::terms::{FileId, ModelDims};

/// Number of looks that a reader takes when a running job deletes or replaces what it reads. Each time, the job has saved a
/// newer checkpoint meanwhile.
const LOOKS: u32 = 500;

/// A checkpoint whose files were all held against their checksums, or nanoGPT's, which has none. Its tensors stay open, so that a job that deletes it
/// later does no harm.
#[derive(Debug)]
pub struct Checkpoint {
    pub path: PathBuf,
    pub state: TrainState,
    pub lineage: Lineage,
    pub dims: ModelDims,
    /// The run config as it was saved, valid for `--config` and for [`super::check_resumable`].
    pub config_toml: String,
    /// Whether it is nanoGPT's `ckpt.pt`. Its `config_toml` holds the settings that the file knows, and no others.
    pub is_of_nanogpt: bool,
    pub(super) weights: Pretrained,
    pub(super) moments: TensorFile,
}

/// A checkpoint's run, aside from its weights.
#[derive(Debug)]
pub struct TrainedRun {
    pub state: TrainState,
    /// The run config as it was saved.
    pub config_toml: String,
    /// Tensors `m.*` and `v.*`, in taper's layout.
    pub(super) moments: TensorFile,
}

/// A checkpoint that was found, and the damaged ones that were passed over. Tell the user about those.
#[derive(Debug)]
pub struct FoundCheckpoint {
    pub checkpoint: Checkpoint,
    /// Newest first.
    pub skipped: Vec<Skipped>,
}

/// Finds the newest intact checkpoint in a run's folder: of the branch that was saved last, the one of the highest step.
/// Looks again when a running job deletes what is being read.
///
/// # Errors
/// `NoneFound` when there is none, with every damaged one and what is wrong with it; `Io` when the
/// folder cannot be listed.
pub fn find_latest(out_dir: &Path) -> Result<FoundCheckpoint, CheckpointError> {
    let mut looks = 1..=LOOKS;
    loop {
        let is_last = looks.next().is_none();
        let mut skipped = Vec::new();
        let listed = folders::list(out_dir).map_err(CheckpointError::io("read", out_dir))?;
        let mut changed = listed.is_empty() && !is_last && has_just_changed(out_dir);
        for path in listed.into_iter().map(|listed| listed.path) {
            match Checkpoint::verify(&path) {
                Ok(checkpoint) => {
                    return Ok(FoundCheckpoint {
                        checkpoint,
                        skipped,
                    });
                }
                Err(Failed::Changed(_)) if !is_last => {
                    changed = true;
                    break;
                }
                Err(Failed::Changed(damage) | Failed::Damaged(damage)) => {
                    skipped.push(Skipped { path, damage });
                }
            }
        }
        if !changed {
            return Err(CheckpointError::NoneFound {
                looked_in: out_dir.to_owned(),
                skipped,
            });
        }
    }
}

/// The newest intact checkpoint of a folder with less than `step` steps, and its step; `None` where there is none, or the folder
/// cannot be listed. It is of the branch that was saved last, or of the past of that.
pub fn find_before(out_dir: &Path, step: u64) -> Option<(u64, PathBuf)> {
    let listed = folders::list(out_dir).ok()?;
    let lineage = listed.iter().find_map(|listed| listed.lineage.clone())?;
    let mut earlier = listed
        .iter()
        .filter(|listed| listed.place.step < step && lineage.holds(listed.place));
    let found = earlier.find(|listed| Checkpoint::verify(&listed.path).is_ok())?;
    Some((found.place.step, found.path.clone()))
}

/// Whether a folder has changed so lately that a list of it may lack what was renamed meanwhile. Then it has waited.
fn has_just_changed(folder: &Path) -> bool {
    // Times of files are those of the kernel's clock, of 10 ms at most.
    const LATELY: Duration = Duration::from_millis(50);
    let changed = fs::metadata(folder).and_then(|metadata| metadata.modified());
    let age = changed.ok().and_then(|changed| changed.elapsed().ok());
    let is_recent = age.is_some_and(|age| age < LATELY);
    if is_recent {
        std::thread::sleep(LATELY / 10);
    }
    is_recent
}

/// The checkpoint at `path`; `None` when it is gone.
fn verify_settled(path: &Path) -> Result<Option<Checkpoint>, Damage> {
    let mut looks = 1..=LOOKS;
    loop {
        match Checkpoint::verify(path) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(Failed::Changed(_)) if !path.exists() => return Ok(None),
            Err(Failed::Changed(_)) if looks.next().is_some() => {}
            Err(Failed::Changed(damage) | Failed::Damaged(damage)) => return Err(damage),
        }
    }
}

/// A checkpoint that could not be read.
enum Failed {
    /// The folder at the path is another one by now, or none.
    Changed(Damage),
    Damaged(Damage),
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
    let absent = || {
        refuse(
            "nothing exists there",
            "name a folder `ckpt-*` or the `checkpoint.out_dir` of the run".into(),
        )
    };
    if !path.exists() {
        return Err(absent());
    }
    if !path.is_dir() {
        return Err(refuse(
            "it is a file",
            match format_of(path) {
                ForeignFormat::LlmC => format!(
                    "start from its weights: `--set train.init_from={}`; the optimizer's state of llm.c is not taken over",
                    path.display()
                ),
                ForeignFormat::LlmCState => {
                    "the optimizer's state of llm.c is not taken over: start from the weights in the model's file, with \
                     `--set train.init_from=FILE`"
                        .into()
                }
                _ => "name the folder that holds it, or nanoGPT's `ckpt.pt`".into(),
            },
        ));
    }
    let name = path.file_name().and_then(|name| name.to_str());
    if path.join(MANIFEST).exists() || name.and_then(folders::step_of).is_some() {
        return match verify_settled(path) {
            Ok(Some(checkpoint)) => Ok(FoundCheckpoint {
                checkpoint,
                skipped: Vec::new(),
            }),
            Ok(None) => Err(absent()),
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
    fn verify(path: &Path) -> Result<Self, Failed> {
        let before = FileId::at(path);
        let verified = Self::verify_files(path);
        let is_same = before.is_some() && FileId::at(path) == before;
        match verified {
            Ok(checkpoint) if is_same => Ok(checkpoint),
            Ok(_) => Err(Failed::Changed(Damage::new(MANIFEST, Flaw::Missing))),
            Err(damage) if is_same => Err(Failed::Damaged(damage)),
            Err(damage) => Err(Failed::Changed(damage)),
        }
    }

    fn verify_files(path: &Path) -> Result<Self, Damage> {
        Manifest::verify(path)?;
        let read = |name| fs::read_to_string(path.join(name)).map_err(unreadable(name));
        let unopened = |file: &'static str| {
            move |error: CheckpointError| Damage::new(file, Flaw::Unreadable(error.to_string()))
        };
        let state = serde_json::from_str(&read(STATE)?)
            .map_err(|error| Damage::new(STATE, json_flaw(error)))?;
        let dims = gpt2_config::parse_config(&path.join(MODEL_CONFIG), &read(MODEL_CONFIG)?)
            .map_err(|error| Damage::new(MODEL_CONFIG, Flaw::Unreadable(error.to_string())))?;
        let moments = path.join(OPTIMIZER);
        Ok(Self {
            path: path.to_owned(),
            state,
            lineage: Lineage::read(path)?,
            dims,
            config_toml: read(RUN_CONFIG)?,
            is_of_nanogpt: false,
            weights: pretrained::open_verified(path).map_err(unopened(MODEL))?,
            moments: safetensors::open(&moments).map_err(unopened(OPTIMIZER))?,
        })
    }

    /// Sentences about what is read in another way than written, or left out. Tell the user about those.
    pub fn notes(&self) -> Vec<String> {
        self.weights.notes()
    }

    /// The weights, for sampling, fine-tuning and conversion, and the run that they are of.
    pub fn into_parts(self) -> (Pretrained, TrainedRun) {
        let run = TrainedRun {
            state: self.state,
            config_toml: self.config_toml,
            moments: self.moments,
        };
        (self.weights, run)
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
        let layout = ParamLayout::new(target);
        load_moment(&self.moments, "m", &layout, m)?;
        load_moment(&self.moments, "v", &layout, v)
    }

    /// Fills only the weights, for sampling, evaluation and fine-tuning; a shorter `block_size` and
    /// a padded vocabulary are allowed, see [`super::Pretrained::load_weights`].
    pub fn load_weights(
        &self,
        target: &ModelDims,
        weights: &mut dyn ValuesMut,
    ) -> Result<(), CheckpointError> {
        self.weights.load_weights(target, weights)
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
        file.read(&name, values, param.range(), Limit::NONE)?;
    }
    Ok(())
}
