//! The state of training, which stands in memory before any batch, and the places where it fits.

use super::refusal::Case;
use crate::config::{Config, PRESETS};
use crate::device::{Hardware, has_kernels, named};
use crate::memory::{Group, Row, total_bytes};
use crate::model::ParamLayout;
use crate::terms::ModelDims;
use crate::units::bytes;

/// State that does not fit, and what would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub parameters: u64,
    /// Weights in fp32, gradients and two moments.
    pub state_bytes: u64,
    /// Weights in the lower precision that the model computes in; 0 if it computes in fp32.
    pub rounded_bytes: u64,
    /// Presets for the same dataset that fit where this model does not.
    pub presets: Vec<&'static str>,
    /// Cards that this model fits on, by the names that `--device` takes; none if the plan is a CPU's.
    pub cards: Vec<&'static str>,
}

impl Standing {
    /// `None` where the state fits into what is available: then a batch is in the way.
    pub(super) fn new(case: &Case, model: &ModelDims, rows: &[Row]) -> Option<Self> {
        let of = |groups: &[Group]| {
            let rows = rows.iter().filter(|row| groups.contains(&row.group));
            total_bytes(rows)
        };
        let all = of(&[
            Group::Weights,
            Group::Master,
            Group::Gradients,
            Group::Moments,
        ]);
        let rounded_bytes = match of(&[Group::Master]) {
            0 => 0,
            _ => of(&[Group::Weights]),
        };
        // An evaluation has no moments.
        if of(&[Group::Moments]) == 0 || all <= case.available {
            return None;
        }
        Some(Self {
            parameters: ParamLayout::new(model).len as u64,
            state_bytes: all - rounded_bytes,
            rounded_bytes,
            presets: presets(case),
            cards: cards(case, all),
        })
    }

    /// Lines of a hint.
    pub(super) fn lines(&self) -> Vec<String> {
        let parameters = self.parameters as f64;
        let each = self.state_bytes as f64 / parameters;
        let count = match parameters {
            many if many >= 1e9 => format!("{:.2} B", many / 1e9),
            some => format!("{:.1} M", some / 1e6),
        };
        let rounded = match self.rounded_bytes {
            0 => String::new(),
            more => format!(", and {} of weights in 16 bits", bytes(more)),
        };
        let quoted = |names: &[&str]| format!("`{}`", names.join("`, `"));
        let mut lines = vec![format!(
            "{each:.0} bytes x {count} parameters = {} (fp32 weights, gradients, two moments){rounded} stand before \
             any batch",
            bytes(self.state_bytes)
        )];
        if !self.presets.is_empty() {
            lines.push(format!("presets that fit here: {}", quoted(&self.presets)));
        }
        if !self.cards.is_empty() {
            lines.push(format!("cards that this fits on: {}", quoted(&self.cards)));
        }
        lines
    }
}

/// Presets that train on the same dataset from scratch, the largest first.
fn presets(case: &Case) -> Vec<&'static str> {
    let asked = case.request.config;
    let fits = |name: &&str| {
        let Ok(mut config) = Config::load(name, &[]) else {
            return false;
        };
        config.system = asked.system.clone();
        let is_alike = config.data.dataset == asked.data.dataset
            && config.train.init_from == "scratch"
            && !config.eval.eval_only;
        let smallest = || case.smallest_of(&config, case.request.device);
        is_alike && smallest().is_some_and(|bytes| bytes <= case.available)
    };
    let names = PRESETS.iter().rev().map(|preset| preset.name);
    names.filter(fits).collect()
}

/// Cards that the model fits on. Its state takes `state_bytes`: most cards need no plan.
fn cards(case: &Case, state_bytes: u64) -> Vec<&'static str> {
    if matches!(case.request.device.hardware, Hardware::Cpu(_)) {
        return Vec::new();
    }
    let fits = |card: &&named::Card| {
        if card.memory.bytes() <= state_bytes {
            return false;
        }
        let smallest = case.smallest_of(case.request.config, &card.profile());
        smallest.is_some_and(|bytes| bytes <= card.memory.bytes())
    };
    let cards = named::all().iter();
    let usable = cards.filter(|card| has_kernels(card.compute_capability));
    usable.filter(fits).map(|card| card.aliases[0]).collect()
}
