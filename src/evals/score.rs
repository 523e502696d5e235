//! Scores of a task.

use std::fmt::{self, Display};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units::{count, perplexity};

/// The outcome of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The benchmark's name, or the path of the file.
    pub task: String,
    #[serde(flatten)]
    pub metrics: Metrics,
    /// Examples that were longer than the model's context and lost their beginning.
    pub truncated: usize,
    #[serde(
        rename = "ms",
        serialize_with = "milliseconds",
        deserialize_with = "of_milliseconds"
    )]
    pub duration: Duration,
}

/// The metrics of a kind of task.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Metrics {
    HellaSwag {
        acc: f64,
        acc_norm: f64,
        examples: usize,
    },
    Lambada {
        acc: f64,
        perplexity: f64,
        examples: usize,
    },
    Perplexity {
        /// Mean over the scored tokens, in nats.
        loss: f64,
        perplexity: f64,
        /// Loss in bits, for each byte of the scored tokens' text; `None` of token files.
        #[serde(skip_serializing_if = "Option::is_none")]
        bits_per_byte: Option<f64>,
        /// Scored tokens.
        tokens: u64,
    },
}

impl Metrics {
    /// Names and values, as text.
    pub fn values(&self) -> Vec<(&'static str, String)> {
        match *self {
            Self::HellaSwag { acc, acc_norm, .. } => vec![
                ("acc", format!("{acc:.4}")),
                ("acc_norm", format!("{acc_norm:.4}")),
            ],
            Self::Lambada {
                acc,
                perplexity: value,
                ..
            } => vec![
                ("acc", format!("{acc:.4}")),
                ("perplexity", perplexity(value)),
            ],
            Self::Perplexity {
                loss,
                perplexity: value,
                bits_per_byte,
                ..
            } => {
                let mut values = vec![
                    ("loss", format!("{loss:.4}")),
                    ("perplexity", perplexity(value)),
                ];
                values.extend(bits_per_byte.map(|bits| ("bits per byte", format!("{bits:.4}"))));
                values
            }
        }
    }

    /// The amount that was scored: `1,000 examples`.
    pub fn amount(&self) -> String {
        let (amount, noun) = match *self {
            Self::HellaSwag { examples, .. } | Self::Lambada { examples, .. } => {
                (examples as u64, "example")
            }
            Self::Perplexity { tokens, .. } => (tokens, "token"),
        };
        let plural = if amount == 1 { "" } else { "s" };
        format!("{} {noun}{plural}", count(amount))
    }
}

impl Display for Score {
    /// `hellaswag acc 0.2512, acc_norm 0.2691 (1,000 examples)`.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let values = self.metrics.values();
        let values = values.iter().map(|(name, value)| format!("{name} {value}"));
        let values = values.collect::<Vec<_>>().join(", ");
        write!(f, "{} {values} ({})", self.task, self.metrics.amount())
    }
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64() * 1e3)
}

fn of_milliseconds<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(from)? / 1e3;
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_one_line_for_people_and_one_object_for_programs() {
        let score = |task: &str, metrics| Score {
            task: task.into(),
            metrics,
            truncated: 2,
            duration: Duration::from_millis(1500),
        };
        let hellaswag = score(
            "hellaswag",
            Metrics::HellaSwag {
                acc: 0.25116,
                acc_norm: 0.26914,
                examples: 1000,
            },
        );
        let line = "hellaswag acc 0.2512, acc_norm 0.2691 (1,000 examples)";
        assert_eq!(hellaswag.to_string(), line);
        assert_eq!(
            serde_json::to_string(&hellaswag).unwrap(),
            r#"{"task":"hellaswag","acc":0.25116,"acc_norm":0.26914,"examples":1000,"truncated":2,"ms":1500.0}"#
        );
        let file = |bits_per_byte| {
            let metrics = Metrics::Perplexity {
                loss: 3.0,
                perplexity: 3f64.exp(),
                bits_per_byte,
                tokens: 1,
            };
            score("a.txt", metrics).to_string()
        };
        assert_eq!(file(None), "a.txt loss 3.0000, perplexity 20.09 (1 token)");
        assert_eq!(
            file(Some(1.25)),
            "a.txt loss 3.0000, perplexity 20.09, bits per byte 1.2500 (1 token)"
        );
    }
}
