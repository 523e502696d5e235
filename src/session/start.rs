//! The start of a run: from scratch, from a pretrained model, or from a checkpoint.

use std::path::{Path, PathBuf};

use super::{Session, SessionError, folder};
use crate::checkpoint::{
    Branch, Checkpoint, CheckpointError, FoundCheckpoint, Pretrained, Skipped, TrainState,
    asks_for_the_same_gemm, asks_for_the_same_launch, find_latest, find_latest_to_resume,
    find_or_download, open_to_resume,
};
use crate::config::Config;
use crate::faults::Site;
use crate::hub::Watch;
use crate::memory::Memory;
use crate::model::{ParamLayout, init_values};
use crate::ops::backend::ValuesMut;
use crate::ops::gemm::Table;
use crate::plan::{Origin, Plan};
use crate::report::{MetricsLog, Reporter, Warning};

/// The source of the weights, and of everything else that a resumed run needs.
pub enum Start {
    Scratch,
    Pretrained(Box<Pretrained>),
    Resume(Box<Resumed>),
}

/// A checkpoint that a run goes on from, and the branch of the run.
pub struct Resumed {
    pub checkpoint: Checkpoint,
    pub branch: Branch,
}

/// The checkpoint that `--resume` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The newest in the run's folder: `--resume`.
    Newest,
    /// The same, if there is one: `--resume=auto`.
    Auto,
    /// A checkpoint, or the folder of a run.
    From(PathBuf),
}

impl Resume {
    /// Reads the value of `--resume`. A folder called `auto` is `./auto`.
    pub fn parse(value: Option<&Path>) -> Self {
        match value {
            None => Self::Newest,
            Some(path) if path == Path::new("auto") => Self::Auto,
            Some(path) => Self::From(path.to_owned()),
        }
    }
}

impl Start {
    /// Finds what the flags and `train.init_from` ask for. Damaged checkpoints are passed over, with a warning. A model of
    /// the hub that is not in its cache is downloaded, which `watch` shows.
    ///
    /// # Errors
    /// When there is no usable checkpoint or model of that name.
    pub fn find(
        config: &Config,
        resume: Option<&Resume>,
        reporter: &mut Reporter,
        watch: &dyn Watch,
    ) -> Result<Self, SessionError> {
        if resume == Some(&Resume::Auto) && Path::new("auto").exists() {
            reporter
                .note("the newest checkpoint, if any; `--resume=./auto` means the folder `auto`");
        }
        let out_dir = &config.checkpoint.out_dir;
        let init_from = config.train.init_from.as_str();
        let is_resume = resume.is_some() || init_from == "resume";
        let verifying = is_resume.then(|| reporter.progress().verifying());
        let found = match (resume, init_from) {
            (Some(Resume::From(path)), _) => open_to_resume(path)?,
            (Some(Resume::Newest), _) => find_latest_to_resume(out_dir)?,
            (Some(Resume::Auto), init_from) => match if_any(find_latest_to_resume(out_dir))? {
                Some(found) => found,
                None => {
                    drop(verifying);
                    reporter.note("nothing to resume: a new run begins");
                    // `resume` means what `auto` has just asked for.
                    let is_resume = init_from == "resume";
                    return Self::begin_with(
                        if is_resume { "scratch" } else { init_from },
                        reporter,
                        watch,
                    );
                }
            },
            (None, "resume") => {
                find_latest_to_resume(out_dir).map_err(SessionError::NothingToResume)?
            }
            (None, init_from) => return Self::begin_with(init_from, reporter, watch),
        };
        drop(verifying);
        Ok(Self::Resume(Box::new(Resumed::new(
            config, found, reporter,
        )?)))
    }

    /// Begins at step 0, from scratch or with the weights of a model.
    fn begin_with(
        init_from: &str,
        reporter: &mut Reporter,
        watch: &dyn Watch,
    ) -> Result<Self, SessionError> {
        if init_from == "scratch" {
            return Ok(Self::Scratch);
        }
        let found = find_or_download(init_from, watch)?;
        let path = &found.pretrained.path;
        tell_skipped(found.skipped, path, reporter);
        if path != Path::new(init_from) {
            let path = path.display();
            reporter.note(&format!(
                "starting from `{init_from}`: the weights in `{path}`"
            ));
        }
        for note in found.notes {
            reporter.note(&note);
        }
        Ok(Self::Pretrained(Box::new(found.pretrained)))
    }

    /// The sizes of the weights, and the checkpoint's rung if the launch is requested as it was then.
    ///
    /// # Errors
    /// When the checkpoint's config cannot be read.
    pub fn origin(&self, config: &Config) -> Result<Origin<'_>, CheckpointError> {
        Ok(match self {
            Self::Scratch => Origin::default(),
            Self::Pretrained(pretrained) => Origin {
                weights: Some(&pretrained.dims),
                ..Origin::default()
            },
            Self::Resume(resumed) => Origin {
                weights: Some(&resumed.checkpoint.dims),
                rung: asks_for_the_same_launch(config, &resumed.checkpoint.config_toml)?
                    .then_some(resumed.checkpoint.state.rung)
                    .flatten(),
                resumed: true,
            },
        })
    }

    /// The GEMM winners of the checkpoint, if GEMMs are requested as they were then.
    ///
    /// # Errors
    /// When the checkpoint's config cannot be read.
    pub fn stored_products(&self, config: &Config) -> Result<Table, CheckpointError> {
        Ok(match self {
            Self::Resume(resumed)
                if asks_for_the_same_gemm(config, &resumed.checkpoint.config_toml)? =>
            {
                resumed.checkpoint.state.gemm.clone()
            }
            _ => Table::default(),
        })
    }

    /// Steps that are done.
    pub fn step(&self) -> u64 {
        match self {
            Self::Resume(resumed) => resumed.checkpoint.state.step,
            _ => 0,
        }
    }

    /// The checkpoint that the run goes on from.
    pub fn resumed_from(&self) -> Option<&Path> {
        match self {
            Self::Resume(resumed) => Some(&resumed.checkpoint.path),
            _ => None,
        }
    }

    /// Refuses a run from step 0 that would bury the checkpoints of another.
    ///
    /// # Errors
    /// [`SessionError::OutDirTaken`], or the error of `out_dir`.
    pub fn refuse_to_overwrite(&self, out_dir: &Path) -> Result<(), SessionError> {
        if matches!(self, Self::Resume(_)) {
            return Ok(());
        }
        match newest_in(out_dir)? {
            None => Ok(()),
            Some(found) => Err(SessionError::OutDirTaken {
                out_dir: out_dir.to_owned(),
                step: found.checkpoint.state.step,
            }),
        }
    }

    /// Refuses to evaluate untrained weights in the folder of a run, whose own were probably meant.
    ///
    /// # Errors
    /// [`SessionError::UntrainedInRun`], or the error of `out_dir`.
    pub fn refuse_untrained_in_run(&self, out_dir: &Path) -> Result<(), SessionError> {
        if matches!(self, Self::Scratch) && if_any(find_latest_to_resume(out_dir))?.is_some() {
            return Err(SessionError::UntrainedInRun {
                out_dir: out_dir.to_owned(),
            });
        }
        Ok(())
    }

    /// Writes the weights that the run starts with.
    ///
    /// # Errors
    /// When they cannot be read, or the device does not take them.
    pub(super) fn load_weights(
        &self,
        plan: &Plan,
        weights: &mut dyn ValuesMut,
        memory: &Memory,
    ) -> Result<(), SessionError> {
        match self {
            Self::Scratch => {
                let layout = ParamLayout::new(&plan.model);
                init_values(&layout, plan.step.seed, weights)
                    .map_err(|error| memory.refusal(Site::Launch, error.into()))?;
            }
            Self::Pretrained(pretrained) => {
                pretrained.load_usable_weights(&plan.model, plan.precision, weights)?
            }
            // Whatever they are, training made them.
            Self::Resume(resumed) => resumed.checkpoint.load_weights(&plan.model, weights)?,
        }
        Ok(())
    }
}

impl Resumed {
    fn new(
        config: &Config,
        found: FoundCheckpoint,
        reporter: &mut Reporter,
    ) -> Result<Self, CheckpointError> {
        let FoundCheckpoint {
            checkpoint,
            skipped,
        } = found;
        let branch = checkpoint.branch_in(&config.checkpoint.out_dir, &skipped)?;
        tell_skipped(skipped, &checkpoint.path, reporter);
        for note in checkpoint.notes() {
            reporter.note(&note);
        }
        Ok(Self { checkpoint, branch })
    }
}

fn tell_skipped(skipped: Vec<Skipped>, used: &Path, reporter: &mut Reporter) {
    for skipped in skipped {
        reporter.warning(Warning::CheckpointDamaged {
            damaged: skipped.path,
            reason: skipped.damage.to_string(),
            used: used.to_owned(),
        });
    }
}

/// The newest checkpoint of a folder; `None` where there are none, intact or not.
fn newest_in(out_dir: &Path) -> Result<Option<FoundCheckpoint>, CheckpointError> {
    if_any(find_latest(out_dir))
}

/// `None` where there are no checkpoints, intact or not.
fn if_any(
    found: Result<FoundCheckpoint, CheckpointError>,
) -> Result<Option<FoundCheckpoint>, CheckpointError> {
    match found {
        Err(CheckpointError::NoneFound { skipped, .. }) if skipped.is_empty() => Ok(None),
        found => found.map(Some),
    }
}

impl Session<'_> {
    /// Sets weights, moments, state and metrics to those of the start.
    ///
    /// # Errors
    /// When they cannot be read, the device does not take them, or the run's folder cannot be written.
    pub fn begin(&mut self, start: &Start) -> Result<(), SessionError> {
        let plan = self.plan;
        let path = plan.out_dir.join("metrics.jsonl");
        let mut metrics_bytes = 0;
        let work = self.reporter.progress().loading();
        match start {
            Start::Resume(resumed) => {
                self.resume(&resumed.checkpoint)?;
                metrics_bytes = resumed.checkpoint.state.metrics_bytes;
                let curve = folder::choose_metrics(&path, resumed)?;
                self.follow(&resumed.branch, curve);
            }
            other => self
                .trainer
                .load(|[weights, _, _], memory| other.load_weights(plan, weights, memory))?,
        }
        drop(work);
        let opened = MetricsLog::open_at(&path, metrics_bytes);
        let (log, warning) = opened.map_err(SessionError::Metrics)?;
        self.reporter.record_in(log);
        if let Some(warning) = warning {
            self.reporter.warning(warning);
        }
        Ok(())
    }

    fn resume(&mut self, checkpoint: &Checkpoint) -> Result<(), SessionError> {
        let dims = &self.plan.model;
        self.trainer.load(|[weights, m, v], _| {
            checkpoint
                .load_into(dims, weights, m, v)
                .map_err(SessionError::from)
        })?;
        self.trainer.loss_scale.resume(checkpoint.state.loss_scale);
        self.trainer.outliers = checkpoint.state.outliers.clone().unwrap_or_default();
        self.state = TrainState {
            seed: self.state.seed,
            sequences_per_step: self.state.sequences_per_step,
            dataset: self.state.dataset.clone(),
            rung: Some(self.trainer.rung()),
            choices: self.plan.choices.clone(),
            ..checkpoint.state.clone()
        };
        self.saved = Some((self.state.step, checkpoint.path.clone()));
        Ok(())
    }
}
