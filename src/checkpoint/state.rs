//! `state.json`: the position of a run.

use serde::{Deserialize, Serialize};

use crate::data::DatasetIdentity;
use crate::ops::gemm::Table;
use crate::outliers::Outliers;
use crate::step::loss_scale::LossScale;
use crate::step::recovery::Recovery;
use crate::terms::{NamedChoice, Rung};

/// Everything a resumed run needs besides weights, moments and the config.
///
/// Sample order and dropout are functions of (seed, step), so there is no generator or cursor to
/// store. Unknown fields are ignored, so that an older taper reads what a newer one wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainState {
    /// Optimizer steps done; also the index of the next one.
    pub step: u64,
    pub seed: u64,
    pub sequences_per_step: usize,
    /// The data of the run; absent in checkpoints from before it was stored.
    #[serde(default)]
    pub dataset: Option<DatasetIdentity>,
    /// Rung of the run; a run that goes on at the same rung is the same bit for bit.
    #[serde(default)]
    pub rung: Option<Rung>,
    pub tokens_seen: u64,
    #[serde(default, with = "exact")]
    pub best_val_loss: Option<f64>,
    #[serde(default)]
    pub best_step: Option<u64>,
    /// The step of the newest evaluation, so that a resumed run neither repeats nor skips one.
    #[serde(default)]
    pub evaluated_step: Option<u64>,
    /// The step at which tasks were scored last; see `evaluated_step`.
    #[serde(default)]
    pub scored_step: Option<u64>,
    /// Length of `metrics.jsonl` at this step; lines beyond it belong to steps that are redone.
    #[serde(default)]
    pub metrics_bytes: u64,
    #[serde(default)]
    pub choices: Vec<NamedChoice>,
    /// Candidate that computed each GEMM; another one may round differently.
    #[serde(default)]
    pub gemm: Table,
    /// Absent in checkpoints of runs that had none.
    #[serde(default)]
    pub loss_scale: Option<LossScale>,
    /// Absent in runs without `optimizer.skip_loss_zscore` and `optimizer.skip_grad_zscore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outliers: Option<Outliers>,
    /// Refusals of memory that the run survived, since its very start.
    #[serde(default)]
    pub recoveries: Vec<Recovery>,
}

/// A float that comes back bit for bit. JSON has no NaN and no infinities (serde_json writes them
/// as null), so these are stored as text.
mod exact {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Finite(f64),
        Text(String),
    }

    pub fn serialize<S: Serializer>(value: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
        let stored = value.map(|value| {
            if value.is_finite() {
                Stored::Finite(value)
            } else {
                Stored::Text(value.to_string())
            }
        });
        stored.serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        match Option::<Stored>::deserialize(from)? {
            None => Ok(None),
            Some(Stored::Finite(value)) => Ok(Some(value)),
            Some(Stored::Text(text)) => text.parse().map(Some).map_err(D::Error::custom),
        }
    }
}
