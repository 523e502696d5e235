//! Runs on disk, read for their curves: what `plot`, `report`, `compare` and `runs` show.
//!
//! A run is a folder with a `metrics.jsonl`. Its lines are [`crate::record`]'s. Files of earlier versions, which have
//! no line about the run, take its config from the newest checkpoint.

mod compare;
mod csv;
mod error;
mod find;
mod read;
mod summary;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::evals::Score;
use crate::outliers::SkippedUpdate;
use crate::record::{EvalRecord, Moment, RunRecord, StepRecord};
use crate::step::recovery::Recovery;
use crate::terms::NamedChoice;

pub use compare::{Varied, varied};
pub use csv::{CSV_START, write_csv};
pub use error::RunError;
pub use find::{FoundRuns, find};
pub use summary::Summary;

/// The file of a run's course.
pub const METRICS: &str = "metrics.jsonl";

/// The course of a run.
#[derive(Clone, Debug)]
pub struct Run {
    pub folder: PathBuf,
    /// The name of the folder.
    pub name: String,
    /// The newest description of the run; `None` in a file of an earlier version.
    pub description: Option<RunRecord>,
    /// Every key of the config in its sections; `None` where neither the metrics nor a checkpoint has it.
    pub config: Option<Value>,
    /// In the order of the steps, each once.
    pub steps: Vec<Point<StepRecord>>,
    pub evals: Vec<Point<EvalRecord>>,
    /// Scores of tasks, in the order of the steps.
    pub scores: Vec<Point<Score>>,
    /// Everything else that happened, in order.
    pub events: Vec<Point<RunEvent>>,
    /// Checkpoints in the folder: step and path, newest first.
    pub checkpoints: Vec<(u64, PathBuf)>,
    /// Sentences about what was left out. Tell the user about those.
    pub notes: Vec<String>,
}

/// A record, and its moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Point<T> {
    /// Optimizer steps done.
    pub step: u64,
    pub moment: Moment,
    pub record: T,
}

/// An event to be marked on a curve.
#[derive(Clone, Debug, PartialEq)]
pub enum RunEvent {
    /// A process went on from a checkpoint.
    Resumed {
        from: String,
        version: String,
    },
    /// Memory was refused; the run went on as it was, or one rung down.
    Recovered(Recovery),
    /// A decision after the start, such as a product that went to another library.
    Chosen(NamedChoice),
    Saved {
        path: String,
        bytes: u64,
    },
    Warned {
        message: String,
    },
    /// An outlier whose update was left out.
    Skipped(SkippedUpdate),
    /// The end at a loss or a gradient that is not finite.
    Diverged {
        message: String,
    },
}

impl Run {
    /// Reads the run in `path`: its folder, or its `metrics.jsonl`.
    ///
    /// # Errors
    /// [`RunError`] when there is no run or its metrics cannot be read. A line that is no object of a known form is left
    /// out, with a note.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        read::open(path)
    }

    /// The evaluation with the lowest validation loss.
    pub fn best_eval(&self) -> Option<&Point<EvalRecord>> {
        let finite = self
            .evals
            .iter()
            .filter(|eval| eval.record.val_loss.is_finite());
        finite.min_by(|a, b| a.record.val_loss.total_cmp(&b.record.val_loss))
    }

    /// The refusals of memory that the run survived.
    pub fn recoveries(&self) -> impl Iterator<Item = &Recovery> {
        self.events.iter().filter_map(|event| match &event.record {
            RunEvent::Recovered(recovery) => Some(recovery),
            _ => None,
        })
    }
}
