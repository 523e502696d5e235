//! The start of a run: from scratch, from a pretrained model, or from a checkpoint.

use std::path::{Path, PathBuf};

use super::{Session, SessionError};
use crate::checkpoint::{
    Checkpoint, CheckpointError, Pretrained, TrainState, asks_for_the_same_gemm,
    asks_for_the_same_launch, check_resumable, find_latest, hub_cache, open, open_pretrained,
    resolve_pretrained,
};
use crate::config::Config;
use crate::faults::Site;
use crate::memory::Memory;
use crate::model::{ParamLayout, init_values};
use crate::ops::backend::ValuesMut;
use crate::ops::gemm::Table;
use crate::plan::{Origin, Plan};
use crate::report::{MetricsLog, Reporter, Warning};
use crate::terms::FileError;

/// The source of the weights, and of everything else that a resumed run needs.
pub enum Start {
    Scratch,
    Pretrained(Box<Pretrained>),
    Resume(Box<Checkpoint>),
}

impl Start {
    /// Finds what the flags and `train.init_from` ask for. Damaged checkpoints are passed over, with a warning.
    ///
    /// # Errors
    /// When there is no usable checkpoint or model of that name, or the config asks for another experiment.
    pub fn find(
        config: &Config,
        resume: Option<&Option<PathBuf>>,
        reporter: &mut Reporter,
    ) -> Result<Self, CheckpointError> {
        let found = match (resume, config.train.init_from.as_str()) {
            (Some(Some(path)), _) => open(path)?,
            (Some(None), _) | (None, "resume") => find_latest(&config.checkpoint.out_dir)?,
            (None, "scratch") => return Ok(Self::Scratch),
            (None, name) => {
                let folder = resolve_pretrained(name, &hub_cache())?;
                return Ok(Self::Pretrained(Box::new(open_pretrained(&folder)?)));
            }
        };
        for skipped in found.skipped {
            reporter.warning(Warning::CheckpointDamaged {
                damaged: skipped.path,
                reason: skipped.damage.to_string(),
                used: found.checkpoint.path.clone(),
            });
        }
        check_resumable(config, &found.checkpoint.config_toml)?;
        Ok(Self::Resume(Box::new(found.checkpoint)))
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
            Self::Resume(checkpoint) => Origin {
                weights: Some(&checkpoint.dims),
                rung: asks_for_the_same_launch(config, &checkpoint.config_toml)?
                    .then_some(checkpoint.state.rung)
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
            Self::Resume(checkpoint)
                if asks_for_the_same_gemm(config, &checkpoint.config_toml)? =>
            {
                checkpoint.state.gemm.clone()
            }
            _ => Table::default(),
        })
    }

    /// Steps that are done.
    pub fn step(&self) -> u64 {
        match self {
            Self::Resume(checkpoint) => checkpoint.state.step,
            _ => 0,
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
        match find_latest(out_dir) {
            Err(CheckpointError::NoneFound { skipped, .. }) if skipped.is_empty() => Ok(()),
            Err(other) => Err(other.into()),
            Ok(found) => Err(SessionError::OutDirTaken {
                out_dir: out_dir.to_owned(),
                step: found.checkpoint.state.step,
            }),
        }
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
            Self::Pretrained(pretrained) => pretrained.load_weights(&plan.model, weights)?,
            Self::Resume(checkpoint) => checkpoint.load_weights(&plan.model, weights)?,
        }
        Ok(())
    }
}

impl Session<'_> {
    /// Sets weights, moments, state and metrics to those of the start.
    ///
    /// # Errors
    /// When they cannot be read, the device does not take them, or the run's folder cannot be written.
    pub fn begin(&mut self, start: &Start) -> Result<(), SessionError> {
        let plan = self.plan;
        let mut metrics_bytes = 0;
        match start {
            Start::Resume(checkpoint) => {
                self.resume(checkpoint)?;
                metrics_bytes = checkpoint.state.metrics_bytes;
            }
            other => self
                .trainer
                .load(|[weights, _, _], memory| other.load_weights(plan, weights, memory))?,
        }
        let out_dir = &plan.out_dir;
        std::fs::create_dir_all(out_dir).map_err(FileError::at("create the folder", out_dir))?;
        let (log, warning) = MetricsLog::open_at(&out_dir.join("metrics.jsonl"), metrics_bytes)?;
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
        self.state = TrainState {
            rung: Some(self.trainer.rung()),
            choices: self.plan.choices.clone(),
            ..checkpoint.state.clone()
        };
        self.saved = Some((self.state.step, checkpoint.path.clone()));
        Ok(())
    }
}
