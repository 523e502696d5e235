//! The machine's fitness for training: a probe, the findings, and the report.
//!
//! [`Machine::probe`] only reads, [`examine`] is a pure function of the probe, and a [`Report`]
//! holds both, to be printed as text or as JSON.

use serde::Serialize;

mod findings;
mod folders;
mod probe;
mod text;

pub use findings::{Finding, Status, examine};
pub use folders::{CheckpointFolder, DataContents, DataFolder};
pub use probe::{Holder, Machine, Nvcc, Swap};

/// A probe of the machine, and its findings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub taper: &'static str,
    /// The version that this binary was built with.
    pub candle_core: &'static str,
    pub machine: Machine,
    pub findings: Vec<Finding>,
    pub problems: usize,
    pub notes: usize,
}

impl Report {
    pub fn new(machine: Machine) -> Self {
        let findings = examine(&machine);
        let count = |status| findings.iter().filter(|f| f.status == status).count();
        Self {
            taper: env!("CARGO_PKG_VERSION"),
            candle_core: env!("TAPER_CANDLE_CORE"),
            problems: count(Status::Problem),
            notes: count(Status::Note),
            machine,
            findings,
        }
    }

    /// One JSON object, on one line.
    ///
    /// # Errors
    /// Never in practice: every field is a number, a text, or made of them.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// Text for people: a line per finding, with a hint below each problem and each note.
    pub fn text(&self) -> String {
        text::render(self)
    }
}
