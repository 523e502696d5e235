//! Who can compute a product: the one trait between tuning and what computes.
//!
//! A [`Device`] offers candidates for a problem, the fallback first, and runs them. The CPU, a GPU and a
//! test's fake implement it, and go through the same `tune` and `dispatch`.

use std::convert::Infallible;
use std::fmt::{self, Display};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::problem::Problem;
use crate::memory::AllocationError;

/// How far the search for the fastest candidate goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// The fallback computes every product.
    Off,
    Limited,
    Full,
}

impl Display for Effort {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Effort::Off => "off",
            Effort::Limited => "limited",
            Effort::Full => "full",
        })
    }
}

/// Why a candidate cannot compute a problem here. A value, never a failure of the run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// A candidate for one problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer<C> {
    pub candidate: C,
    /// Whether it gives the fallback's results bit for bit, whatever the operands. Tuning holds it to that.
    pub same_bits: bool,
    pub available: Result<(), Unavailable>,
}

/// The matrices and the vector of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    A,
    B,
    C,
    /// (N); only with an epilogue that adds one.
    Bias,
    /// (M, N); only with an epilogue that has one.
    Aux,
}

/// What went wrong in a product.
pub trait Failure: Display {
    /// Another candidate would fare no better; the run takes a smaller rung.
    fn is_out_of_memory(&self) -> bool;
}

impl Failure for Infallible {
    fn is_out_of_memory(&self) -> bool {
        match *self {}
    }
}

impl Failure for AllocationError {
    fn is_out_of_memory(&self) -> bool {
        matches!(self, AllocationError::OutOfMemory(_))
    }
}

/// What computes products.
pub trait Device {
    /// A way to compute products. Its text is its stable name in caches, checkpoints and reports.
    type Candidate: Copy + PartialEq + Display;
    /// Where the operands of one product lie: slices of the host, or buffers of a GPU.
    type Operands<'a>;
    type Failure: Failure;
    /// Buffers for the operands of one problem after the other, to tune with. All dense.
    type Trial;

    /// At least one, in order of trust: the first is the fallback.
    fn offers(&self, problem: &Problem, effort: Effort) -> Vec<Offer<Self::Candidate>>;

    /// Computes the product. After a failure the operands are as they were.
    fn launch(
        &self,
        problem: &Problem,
        candidate: Self::Candidate,
        operands: &mut Self::Operands<'_>,
    ) -> Result<(), Self::Failure>;

    /// What a trial of `problem` takes, copies of its results on the host included.
    fn trial_bytes(&self, problem: &Problem) -> u64;

    /// What is verified and timed in place of `problem` where a trial may take `room` bytes: the problem itself, or
    /// one of another size for which the same candidates are the fast ones.
    fn stand_in(&self, problem: &Problem, room: u64) -> Option<Problem> {
        (self.trial_bytes(problem) <= room).then_some(*problem)
    }

    /// Makes buffers that are large enough for any one of `problems`.
    fn trial(&self, problems: &[Problem]) -> Result<Self::Trial, Unavailable>;

    fn operands<'a>(&self, trial: &'a mut Self::Trial, problem: &Problem) -> Self::Operands<'a>;

    /// Sets every element of an operand to `value(its index)`, which every type of input holds exactly.
    fn write(
        &self,
        trial: &mut Self::Trial,
        problem: &Problem,
        operand: Operand,
        value: &(dyn Fn(usize) -> f32 + Sync),
    ) -> Result<(), Unavailable>;

    /// Replaces what `into` holds by the elements of an operand.
    fn read(
        &self,
        trial: &Self::Trial,
        problem: &Problem,
        operand: Operand,
        into: &mut Vec<f32>,
    ) -> Result<(), Unavailable>;

    /// How long the product takes.
    fn time(
        &self,
        problem: &Problem,
        candidate: Self::Candidate,
        trial: &mut Self::Trial,
    ) -> Result<Duration, Self::Failure>;
}
