//! Candidates for a problem, and the trait [`Device`], which offers and runs them.
//!
//! The CPU, a GPU and a test's fake implement the trait. All go through the same `tune` and `dispatch`.

use std::convert::Infallible;
use std::fmt::Display;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check::{Comparison, Fill, Tolerance};
use super::problem::Problem;
use crate::memory::AllocationError;
use crate::terms::Effort;

/// Reason that a candidate cannot compute a problem here. A value, never a failure of the run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// A candidate for one problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer<C> {
    pub candidate: C,
    /// Promise of the fallback's results bit for bit, whatever the operands. Tuning verifies it.
    pub same_bits: bool,
    /// A spare candidate is never among the fast ones here, and takes over when the others fail. It is verified only
    /// where nothing before it, in the order of trust, is right, and timed only where no other is right.
    pub is_spare: bool,
    pub available: Result<(), Unavailable>,
}

/// Operands of a GEMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    A,
    B,
    C,
    /// (N); only with an epilogue that adds a bias.
    Bias,
    /// (M, N); only with a GELU epilogue.
    Aux,
}

/// Failure of a GEMM.
pub trait GemmFailure: Display {
    /// Whether memory was short. The run takes a smaller rung then, for no other candidate would do better.
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

/// Elements that are read at a time, at most, to be compared with f64.
pub const MOST_READ: usize = 64;

/// A device that computes GEMMs.
pub trait Device {
    /// A way to compute GEMMs. Its text is its stable name in caches, checkpoints and reports.
    type Candidate: Copy + PartialEq + Display;
    /// Operands of one GEMM: slices of the host, or buffers of a GPU.
    type Operands<'a>;
    type Failure: GemmFailure;
    /// Buffers for the dense operands of one problem at a time, for tuning.
    type Trial;

    /// Candidates for a problem in order of trust. There is at least one: the first is the fallback.
    fn offers(&self, problem: &Problem, effort: Effort) -> Vec<Offer<Self::Candidate>>;

    /// Computes the problem.
    ///
    /// # Errors
    /// The device's; the operands are then as they were.
    fn launch(
        &self,
        problem: &Problem,
        candidate: Self::Candidate,
        operands: &mut Self::Operands<'_>,
    ) -> Result<(), Self::Failure>;

    /// Bytes of a trial of `problem`, including the kept copy of its results.
    fn trial_bytes(&self, problem: &Problem) -> u64;

    /// Problem that is verified and timed in place of `problem` where a trial may take `room` bytes: the problem
    /// itself, or a smaller one for which the same candidates are the fast ones.
    fn stand_in(&self, problem: &Problem, room: u64) -> Option<Problem> {
        (self.trial_bytes(problem) <= room).then_some(*problem)
    }

    /// Allocates buffers that are large enough for any one of `problems`.
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

    /// Reads elements of an operand by their indices, at most [`MOST_READ`] at a time.
    fn read(
        &self,
        trial: &mut Self::Trial,
        problem: &Problem,
        operand: Operand,
        indices: &[usize],
    ) -> Result<Vec<f32>, Unavailable>;

    /// Keeps a copy of what the problem [writes](Problem::writes) for [`Device::compare`].
    fn keep(&self, trial: &mut Self::Trial, problem: &Problem) -> Result<(), Unavailable>;

    /// Compares an operand that the problem writes with its kept copy.
    fn compare(
        &self,
        trial: &mut Self::Trial,
        problem: &Problem,
        operand: Operand,
        tolerance: &Tolerance,
    ) -> Result<Comparison, Unavailable>;

    /// Time of warm-up before the first timing: an idle card takes a while to reach its clock.
    const WARM_UP: Duration = Duration::ZERO;

    /// Gives memory back that computing keeps for the next time.
    fn rest(&self) {}

    /// Times the problem once.
    fn time(
        &self,
        problem: &Problem,
        candidate: Self::Candidate,
        trial: &mut Self::Trial,
    ) -> Result<Duration, Self::Failure>;
}
