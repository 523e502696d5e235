//! Injected faults for tests: refusals of memory, and other failures.
//!
//! Every place where a device may refuse memory has a [`Site`] and counts how often it is passed.

use std::fmt::{self, Display};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A place in a run at which memory may be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Site {
    /// Allocating a buffer.
    Launch,
    /// The forward of a micro-step.
    Forward,
    /// The backward of a micro-step.
    Backward,
    /// The update of the weights.
    Update,
    /// A micro-batch of a periodic evaluation.
    Eval,
    /// A micro-batch of a run that only evaluates.
    EvalOnly,
    /// Generating a token.
    Sampling,
    /// Writing a checkpoint.
    Checkpoint,
}

impl Site {
    pub const ALL: [Site; 8] = [
        Site::Launch,
        Site::Forward,
        Site::Backward,
        Site::Update,
        Site::Eval,
        Site::EvalOnly,
        Site::Sampling,
        Site::Checkpoint,
    ];

    fn name(self) -> &'static str {
        match self {
            Site::Launch => "launch",
            Site::Forward => "forward",
            Site::Backward => "backward",
            Site::Update => "update",
            Site::Eval => "eval",
            Site::EvalOnly => "eval-only",
            Site::Sampling => "sampling",
            Site::Checkpoint => "checkpoint",
        }
    }
}

impl Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The kind of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    OutOfMemory,
    /// A failure that is not a lack of memory.
    Device,
}

/// A fault at some of the passes of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    pub site: Site,
    /// The first pass that fails, counted from 1, and the last.
    pub passes: (u64, u64),
    pub fault: Fault,
}

/// `SITE:FIRST`, `SITE:FIRST-LAST` or `SITE:FIRST-`, and `!` at the end for a failure that is not a
/// lack of memory.
impl FromStr for Injection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}` is not SITE:FIRST[-[LAST]][!]");
        let (text, fault) = match text.strip_suffix('!') {
            Some(rest) => (rest, Fault::Device),
            None => (text, Fault::OutOfMemory),
        };
        let (site, passes) = text.split_once(':').ok_or_else(expected)?;
        let site = Site::ALL.into_iter().find(|known| known.name() == site);
        let number = |text: &str| text.parse::<u64>().map_err(|_| expected());
        let passes = match passes.split_once('-') {
            None => (number(passes)?, number(passes)?),
            Some((first, "")) => (number(first)?, u64::MAX),
            Some((first, last)) => (number(first)?, number(last)?),
        };
        match site {
            Some(site) if 1 <= passes.0 && passes.0 <= passes.1 => Ok(Self {
                site,
                passes,
                fault,
            }),
            _ => Err(expected()),
        }
    }
}

/// Faults to inject, and the number of passes of each site so far.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    injections: Vec<Injection>,
    passes: [u64; Site::ALL.len()],
}

impl Faults {
    pub fn new(injections: Vec<Injection>) -> Self {
        Self {
            injections,
            passes: Default::default(),
        }
    }

    /// Counts a pass of `site` and returns its fault, if there is one.
    pub(crate) fn at(&mut self, site: Site) -> Option<Fault> {
        let pass = &mut self.passes[site as usize];
        *pass += 1;
        let hits = |injection: &&Injection| {
            let (first, last) = injection.passes;
            injection.site == site && (first..=last).contains(pass)
        };
        self.injections
            .iter()
            .find(hits)
            .map(|injection| injection.fault)
    }
}
