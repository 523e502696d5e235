//! What a kernel, or a copy, did wrong: where, and what to look at.

use std::fmt;

/// A wrong act on the card. A kernel that faults is stopped, like a sticky error on a real one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The instruction at fault; `None` for copies, sets and frees that the host asked for.
    pub place: Option<Place>,
    /// The address it used, if it used one.
    pub address: Option<u64>,
    pub what: What,
}

/// Where in a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub kernel: String,
    /// Line of the PTX text, from 1; 0 for the launch itself.
    pub line: u32,
    pub block: [u32; 3],
    pub thread: [u32; 3],
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum What {
    #[error("no kernel `{0}` in the module")]
    NoSuchKernel(String),
    #[error("not implemented: {0}")]
    NotImplemented(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)
    }
}

impl std::error::Error for Fault {}
