//! Curves of runs: which values are drawn, over which axis, and how they are named. [`figure()`] makes the picture that
//! `taper plot` writes; `page` puts the same curves on a page.

mod axis;
mod figure;
mod label;
mod mark;
mod series;
mod window;

use clap::ValueEnum;

pub use axis::Positions;
pub use figure::figure;
pub(crate) use label::parameters;
pub use label::{labels, subtitle};
pub use mark::{is_start, marks};
pub use series::{Series, series};
pub use window::{Window, automatic_window};

/// A curve that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Metric {
    Loss,
    #[value(name = "val_loss")]
    ValLoss,
    #[value(name = "lr")]
    LearningRate,
    #[value(name = "grad_norm")]
    GradNorm,
    #[value(name = "tokens_per_second")]
    TokensPerSecond,
    Memory,
}

impl Metric {
    pub const ALL: [Self; 6] = [
        Self::Loss,
        Self::ValLoss,
        Self::LearningRate,
        Self::GradNorm,
        Self::TokensPerSecond,
        Self::Memory,
    ];
}

/// The axis that everything is drawn over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum XKind {
    /// Optimizer steps
    #[default]
    Step,
    /// Tokens trained on
    Tokens,
    /// Time in training, pauses between processes left out
    Time,
}

/// Axes with a logarithmic scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Log {
    X,
    /// The losses
    Y,
    Xy,
}

/// Settings of a picture.
#[derive(Clone, Debug, Default)]
pub struct Drawing {
    /// Nothing: all of them.
    pub metrics: Vec<Metric>,
    pub x: XKind,
    pub log: Option<Log>,
    /// Steps that a smoothed value is the mean of; `None` chooses by the length of the run, 1 smooths nothing.
    pub smooth: Option<u64>,
}

impl Drawing {
    fn wants(&self, metric: Metric) -> bool {
        self.metrics.is_empty() || self.metrics.contains(&metric)
    }

    fn is_log_y(&self) -> bool {
        matches!(self.log, Some(Log::Y | Log::Xy))
    }

    fn is_log_x(&self) -> bool {
        matches!(self.log, Some(Log::X | Log::Xy))
    }
}
