//! Fills of operands and comparisons of results, for the verification of candidates.
//!
//! Both run where the matrices are. The CPU uses the functions here. kernels/gemm_check.cu has the same for a GPU, so
//! that only the samples for f64 are copied.

use super::candidate::Operand;
use crate::terms::Inputs;

/// Values of an operand's elements. Every type of input holds them exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Integers from -2 to 2: sums are exact.
    Integers,
    /// Numbers below 1 with as many significant bits as the inputs have.
    Random,
}

impl Fill {
    /// Element `index` of an operand.
    pub fn value(self, operand: Operand, index: usize, inputs: Inputs) -> f32 {
        let hash = scramble((index as u64) << 3 | operand as u64);
        if self == Fill::Integers {
            return (hash % 5) as f32 - 2.0;
        }
        let bits = significant_bits(inputs);
        let top = 1u64 << (bits - 1);
        let significand = (top | (hash & (top - 1))) as f32;
        let exponent = (hash >> 40) % 5;
        let sign = if hash >> 63 == 0 { 1.0 } else { -1.0 };
        sign * significand / (1u64 << (u64::from(bits) + exponent)) as f32
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Fill::Integers => "integer",
            Fill::Random => "random",
        }
    }
}

/// Significant bits of a number that is multiplied without rounding.
pub(super) fn significant_bits(inputs: Inputs) -> u32 {
    match inputs {
        Inputs::Float32 | Inputs::Float32InPieces => 24,
        Inputs::Tf32 | Inputs::Float16 => 11,
        Inputs::Bfloat16 | Inputs::Float32AsBfloat16 => 8,
    }
}

/// SplitMix64's output function (Steele, Lea and Flood 2014, doi:10.1145/2714064.2660195).
pub(super) fn scramble(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Largest distance of an element from the one that it is compared with: the sum of the terms below.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tolerance {
    /// No distance at all, not even in the sign of zero. The other fields are ignored then.
    pub same_bits: bool,
    pub absolute: f32,
    /// Relative to the element.
    pub relative: f32,
    /// Relative to the element, or to `floor` where that is larger.
    pub floored: f32,
    pub floor: f32,
}

impl Tolerance {
    /// Whether `got` is close enough. A NaN is close to nothing but its own bits.
    pub fn allows(&self, got: f32, want: f32) -> bool {
        if got.to_bits() == want.to_bits() {
            return true;
        }
        let size = want.abs();
        let bound = self.absolute + self.relative * size + self.floored * size.max(self.floor);
        !self.same_bits && (got - want).abs() <= bound
    }
}

/// An element that is too far from the one that it is compared with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mismatch {
    pub index: usize,
    pub got: f32,
    pub want: f32,
}

/// Result of the comparison of two matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Comparison {
    pub first: Option<Mismatch>,
    /// The largest difference anywhere; infinite with a NaN.
    pub largest_error: f32,
}

impl Comparison {
    /// Comparison of one element.
    pub fn of(index: usize, got: f32, want: f32, tolerance: &Tolerance) -> Self {
        let error = (got - want).abs();
        Self {
            first: (!tolerance.allows(got, want)).then_some(Mismatch { index, got, want }),
            largest_error: if got.to_bits() == want.to_bits() {
                0.0
            } else if error.is_nan() {
                f32::INFINITY
            } else {
                error
            },
        }
    }

    /// Comparison of the elements of both.
    pub fn and(self, other: Self) -> Self {
        let firsts = self.first.into_iter().chain(other.first);
        Self {
            first: firsts.min_by_key(|mismatch| mismatch.index),
            largest_error: self.largest_error.max(other.largest_error),
        }
    }
}
