//! The lines of `metrics.jsonl`, as values: written by `report`, read by `runs`. Some of their fields are on stdout with
//! `--json`, too.
//!
//! Each line is an object with its `kind`, the time, and the tokens trained on so far. A run begins with a line that
//! describes it ([`RunRecord`]); a resumed run adds another.

mod run;

use serde::{Deserialize, Deserializer, Serialize};

use crate::evals::Score;
use crate::metrics::{EvalReport, StepReport};
use crate::outliers::SkippedUpdate;
use crate::step::recovery::Recovery;
use crate::terms::NamedChoice;

pub use run::{DataSummary, Difference, MemoryRecord, RunRecord, differences, flat, value_text};

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    #[serde(flatten)]
    pub record: Record,
    #[serde(flatten)]
    pub moment: Moment,
}

/// The moment of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds since 1970 (UTC). Absent in files from before it was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<f64>,
    /// Tokens trained on since the very start of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_seen: Option<u64>,
}

/// An event of a run. A number that is not finite is `null`: JSON has no word for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    /// The start of a process that trains the run.
    Run(Box<RunRecord>),
    Step(StepRecord),
    Eval(EvalRecord),
    /// The scores of a task.
    Score {
        step: u64,
        #[serde(flatten)]
        score: Score,
    },
    /// A refusal of memory that the run survived.
    Recovery {
        step: u64,
        #[serde(flatten)]
        recovery: Recovery,
    },
    /// A decision after the start.
    Choice(NamedChoice),
    Checkpoint {
        path: String,
        bytes: u64,
        ms: f64,
    },
    Warning {
        message: String,
    },
    /// An update that was left out.
    Skip {
        step: u64,
        #[serde(flatten)]
        skipped: SkippedUpdate,
    },
    /// The end of a run whose numbers are not finite. They stand in the message.
    Diverged {
        step: u64,
        message: String,
    },
    /// A kind that this version does not know.
    #[serde(other)]
    Unknown,
}

/// An optimizer step; see [`StepReport`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    pub step: u64,
    #[serde(deserialize_with = "null_as_nan")]
    pub loss: f64,
    pub lr: f64,
    #[serde(deserialize_with = "null_as_nan")]
    pub grad_norm: f64,
    pub tokens: u64,
    pub ms: f64,
    /// Time of `ms` that went into reading samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_ms: Option<f64>,
    /// Resident memory of the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_bytes: Option<u64>,
    /// Memory held on the GPU; absent on the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_bytes: Option<u64>,
}

/// An evaluation; see [`EvalReport`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalRecord {
    pub step: u64,
    #[serde(deserialize_with = "null_as_nan")]
    pub train_loss: f64,
    #[serde(deserialize_with = "null_as_nan")]
    pub val_loss: f64,
    #[serde(deserialize_with = "null_as_nan")]
    pub train_perplexity: f64,
    #[serde(deserialize_with = "null_as_nan")]
    pub val_perplexity: f64,
    pub ms: f64,
}

impl Record {
    /// The record without what only the file has.
    pub fn as_on_stdout(self) -> Self {
        match self {
            Self::Step(step) => Self::Step(StepRecord {
                data_ms: None,
                host_bytes: None,
                device_bytes: None,
                ..step
            }),
            other => other,
        }
    }
}

impl StepRecord {
    /// `host_bytes`: resident memory of the process.
    pub fn new(report: &StepReport, host_bytes: Option<u64>) -> Self {
        Self {
            step: report.step,
            loss: report.loss,
            lr: report.learning_rate,
            grad_norm: report.grad_norm,
            tokens: report.tokens,
            ms: report.duration.as_secs_f64() * 1e3,
            data_ms: Some(report.phases.data.as_secs_f64() * 1e3),
            host_bytes,
            device_bytes: report.device_bytes,
        }
    }
}

impl From<&EvalReport> for EvalRecord {
    fn from(report: &EvalReport) -> Self {
        Self {
            step: report.step,
            train_loss: report.train_loss,
            val_loss: report.val_loss,
            train_perplexity: report.train_perplexity(),
            val_perplexity: report.val_perplexity(),
            ms: report.duration.as_secs_f64() * 1e3,
        }
    }
}

fn null_as_nan<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Line {
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn a_line_of_an_earlier_version_is_read() {
        let line = read(
            r#"{"kind":"step","step":7,"loss":4.5,"lr":0.001,"grad_norm":1.5,"tokens":64,"ms":9.5}"#,
        );
        assert_eq!(line.moment, Moment::default());
        let Record::Step(step) = line.record else {
            panic!("{line:?}");
        };
        assert_eq!((step.step, step.loss, step.host_bytes), (7, 4.5, None));
    }

    #[test]
    fn a_number_that_is_not_finite_comes_back_as_nan() {
        let report = StepReport {
            loss: f64::INFINITY,
            ..StepReport::default()
        };
        let line = Line {
            record: Record::Step(StepRecord::new(&report, Some(1))),
            moment: Moment {
                time: Some(0.5),
                tokens_seen: Some(3),
            },
        };
        let text = serde_json::to_string(&line).unwrap();
        assert!(
            text.starts_with(r#"{"kind":"step","step":0,"loss":null,"#),
            "{text}"
        );
        assert!(text.ends_with(r#""time":0.5,"tokens_seen":3}"#), "{text}");
        let Record::Step(step) = read(&text).record else {
            panic!("{text}");
        };
        assert!(step.loss.is_nan());
    }

    #[test]
    fn a_kind_of_a_later_version_is_read_as_unknown() {
        let line = read(r#"{"kind":"telepathy","step":1,"loss":{"a":[1]},"time":2.5}"#);
        assert_eq!(line.record, Record::Unknown);
        assert_eq!(line.moment.time, Some(2.5));
    }
}
