//! The floating-point types that a model is computed in on the CPU.

use std::fmt::{Debug, Display};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

/// A type that the CPU computes in: f32, in which taper trains, or f64, in which its tests check the same code.
///
/// The f32 functions are straight-line polynomials, so that a loop over them vectorises.
pub trait Element:
    candle_core::WithDType
    + Copy
    + Default
    + Debug
    + Display
    + PartialOrd
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + Sum
    + 'static
{
    const ZERO: Self;
    const ONE: Self;
    const NEG_INFINITY: Self;

    fn of(value: f64) -> Self;
    fn widen(self) -> f64;
    /// `self * b + c`, rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;
    fn sqrt(self) -> Self;
    fn ln(self) -> Self;
    fn larger(self, other: Self) -> Self;
    fn exp(self) -> Self;
    /// Distribution function and density of the standard normal at `self`.
    fn normal_cdf_pdf(self) -> (Self, Self);
}

/// 1 / sqrt(2 pi).
const INV_SQRT_TAU: f64 = 0.398_942_280_401_432_7;

impl Element for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const NEG_INFINITY: Self = f32::NEG_INFINITY;

    #[inline(always)]
    fn of(value: f64) -> Self {
        value as f32
    }

    #[inline(always)]
    fn widen(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        f32::mul_add(self, b, c)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }

    #[inline(always)]
    fn ln(self) -> Self {
        f32::ln(self)
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }

    /// exp(x) = 2^n * exp(r), with n the integer nearest to x / ln 2 and |r| <= ln 2 / 2, where a
    /// polynomial of degree 6 (interpolated at Chebyshev nodes) is within 1.1e-8. Inputs below
    /// -87.3 give the smallest normal number instead of a denormal or zero.
    #[inline(always)]
    fn exp(self) -> Self {
        // Adding 1.5 * 2^23 rounds to an integer, which is then found in the low mantissa bits.
        const ROUND: f32 = 12_582_912.0;
        const LN_2_HIGH: f32 = 0.693_359_4;
        const LN_2_LOW: f32 = -2.121_944_4e-4;
        // A NaN fails both comparisons and so stays a NaN.
        let x = if self < -87.3 { -87.3 } else { self };
        let x = if x > 88.3 { 88.3 } else { x };
        let shifted = f32::mul_add(x, std::f32::consts::LOG2_E, ROUND);
        let n = shifted - ROUND;
        let r = f32::mul_add(n, -LN_2_HIGH, x);
        let r = f32::mul_add(n, -LN_2_LOW, r);
        let mut q = f32::mul_add(1.392_617_6e-3, r, 8.363_173e-3);
        q = f32::mul_add(q, r, 4.166_655_5e-2);
        q = f32::mul_add(q, r, 1.666_657_7e-1);
        q = f32::mul_add(q, r, 0.5);
        let exp_r = f32::mul_add(q, r * r, r) + 1.0;
        let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits());
        exp_r * f32::from_bits(exponent.wrapping_add(127) << 23)
    }

    /// 2 * cdf(-a) = erfc(a / sqrt 2) = exp(-a^2 / 2) * p(t) with t = 1 / (1 + a / 4) for a >= 0:
    /// the form of Abramowitz and Stegun 7.1.26, with p of degree 7 fitted to within 4.7e-8.
    #[inline(always)]
    fn normal_cdf_pdf(self) -> (Self, Self) {
        let a = self.abs();
        let t = 1.0 / f32::mul_add(a, 0.25, 1.0);
        let mut p = f32::mul_add(-1.949_626_6e-1, t, 7.395_877e-1);
        p = f32::mul_add(p, t, -6.469_049e-1);
        p = f32::mul_add(p, t, 6.843_662e-1);
        p = f32::mul_add(p, t, -2.683_350_2e-2);
        p = f32::mul_add(p, t, 2.519_590_7e-1);
        p = f32::mul_add(p, t, 1.923_849_4e-1);
        p = f32::mul_add(p, t, 4.031_333e-4);
        let bell = Element::exp(-0.5 * a * a);
        let tail = 0.5 * p * bell;
        let cdf = if self < 0.0 { tail } else { 1.0 - tail };
        (cdf, bell * INV_SQRT_TAU as f32)
    }
}

impl Element for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const NEG_INFINITY: Self = f64::NEG_INFINITY;

    #[inline(always)]
    fn of(value: f64) -> Self {
        value
    }

    #[inline(always)]
    fn widen(self) -> f64 {
        self
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        f64::mul_add(self, b, c)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }

    #[inline(always)]
    fn ln(self) -> Self {
        f64::ln(self)
    }

    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }

    fn exp(self) -> Self {
        f64::exp(self)
    }

    fn normal_cdf_pdf(self) -> (Self, Self) {
        let cdf = 0.5 * libm::erfc(-self * std::f64::consts::FRAC_1_SQRT_2);
        (cdf, INV_SQRT_TAU * (-0.5 * self * self).exp())
    }
}

/// Running sums or maxima of one loop.
const LANES: usize = 32;

/// Sum of `term([a[i], b[i], ..])` over slices of one length. It has 32 running sums so that it vectorises.
#[inline(always)]
pub(in crate::ops) fn sum<T: Element, U: Element, const N: usize>(
    slices: [&[T]; N],
    term: impl Fn([T; N]) -> U,
) -> U {
    let parts = slices.map(|slice| slice.as_chunks::<LANES>());
    let (chunks, tails) = (parts.map(|part| part.0), parts.map(|part| part.1));
    let mut lanes = [U::ZERO; LANES];
    for i in 0..chunks[0].len() {
        let chunk = chunks.map(|chunks| &chunks[i]);
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += term(chunk.map(|chunk| chunk[lane]));
        }
    }
    let mut total = fold(lanes, |a, b| a + b);
    for i in 0..tails[0].len() {
        total += term(tails.map(|tail| tail[i]));
    }
    total
}

/// Largest of `values`; negative infinity if there are none.
#[inline(always)]
pub(in crate::ops) fn max<T: Element>(values: &[T]) -> T {
    let mut lanes = [T::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let tail = chunks.remainder();
    for chunk in chunks {
        for (best, &value) in lanes.iter_mut().zip(chunk) {
            *best = best.larger(value);
        }
    }
    tail.iter()
        .fold(fold(lanes, T::larger), |best, &value| best.larger(value))
}

#[inline(always)]
fn fold<T: Element>(lanes: [T; LANES], combine: impl Fn(T, T) -> T) -> T {
    let mut lanes = lanes;
    for width in [16, 8, 4, 2, 1] {
        for lane in 0..width {
            lanes[lane] = combine(lanes[lane], lanes[lane + width]);
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f32_exp_is_within_two_ulp_of_the_exact_value() {
        for i in -8700..8800 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            let error = (f64::from(Element::exp(x)) - exact).abs() / exact;
            assert!(error < 2.0 * f64::from(f32::EPSILON), "exp({x}): {error:e}");
        }
        assert!(Element::exp(f32::NAN).is_nan());
        assert_eq!(Element::exp(0f32), 1.0);
    }

    #[test]
    fn f32_normal_distribution_is_within_1_5e_7() {
        for i in -1500..1500 {
            let x = i as f32 * 0.01;
            let (cdf, pdf) = x.normal_cdf_pdf();
            let (exact_cdf, exact_pdf) = f64::from(x).normal_cdf_pdf();
            assert!((f64::from(cdf) - exact_cdf).abs() < 1.5e-7, "cdf({x})");
            assert!((f64::from(pdf) - exact_pdf).abs() < 1e-7, "pdf({x})");
        }
    }

    #[test]
    fn sum_and_max_agree_with_the_plain_loops_at_every_length() {
        for len in 0..100 {
            let values: Vec<f64> = (0..len).map(|i| ((i * 37) % 11) as f64 - 5.0).collect();
            assert_eq!(sum([&values[..]], |[x]| x), values.iter().sum::<f64>());
            let plain = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            assert_eq!(max(&values), plain);
        }
    }
}
