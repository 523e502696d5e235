//! Operands on the CPU to tune with.

use std::ops::Range;

use rayon::prelude::*;

use super::{Aux, Operands};
use crate::memory::passing_buffer;
use crate::ops::gemm::candidate::{Operand, Unavailable};
use crate::ops::gemm::check::{Comparison, Fill, Tolerance};
use crate::ops::gemm::{Epilogue, Problem};
use crate::ops::loops::Element;
use crate::ops::loops::parallel::for_element_blocks;

/// The shortest side that may be halved for a trial.
const SHORTEST_CUT: usize = 4096;

/// One arena for the operands of one problem after the other, and for the results that are kept.
pub struct TrialOperands<T>(Vec<T>);

/// Elements of A, B, C, bias and aux, and of the kept copies of C and aux.
fn lengths(problem: &Problem) -> [usize; 7] {
    let (m, n, k) = (problem.m, problem.n, problem.k);
    let (bias, aux, kept_aux) = match problem.epilogue {
        Epilogue::None => (0, 0, 0),
        Epilogue::Bias => (n, 0, 0),
        Epilogue::BiasGelu(_) => (n, m * n, m * n),
        Epilogue::GeluBackward(_) => (0, m * n, 0),
    };
    [m * k, k * n, m * n, bias, aux, m * n, kept_aux]
}

/// Range in the arena of the matrix with this index in [`lengths`].
fn range(problem: &Problem, index: usize) -> Range<usize> {
    let lengths = lengths(problem);
    let start = lengths[..index].iter().sum();
    start..start + lengths[index]
}

/// Ranges in the arena of an operand that is written and of its kept copy.
fn ranges(problem: &Problem, operand: Operand) -> [Range<usize>; 2] {
    let kept = match operand {
        Operand::Aux => 6,
        _ => 5,
    };
    [operand as usize, kept].map(|index| range(problem, index))
}

pub(super) fn bytes<T>(problem: &Problem) -> u64 {
    (size_of::<T>() * lengths(problem).iter().sum::<usize>()) as u64
}

/// The problem with its longest side halved until a trial of it takes no more than `room` bytes.
pub(super) fn stand_in<T>(problem: &Problem, room: u64) -> Option<Problem> {
    let mut smaller = *problem;
    while bytes::<T>(&smaller) > room {
        let Problem { m, n, k, .. } = &mut smaller;
        let longest = [m, n, k].into_iter().max()?;
        if *longest < SHORTEST_CUT {
            return None;
        }
        *longest /= 2;
    }
    Some(smaller)
}

impl<T: Element> TrialOperands<T> {
    /// Allocates for the largest of `problems`.
    pub(super) fn new(problems: &[Problem]) -> Result<Self, Unavailable> {
        let totals = problems.iter().map(|problem| lengths(problem).iter().sum());
        let len = totals.max().unwrap_or(0);
        let refused = |error| Unavailable(format!("no memory for tuning: {error}"));
        let mut arena = passing_buffer(len).map_err(refused)?;
        arena.resize(len, T::ZERO);
        Ok(Self(arena))
    }

    pub(super) fn operands(&mut self, problem: &Problem) -> Operands<'_, T> {
        let [a, b, c, bias, aux, ..] = lengths(problem);
        let (a, rest) = self.0.split_at_mut(a);
        let (b, rest) = rest.split_at_mut(b);
        let (c, rest) = rest.split_at_mut(c);
        let (bias, rest) = rest.split_at_mut(bias);
        let aux = &mut rest[..aux];
        Operands {
            bias,
            aux: match problem.epilogue {
                Epilogue::BiasGelu(_) => Aux::Written(aux),
                Epilogue::GeluBackward(_) => Aux::Read(aux),
                Epilogue::None | Epilogue::Bias => Aux::None,
            },
            ..Operands::new(a, b, c)
        }
    }

    pub(super) fn fill(&mut self, problem: &Problem, operand: Operand, fill: Fill) {
        let values = &mut self.0[range(problem, operand as usize)];
        for_element_blocks(values, |start, values| {
            for (index, element) in values.iter_mut().enumerate() {
                let value = fill.value(operand, start + index, problem.inputs);
                *element = T::of(value.into());
            }
        });
    }

    pub(super) fn read(&self, problem: &Problem, operand: Operand, indices: &[usize]) -> Vec<f32> {
        let values = &self.0[range(problem, operand as usize)];
        let read = indices.iter().map(|&index| values[index].widen() as f32);
        read.collect()
    }

    pub(super) fn keep(&mut self, problem: &Problem) {
        for &operand in problem.writes() {
            let [written, kept] = ranges(problem, operand);
            self.0.copy_within(written, kept.start);
        }
    }

    pub(super) fn compare(
        &self,
        problem: &Problem,
        operand: Operand,
        tolerance: &Tolerance,
    ) -> Comparison {
        let [got, want] = ranges(problem, operand).map(|range| &self.0[range]);
        let elements = got.par_iter().zip(want).enumerate();
        let comparisons = elements.map(|(index, (got, want))| {
            Comparison::of(index, got.widen() as f32, want.widen() as f32, tolerance)
        });
        comparisons.reduce(Comparison::default, Comparison::and)
    }
}
