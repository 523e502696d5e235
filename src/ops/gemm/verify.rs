//! Verification of candidates, in two passes over operands that every type of input holds exactly.
//!
//! The first pass uses small integers. Every sum is exact, so a wrong index, a missing term or a stale tile shows as an
//! inequality. The second pass uses random numbers of full width, and holds the rounding errors to a bound. Each pass
//! compares a sample of the elements with f64, then all of them with the first candidate that passed.

use rayon::prelude::*;

use super::candidate::{Device, MOST_READ, Offer, Operand, Unavailable};
use super::check::{Fill, Tolerance, scramble};
use super::problem::{Epilogue, Layout, Problem};
use super::tune::TuneOutcome;
use super::watch::Watch;
use crate::ops::loops::gelu;
use crate::terms::Precision;

/// Elements of C that are compared with f64, besides its corners.
const PLACES: usize = MOST_READ - 4;

/// Largest relative error of one fp32 addition in hardware: tensor cores may truncate.
const ADDITION: f64 = 1.0 / (1u32 << 23) as f64;

/// Error of an activation by a GPU's approximate tanh, relative to the larger of the activation and 1
/// (`tanh.approx.f32` of the PTX ISA is within 2^-11).
const ACTIVATION: f64 = 1.0 / 1024.0;

/// Verifies the candidates of one problem.
pub(super) struct Verifier<'a, D> {
    device: &'a D,
    problem: &'a Problem,
    watch: &'a dyn Watch,
}

/// One pass of verification.
struct Pass {
    fill: Fill,
    samples: Vec<Sample>,
}

impl<'a, D: Device> Verifier<'a, D> {
    pub fn new(device: &'a D, problem: &'a Problem, watch: &'a dyn Watch) -> Self {
        Self {
            device,
            problem,
            watch,
        }
    }

    /// Outcome of each offer, `Untimed` where it can be used, and the indices of those that are right. A spare one is
    /// verified only where nothing before it, in the order of trust, is right. Once interrupted, none counts as right.
    pub fn outcomes(
        &self,
        trial: &mut D::Trial,
        offers: &[Offer<D::Candidate>],
    ) -> (Vec<TuneOutcome>, Vec<usize>) {
        let mut outcomes: Vec<TuneOutcome> = offers
            .iter()
            .map(|offer| match &offer.available {
                Ok(()) => TuneOutcome::Untimed,
                Err(unavailable) => TuneOutcome::Unavailable(unavailable.clone()),
            })
            .collect();
        let read: &[Operand] = match self.problem.epilogue {
            Epilogue::None => &[Operand::A, Operand::B],
            Epilogue::Bias | Epilogue::BiasGelu(_) => &[Operand::A, Operand::B, Operand::Bias],
            Epilogue::GeluBackward(_) => &[Operand::A, Operand::B, Operand::Aux],
        };
        let mut right: Vec<usize> = (0..offers.len())
            .filter(|&index| offers[index].available.is_ok())
            .collect();
        for fill in [Fill::Integers, Fill::Random] {
            let filled = self.fill(trial, fill, read);
            let pass = Pass {
                fill,
                samples: Sample::all(self.problem, fill),
            };
            let mut trusted = None;
            right.retain(|&index| {
                let offer = &offers[index];
                if self.watch.is_interrupted() {
                    return false;
                }
                if offer.is_spare && trusted.is_some() {
                    return false;
                }
                let filled = filled.clone().map_err(TuneOutcome::Unavailable);
                match filled.and_then(|()| self.verify(trial, &pass, offer, trusted)) {
                    Ok(()) => trusted = trusted.or(Some(offer.candidate)),
                    Err(verdict) => outcomes[index] = verdict,
                }
                outcomes[index] == TuneOutcome::Untimed
            });
        }
        (outcomes, right)
    }

    /// Compares the results of an offer with f64, and with those that were kept of the trusted candidate. Without a
    /// trusted candidate, keeps the results.
    fn verify(
        &self,
        trial: &mut D::Trial,
        pass: &Pass,
        offer: &Offer<D::Candidate>,
        trusted: Option<D::Candidate>,
    ) -> Result<(), TuneOutcome> {
        let (device, problem) = (self.device, self.problem);
        let refused = TuneOutcome::Unavailable;
        self.fill(trial, pass.fill, problem.writes())
            .map_err(refused)?;
        let mut operands = device.operands(trial, problem);
        device
            .launch(problem, offer.candidate, &mut operands)
            .map_err(|failure| refused(Unavailable(failure.to_string())))?;
        drop(operands);
        for &operand in problem.writes() {
            self.compare_with_f64(trial, operand, pass)?;
        }
        match trusted {
            Some(trusted) => self.compare_with(trusted, trial, pass.fill, offer.same_bits),
            None => device.keep(trial, problem).map_err(refused),
        }
    }

    /// Compares every element with those that were kept of the trusted candidate.
    fn compare_with(
        &self,
        trusted: D::Candidate,
        trial: &mut D::Trial,
        fill: Fill,
        same_bits: bool,
    ) -> Result<(), TuneOutcome> {
        for &operand in self.problem.writes() {
            let tolerance = self.tolerance(operand, fill, same_bits);
            let compared = self
                .device
                .compare(trial, self.problem, operand, &tolerance);
            let compared = compared.map_err(TuneOutcome::Unavailable)?;
            let Some(mismatch) = compared.first else {
                continue;
            };
            let place = self.place(operand, mismatch.index);
            let promised = if same_bits {
                ", whose bits it promised"
            } else {
                ""
            };
            return Err(TuneOutcome::Wrong(format!(
                "{place} is {:e} with {} operands, not the {:e} of `{trusted}`{promised} (the largest difference is {:e})",
                mismatch.got,
                fill.name(),
                mismatch.want,
                compared.largest_error,
            )));
        }
        Ok(())
    }

    fn fill(
        &self,
        trial: &mut D::Trial,
        fill: Fill,
        operands: &[Operand],
    ) -> Result<(), Unavailable> {
        operands
            .iter()
            .try_for_each(|&operand| self.device.fill(trial, self.problem, operand, fill))
    }

    fn compare_with_f64(
        &self,
        trial: &mut D::Trial,
        operand: Operand,
        pass: &Pass,
    ) -> Result<(), TuneOutcome> {
        let indices: Vec<usize> = pass.samples.iter().map(|sample| sample.index).collect();
        let read = self.device.read(trial, self.problem, operand, &indices);
        let read = read.map_err(TuneOutcome::Unavailable)?;
        for (sample, got) in pass.samples.iter().zip(read) {
            let want = match operand {
                Operand::Aux => &sample.sum,
                _ => &sample.c,
            };
            if !want.allows(got.into()) {
                let (place, kind) = (self.place(operand, sample.index), pass.fill.name());
                return Err(TuneOutcome::Wrong(format!(
                    "{place} is {got:e} with {kind} operands, not the {:e} of f64",
                    want.value
                )));
            }
        }
        Ok(())
    }

    /// Name of an element: `C[3, 4]`.
    fn place(&self, operand: Operand, index: usize) -> String {
        let name = match operand {
            Operand::Aux => "aux",
            _ => "C",
        };
        let (row, column) = (index / self.problem.n, index % self.problem.n);
        format!("{name}[{row}, {column}]")
    }

    /// Largest distance between two candidates that both round correctly.
    fn tolerance(&self, operand: Operand, fill: Fill, same_bits: bool) -> Tolerance {
        let problem = self.problem;
        let activated = operand == Operand::C
            && matches!(
                problem.epilogue,
                Epilogue::BiasGelu(_) | Epilogue::GeluBackward(_)
            );
        if same_bits || (fill == Fill::Integers && !activated) {
            return Tolerance {
                same_bits,
                ..Tolerance::default()
            };
        }
        // Both sides may be off. The products of random operands are 1/12 on average.
        let k = problem.k as f64;
        let activations = 2.0 * f64::from(u8::from(activated));
        Tolerance {
            same_bits,
            absolute: (2.0 * accumulated(problem.k, k / 8.0)) as f32,
            // Rounding of C, and of the sum before the activation.
            relative: ((2.0 + activations) * output_rounding(problem)) as f32,
            floored: (activations * ACTIVATION) as f32,
            // Factor of an error of the slope: a sum of K products of integers has a standard deviation of
            // 2 sqrt(K).
            floor: match problem.epilogue {
                Epilogue::GeluBackward(_) => (10.0 * k.sqrt()) as f32,
                _ => 1.0,
            },
        }
    }
}

/// A value in f64, and the largest error of a candidate that rounds correctly.
struct Expected {
    value: f64,
    bound: f64,
}

impl Expected {
    /// A NaN is within no bound.
    fn allows(&self, got: f64) -> bool {
        (got - self.value).abs() <= self.bound
    }
}

/// An element of C before and after the activation.
struct Sample {
    index: usize,
    /// The element of aux, where there is one.
    sum: Expected,
    c: Expected,
}

impl Sample {
    /// Samples at the corners of C, where tiles are cut off, and at random places.
    fn all(problem: &Problem, fill: Fill) -> Vec<Self> {
        let places: Vec<_> = places(problem.m, problem.n).collect();
        let samples = places.into_par_iter();
        let samples = samples.map(|(row, column)| Self::new(problem, fill, row, column));
        samples.collect()
    }

    fn new(problem: &Problem, fill: Fill, row: usize, column: usize) -> Self {
        let (m, n, k) = (problem.m, problem.n, problem.k);
        let at = |operand, index| f64::from(fill.value(operand, index, problem.inputs));
        let (mut sum, mut magnitude) = (0.0, 0.0);
        for depth in 0..k {
            let a = match problem.a {
                Layout::AsIs => at(Operand::A, row * k + depth),
                Layout::Transposed => at(Operand::A, depth * m + row),
            };
            let b = match problem.b {
                Layout::AsIs => at(Operand::B, depth * n + column),
                Layout::Transposed => at(Operand::B, column * k + depth),
            };
            sum += a * b;
            magnitude += (a * b).abs();
        }
        let mut add = |term: f64| {
            sum += term;
            magnitude += term.abs();
        };
        let place = row * n + column;
        if problem.accumulate {
            add(at(Operand::C, place));
        }
        if matches!(problem.epilogue, Epilogue::Bias | Epilogue::BiasGelu(_)) {
            add(at(Operand::Bias, column));
        }
        let error = match fill {
            Fill::Integers => 0.0,
            Fill::Random => accumulated(k, magnitude),
        };
        let rounded = |value: f64| value.abs() * output_rounding(problem);
        let plain = || Expected {
            value: sum,
            bound: error + rounded(sum),
        };
        let activated = |value: f64| {
            // The slope of GELU is below 1.13. Its argument may be the rounded sum in aux.
            let error = 1.13 * (error + rounded(sum));
            let activation = ACTIVATION * value.abs().max(sum.abs()).max(1.0);
            Expected {
                value,
                bound: error + activation + rounded(value),
            }
        };
        Self {
            index: place,
            sum: plain(),
            c: match problem.epilogue {
                Epilogue::None | Epilogue::Bias => plain(),
                Epilogue::BiasGelu(form) => {
                    let mut c = [0.0];
                    gelu::forward(form, &[sum], &mut c);
                    activated(c[0])
                }
                Epilogue::GeluBackward(form) => {
                    let mut c = [sum];
                    gelu::backward(form, &[at(Operand::Aux, place)], &mut c);
                    activated(c[0])
                }
            },
        }
    }
}

/// Bound on the error of a sum of `k` terms whose absolute values sum up to `magnitude`. The errors of the
/// additions are independent, so they grow as the root of their number (Higham and Mary 2019,
/// doi:10.1137/18M1226312). Four times that is never seen.
fn accumulated(k: usize, magnitude: f64) -> f64 {
    4.0 * (k as f64).sqrt() * ADDITION * magnitude
}

/// Relative error of storing an element of C.
fn output_rounding(problem: &Problem) -> f64 {
    match problem.output_precision() {
        Precision::Float32 => ADDITION,
        Precision::Bfloat16 => 1.0 / 256.0,
        Precision::Float16 => 1.0 / 2048.0,
    }
}

/// Rows and columns of the samples.
fn places(m: usize, n: usize) -> impl Iterator<Item = (usize, usize)> {
    let corners = [(0, 0), (0, n - 1), (m - 1, 0), (m - 1, n - 1)];
    let elsewhere = (0..PLACES).map(move |index| {
        let hash = scramble(index as u64);
        ((hash >> 32) as usize % m, (hash & 0xFFFF_FFFF) as usize % n)
    });
    corners.into_iter().chain(elsewhere)
}
