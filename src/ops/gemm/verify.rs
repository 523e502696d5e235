//! Whether candidates compute the product that was asked for.
//!
//! Twice, with operands that every type of input holds exactly. Small integers: every sum is exact, so a
//! wrong index, a missing term or a stale tile shows as an inequality. Then random numbers of full
//! width: what is left is rounding, and it is held to a bound. At some places both are compared with f64;
//! everywhere else with the first candidate that passed there.

use super::candidate::{Device, Offer, Operand, Unavailable};
use super::problem::{Epilogue, Inputs, OutputType, Problem, Stored};
use super::tune::Outcome;
use crate::memory::passing_buffer;
use crate::ops::gelu;

/// Elements of C that are compared with f64, besides its corners.
const PLACES: usize = 60;

/// Hardware sums with at worst this relative error for each addition: tensor cores may truncate.
const ADDITION: f64 = 1.0 / (1u32 << 23) as f64;

/// What an approximate tanh of a GPU may add to an activation, relative to the larger of it and 1
/// (`tanh.approx.f32` of the PTX ISA is within 2^-11).
const ACTIVATION: f64 = 1.0 / 1024.0;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fill {
    Integers,
    Random,
}

pub(super) struct Verifier<'a, D> {
    device: &'a D,
    problem: &'a Problem,
}

/// What a candidate wrote: C, and the pre-activation where the epilogue writes it.
pub(super) struct Written {
    c: Vec<f32>,
    aux: Vec<f32>,
}

/// Room for what two candidates wrote: the trusted one, and the one that is compared.
pub(super) struct Results {
    trusted: Written,
    compared: Written,
}

impl Results {
    /// With room for any one of `problems`.
    pub fn new(problems: &[Problem]) -> Result<Self, Unavailable> {
        let room = |writes: fn(&Problem) -> bool| {
            let problems = problems.iter().filter(move |problem| writes(problem));
            let len = problems.map(|problem| problem.m * problem.n).max();
            let refused = |error| Unavailable(format!("no memory for tuning: {error}"));
            passing_buffer(len.unwrap_or(0)).map_err(refused)
        };
        let written = || {
            Ok(Written {
                c: room(|_| true)?,
                aux: room(writes_aux)?,
            })
        };
        Ok(Self {
            trusted: written()?,
            compared: written()?,
        })
    }
}

fn writes_aux(problem: &Problem) -> bool {
    matches!(problem.epilogue, Epilogue::BiasGelu(_))
}

impl<'a, D: Device> Verifier<'a, D> {
    pub fn new(device: &'a D, problem: &'a Problem) -> Self {
        Self { device, problem }
    }

    /// Of every offer: `Untimed` where it is right.
    pub fn outcomes(
        &self,
        trial: &mut D::Trial,
        results: &mut Results,
        offers: Vec<Offer<D::Candidate>>,
    ) -> Vec<(D::Candidate, Outcome)> {
        let mut outcomes: Vec<Outcome> = offers
            .iter()
            .map(|offer| match &offer.available {
                Ok(()) => Outcome::Untimed,
                Err(unavailable) => Outcome::Unavailable(unavailable.clone()),
            })
            .collect();
        let read: &[Operand] = match self.problem.epilogue {
            Epilogue::None => &[Operand::A, Operand::B],
            Epilogue::Bias | Epilogue::BiasGelu(_) => &[Operand::A, Operand::B, Operand::Bias],
            Epilogue::GeluBackward(_) => &[Operand::A, Operand::B, Operand::Aux],
        };
        for fill in [Fill::Integers, Fill::Random] {
            let mut trusted = None;
            let filled = self.write(trial, fill, read);
            for (offer, outcome) in offers.iter().zip(&mut outcomes) {
                if *outcome != Outcome::Untimed {
                    continue;
                }
                let filled = filled.clone().map_err(Outcome::Unavailable);
                let verified =
                    filled.and_then(|()| self.verify(trial, results, fill, (offer, trusted)));
                match verified {
                    Ok(()) if trusted.is_none() => {
                        std::mem::swap(&mut results.trusted, &mut results.compared);
                        trusted = Some(offer.candidate);
                    }
                    Ok(()) => {}
                    Err(verdict) => *outcome = verdict,
                }
            }
        }
        let candidates = offers.into_iter().map(|offer| offer.candidate);
        candidates.zip(outcomes).collect()
    }

    /// Compares an offer with f64, and with the candidate that `results` hold, if there is one.
    fn verify(
        &self,
        trial: &mut D::Trial,
        results: &mut Results,
        fill: Fill,
        (offer, trusted): (&Offer<D::Candidate>, Option<D::Candidate>),
    ) -> Result<(), Outcome> {
        self.compute(trial, &mut results.compared, fill, offer.candidate)?;
        self.compare_with_f64(fill, &results.compared)
            .map_err(Outcome::Wrong)?;
        let Some(other) = trusted else { return Ok(()) };
        self.compare(fill, offer.same_bits, &results.compared, &results.trusted)
            .map_err(|what| {
                let promised = match offer.same_bits {
                    true => ", whose bits it promised",
                    false => "",
                };
                Outcome::Wrong(format!("{what} of `{other}`{promised}"))
            })
    }

    fn compute(
        &self,
        trial: &mut D::Trial,
        written: &mut Written,
        fill: Fill,
        candidate: D::Candidate,
    ) -> Result<(), Outcome> {
        let (device, problem) = (self.device, self.problem);
        let unavailable = Outcome::Unavailable;
        let outputs: &[Operand] = match writes_aux(problem) {
            true => &[Operand::C, Operand::Aux],
            false => &[Operand::C],
        };
        self.write(trial, fill, outputs).map_err(unavailable)?;
        device
            .launch(problem, candidate, &mut device.operands(trial, problem))
            .map_err(|failure| unavailable(Unavailable(failure.to_string())))?;
        written.aux.clear();
        outputs.iter().try_for_each(|&operand| {
            let into = match operand {
                Operand::Aux => &mut written.aux,
                _ => &mut written.c,
            };
            let read = device.read(trial, problem, operand, into);
            read.map_err(unavailable)
        })
    }

    fn write(
        &self,
        trial: &mut D::Trial,
        fill: Fill,
        operands: &[Operand],
    ) -> Result<(), Unavailable> {
        operands.iter().try_for_each(|&operand| {
            let value = |index| value(fill, operand, index, self.problem.inputs);
            self.device.write(trial, self.problem, operand, &value)
        })
    }

    fn compare_with_f64(&self, fill: Fill, written: &Written) -> Result<(), String> {
        let n = self.problem.n;
        for (row, column) in places(self.problem.m, n) {
            let expected = Expected::new(self.problem, fill, row, column);
            let index = row * n + column;
            let pairs = [
                ("C", &written.c, expected.c),
                ("aux", &written.aux, expected.sum),
            ];
            for (name, got, (want, bound)) in pairs {
                let Some(got) = got.get(index).copied().map(f64::from) else {
                    continue;
                };
                if !within(got, want, bound) {
                    let kind = fill.name();
                    return Err(format!(
                        "{name}[{row}, {column}] is {got:e} with {kind} operands, not the {want:e} of f64"
                    ));
                }
            }
        }
        Ok(())
    }

    fn compare(
        &self,
        fill: Fill,
        same_bits: bool,
        written: &Written,
        expected: &Written,
    ) -> Result<(), String> {
        let n = self.problem.n;
        let activated = matches!(
            self.problem.epilogue,
            Epilogue::BiasGelu(_) | Epilogue::GeluBackward(_)
        );
        let sum_is_exact = fill == Fill::Integers;
        let pairs = [
            ("C", &written.c, &expected.c, sum_is_exact && !activated),
            ("aux", &written.aux, &expected.aux, sum_is_exact),
        ];
        // Both sides may be off. The products of random operands are 1/12 on average.
        let k = self.problem.k as f64;
        let rounding = 2.0 * accumulated(self.problem.k, k / 8.0);
        // What an error of the slope is multiplied by: a sum of K products of integers has a standard
        // deviation of 2 sqrt(K).
        let sloped = match self.problem.epilogue {
            Epilogue::GeluBackward(_) => 10.0 * k.sqrt(),
            _ => 1.0,
        };
        for (name, got, want, exact) in pairs {
            for (index, (got, want)) in got.iter().zip(want).enumerate() {
                let (got, want) = (f64::from(*got), f64::from(*want));
                let is_close = || {
                    // Of C, and of the sum that it is the activation of.
                    let roundings = 2.0 + 2.0 * f64::from(u8::from(activated));
                    let output = roundings * output_rounding(self.problem) * want.abs();
                    let activation = 2.0 * f64::from(u8::from(activated)) * ACTIVATION;
                    let bound = rounding + output + activation * want.abs().max(sloped);
                    within(got, want, bound)
                };
                let equal = got.to_bits() == want.to_bits();
                if !equal && (same_bits || (exact && got != want) || !is_close()) {
                    let (row, column, kind) = (index / n, index % n, fill.name());
                    return Err(format!(
                        "{name}[{row}, {column}] is {got:e} with {kind} operands, not the {want:e}"
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Fill {
    fn name(self) -> &'static str {
        match self {
            Fill::Integers => "integer",
            Fill::Random => "random",
        }
    }
}

/// An element of C in f64: what is summed, and what the epilogue makes of it, each with a bound on the
/// error of a candidate that rounds as it should.
struct Expected {
    sum: (f64, f64),
    c: (f64, f64),
}

impl Expected {
    fn new(problem: &Problem, fill: Fill, row: usize, column: usize) -> Self {
        let (m, n, k) = (problem.m, problem.n, problem.k);
        let at = |operand, index| f64::from(value(fill, operand, index, problem.inputs));
        let (mut sum, mut magnitude) = (0.0, 0.0);
        for depth in 0..k {
            let a = match problem.a {
                Stored::AsIs => at(Operand::A, row * k + depth),
                Stored::Transposed => at(Operand::A, depth * m + row),
            };
            let b = match problem.b {
                Stored::AsIs => at(Operand::B, depth * n + column),
                Stored::Transposed => at(Operand::B, column * k + depth),
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
        let activated = |value: f64| {
            // The slope of GELU is below 1.13. It may be taken of the sum as aux has it, rounded.
            let error = 1.13 * (error + rounded(sum));
            let activation = ACTIVATION * value.abs().max(sum.abs()).max(1.0);
            (value, error + activation + rounded(value))
        };
        Self {
            sum: (sum, error + rounded(sum)),
            c: match problem.epilogue {
                Epilogue::None | Epilogue::Bias => (sum, error + rounded(sum)),
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

/// A NaN is within no bound.
fn within(got: f64, want: f64, bound: f64) -> bool {
    (got - want).abs() <= bound
}

/// The error of a sum of `k` terms whose absolute values sum up to `magnitude`: the errors of the
/// additions are independent, so they grow as the root of their number (Higham and Mary 2019,
/// doi:10.1137/18M1226312); four times that is never seen.
fn accumulated(k: usize, magnitude: f64) -> f64 {
    4.0 * (k as f64).sqrt() * ADDITION * magnitude
}

/// Relative error of storing an element of C, fp32's where nothing is rounded to less.
fn output_rounding(problem: &Problem) -> f64 {
    match (problem.output, problem.inputs) {
        (OutputType::LikeInputs, Inputs::Bfloat16) => 1.0 / 256.0,
        (OutputType::LikeInputs, Inputs::Float16) => 1.0 / 2048.0,
        _ => ADDITION,
    }
}

/// The corners of C, where tiles are cut off, and places all over it.
fn places(m: usize, n: usize) -> impl Iterator<Item = (usize, usize)> {
    let corners = [(0, 0), (0, n - 1), (m - 1, 0), (m - 1, n - 1)];
    let elsewhere = (0..PLACES).map(move |index| {
        let hash = scramble(index as u64);
        ((hash >> 32) as usize % m, (hash & 0xFFFF_FFFF) as usize % n)
    });
    corners.into_iter().chain(elsewhere)
}

/// Element `index` of an operand: an integer from -2 to 2, or a number below 1 with as many significant
/// bits as the inputs have.
fn value(fill: Fill, operand: Operand, index: usize, inputs: Inputs) -> f32 {
    let hash = scramble((index as u64) << 3 | operand as u64);
    if fill == Fill::Integers {
        return (hash % 5) as f32 - 2.0;
    }
    let bits = match inputs {
        Inputs::Float32 | Inputs::Float32InPieces => 24,
        Inputs::Tf32 | Inputs::Float16 => 11,
        Inputs::Bfloat16 | Inputs::Float32AsBfloat16 => 8,
    };
    let top = 1u64 << (bits - 1);
    let significand = (top | (hash & (top - 1))) as f32;
    let exponent = (hash >> 40) % 5;
    let sign = if hash >> 63 == 0 { 1.0 } else { -1.0 };
    sign * significand / (1u64 << (bits + exponent)) as f32
}

/// SplitMix64's output function (Steele, Lea and Flood 2014, doi:10.1145/2714064.2660195).
fn scramble(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
