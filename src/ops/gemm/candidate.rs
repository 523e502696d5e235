//! Who can compute a product: the one trait between tuning and what computes.
//!
//! A [`Device`] offers candidates for a problem, the fallback first, and runs them. The CPU, a GPU and a
//! test's fake implement it, and go through the same `tune` and `dispatch`.

use std::convert::Infallible;
use std::fmt::Display;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check::{Comparison, Fill, Tolerance};
use super::problem::Problem;
use crate::memory::AllocationError;
use crate::terms::Effort;

/// Why a candidate cannot compute a problem here. A value, never a failure of the run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// A candidate for one problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer<C> {
    pub candidate: C,
    /// Whether it gives the fallback's results bit for bit, whatever the operands. Tuning holds it to that.
    pub same_bits: bool,
    /// It is never among the fast ones here, and takes over when the others fail. It is verified only where nothing before
    /// it, in the order of trust, is right, and timed only where no other is.
    pub is_spare: bool,
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
pub trait GemmFailure: Display {
    /// Another candidate would fare no better; the run takes a smaller rung.
    fn is_out_of_memory(&self) -> bool;
}

impl GemmFailure for Infallible {
    fn is_out_of_memory(&self) -> bool {
        match *self {}
    }
}

impl GemmFailure for AllocationError {
    fn is_out_of_memory(&self) -> bool {
        matches!(self, AllocationError::OutOfMemory(_))
    }
}

/// Elements that are read at a time, to be held against f64.
pub const MOST_READ: usize = 64;

/// What computes products.
pub trait Device {
    /// A way to compute products. Its text is its stable name in caches, checkpoints and reports.
    type Candidate: Copy + PartialEq + Display;
    /// Where the operands of one product lie: slices of the host, or buffers of a GPU.
    type Operands<'a>;
    type Failure: GemmFailure;
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

    /// What a trial of `problem` takes, the copy of its results that others are compared with included.
    fn trial_bytes(&self, problem: &Problem) -> u64;

    /// What is verified and timed in place of `problem` where a trial may take `room` bytes: the problem itself, or
    /// one of another size for which the same candidates are the fast ones.
    fn stand_in(&self, problem: &Problem, room: u64) -> Option<Problem> {
        (self.trial_bytes(problem) <= room).then_some(*problem)
    }

    /// Makes buffers that are large enough for any one of `problems`.
    fn trial(&self, problems: &[Problem]) -> Result<Self::Trial, Unavailable>;

    fn operands<'a>(&self, trial: &'a mut Self::Trial, problem: &Problem) -> Self::Operands<'a>;

    /// Sets every element of an operand.
    fn fill(
        &self,
        trial: &mut Self::Trial,
        problem: &Problem,
        operand: Operand,
        fill: Fill,
    ) -> Result<(), Unavailable>;

    /// Elements of an operand by their indices, at most [`MOST_READ`] at a time.
    fn read(
        &self,
        trial: &mut Self::Trial,
        problem: &Problem,
        operand: Operand,
        indices: &[usize],
    ) -> Result<Vec<f32>, Unavailable>;

    /// Keeps what the problem [writes](Problem::writes) for [`Device::compare`].
    fn keep(&self, trial: &mut Self::Trial, problem: &Problem) -> Result<(), Unavailable>;

    /// Compares an operand that the problem writes with what was kept of it.
    fn compare(
        &self,
        trial: &mut Self::Trial,
        problem: &Problem,
        operand: Operand,
        tolerance: &Tolerance,
    ) -> Result<Comparison, Unavailable>;

    /// For how long products are computed before the first is timed: a card that has been idle takes a while to reach
    /// its clock.
    const WARM_UP: Duration = Duration::ZERO;

    /// How long the product takes.
    fn time(
        &self,
        problem: &Problem,
        candidate: Self::Candidate,
        trial: &mut Self::Trial,
    ) -> Result<Duration, Self::Failure>;
}
