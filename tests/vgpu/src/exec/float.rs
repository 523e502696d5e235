//! Arithmetic of `.f32` and `.f64`. The `.approx` forms give the accurate value, rounded: a card may differ in the last bits.

use super::decode::{Decoded, Decoding};
use super::lanes::{LaneFn, binary, ternary, unary};
use super::rounding::{Rounding, double, single, two_sum};
use crate::ptx::types::Type;

/// What a card gives for every NaN that a single-precision operation makes.
pub const NAN: f32 = f32::from_bits(0x7fff_ffff);

/// `.ftz` and `.sat` of an instruction.
#[derive(Clone, Copy)]
struct Ends {
    flush: bool,
    saturate: bool,
}

impl Ends {
    #[inline(always)]
    fn enter(self, x: f32) -> f32 {
        if self.flush { flush(x) } else { x }
    }
    #[inline(always)]
    fn leave(self, x: f32) -> f32 {
        let x = canonical(x);
        let x = if self.flush { flush(x) } else { x };
        if self.saturate { saturate(x) } else { x }
    }
}

/// Every NaN as a card gives it. On bits: in terms of floats the compiler may take one NaN for another.
#[inline(always)]
pub fn canonical(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 {
        NAN.to_bits()
    } else {
        bits
    })
}

/// Subnormals to zero of the same sign.
pub fn flush(x: f32) -> f32 {
    if x.is_subnormal() {
        0f32.copysign(x)
    } else {
        x
    }
}

/// Into 0..=1, NaN to zero.
pub fn saturate(x: f32) -> f32 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

pub fn decode(d: &mut Decoding) -> Decoded {
    match d.ty() {
        Ok(Type::F32) => singles(d),
        Ok(Type::F64) => doubles(d),
        _ => Ok(None),
    }
}

fn singles(d: &mut Decoding) -> Decoded {
    let known =
        "add sub mul fma mad div rcp sqrt rsqrt min max abs neg copysign ex2 lg2 sin cos tanh";
    if !known.split(' ').any(|name| name == d.name) {
        return Ok(None);
    }
    let ends = Ends {
        flush: d.take("ftz"),
        saturate: d.take("sat"),
    };
    let rounding = d
        .take_one_of(&Rounding::MODIFIERS)
        .unwrap_or(Rounding::NearestEven);
    let nearest = rounding == Rounding::NearestEven;
    let approximate = d.take("approx") | d.take("full");
    let f = Type::F32;
    match d.name {
        "add" if nearest => d.lanes(&[f; 2], two(ends, |a, b| a + b)),
        "sub" if nearest => d.lanes(&[f; 2], two(ends, |a, b| a - b)),
        "mul" if nearest => d.lanes(&[f; 2], two(ends, |a, b| a * b)),
        "fma" | "mad" if nearest => d.lanes(&[f; 3], three(ends, f32::mul_add)),
        "div" if nearest || approximate => d.lanes(&[f; 2], two(ends, |a, b| a / b)),
        "rcp" if nearest => d.lanes(&[f], one(ends, |a| 1.0 / a)),
        "sqrt" if nearest => d.lanes(&[f], one(ends, f32::sqrt)),
        "add" => d.lanes(
            &[f; 2],
            two(ends, move |a, b| sum(a.into(), b.into(), rounding)),
        ),
        "sub" => d.lanes(
            &[f; 2],
            two(ends, move |a, b| sum(a.into(), (-b).into(), rounding)),
        ),
        "mul" => d.lanes(
            &[f; 2],
            two(ends, move |a, b| {
                single(f64::from(a) * f64::from(b), 0.0, rounding)
            }),
        ),
        "fma" | "mad" => d.lanes(
            &[f; 3],
            three(ends, move |a, b, c| {
                sum(f64::from(a) * f64::from(b), c.into(), rounding)
            }),
        ),
        "div" => d.lanes(&[f; 2], two(ends, move |a, b| quotient(a, b, rounding))),
        "rcp" => d.lanes(&[f], one(ends, move |a| quotient(1.0, a, rounding))),
        "sqrt" => d.lanes(&[f], one(ends, move |a| root(a, rounding))),
        _ => singles_more(d, ends),
    }
}

fn singles_more(d: &mut Decoding, ends: Ends) -> Decoded {
    let f = Type::F32;
    match d.name {
        "min" | "max" => {
            let (nan, xor, smaller) = (d.take("NaN"), d.take("xorsign"), d.name == "min");
            if xor && !d.take("abs") {
                return Ok(None);
            }
            d.lanes(
                &[f; 2],
                two(ends, move |a, b| {
                    let sign = (a.to_bits() ^ b.to_bits()) & 1 << 31;
                    let (a, b) = if xor { (a.abs(), b.abs()) } else { (a, b) };
                    let picked = extreme(a.into(), b.into(), smaller, nan) as f32;
                    if xor {
                        f32::from_bits(picked.to_bits() & !(1 << 31) | sign)
                    } else {
                        picked
                    }
                }),
            )
        }
        // Bits only: a NaN keeps its payload.
        "abs" => d.lanes(&[f], unary(move |a: f32| ends.enter(a).abs())),
        "neg" => d.lanes(&[f], unary(move |a: f32| -ends.enter(a))),
        "copysign" => d.lanes(&[f; 2], binary(|sign: f32, a: f32| a.copysign(sign))),
        "rsqrt" => d.lanes(&[f], one(ends, through_double(|a| 1.0 / a.sqrt()))),
        "ex2" => d.lanes(&[f], one(ends, through_double(f64::exp2))),
        "lg2" => d.lanes(&[f], one(ends, through_double(f64::log2))),
        "sin" => d.lanes(&[f], one(ends, through_double(f64::sin))),
        "cos" => d.lanes(&[f], one(ends, through_double(f64::cos))),
        "tanh" => d.lanes(&[f], one(ends, through_double(f64::tanh))),
        _ => Ok(None),
    }
}

fn through_double(f: impl Fn(f64) -> f64 + Copy) -> impl Fn(f32) -> f32 + Copy {
    move |a| f(a.into()) as f32
}

fn one(ends: Ends, f: impl Fn(f32) -> f32 + Send + Sync + 'static) -> LaneFn {
    unary(move |a: f32| ends.leave(f(ends.enter(a))))
}

fn two(ends: Ends, f: impl Fn(f32, f32) -> f32 + Send + Sync + 'static) -> LaneFn {
    if ends.flush || ends.saturate {
        binary(move |a: f32, b: f32| ends.leave(f(ends.enter(a), ends.enter(b))))
    } else {
        binary(move |a: f32, b: f32| canonical(f(a, b)))
    }
}

fn three(ends: Ends, f: impl Fn(f32, f32, f32) -> f32 + Send + Sync + 'static) -> LaneFn {
    if ends.flush || ends.saturate {
        ternary(move |a: f32, b: f32, c: f32| {
            ends.leave(f(ends.enter(a), ends.enter(b), ends.enter(c)))
        })
    } else {
        ternary(move |a: f32, b: f32, c: f32| canonical(f(a, b, c)))
    }
}

/// A sum of zero has the sign that the direction gives it.
fn sum(a: f64, b: f64, rounding: Rounding) -> f32 {
    let (high, low) = two_sum(a, b);
    if high == 0.0
        && rounding == Rounding::Down
        && (a != 0.0 || a.is_sign_negative() != b.is_sign_negative())
    {
        return -0.0;
    }
    single(high, low, rounding)
}

fn quotient(a: f32, b: f32, rounding: Rounding) -> f32 {
    let (a, b) = (f64::from(a), f64::from(b));
    let high = a / b;
    if !high.is_finite() || a == 0.0 || b.is_infinite() {
        return high as f32;
    }
    // Only the sign of what is lost matters, and its being lost.
    let rest = (-high).mul_add(b, a);
    single(
        high,
        sign_of_rest(rest, b) * high.abs() * f64::EPSILON,
        rounding,
    )
}

fn sign_of_rest(rest: f64, by: f64) -> f64 {
    if rest == 0.0 {
        0.0
    } else {
        rest.signum() * by.signum()
    }
}

fn root(a: f32, rounding: Rounding) -> f32 {
    let a = f64::from(a);
    let high = a.sqrt();
    if !high.is_finite() || high == 0.0 {
        return high as f32;
    }
    let rest = (-high).mul_add(high, a);
    single(
        high,
        sign_of_rest(rest, 1.0) * high * f64::EPSILON,
        rounding,
    )
}

/// The number where one is NaN (or NaN if asked for); minus zero is below zero.
pub fn extreme(a: f64, b: f64, smaller: bool, nan: bool) -> f64 {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => f64::NAN,
        (true, false) | (false, true) if nan => f64::NAN,
        (true, false) => b,
        (false, true) => a,
        _ if a == b => {
            let a_below = a.is_sign_negative();
            if a_below == smaller { a } else { b }
        }
        _ if (a < b) == smaller => a,
        _ => b,
    }
}

fn doubles(d: &mut Decoding) -> Decoded {
    let approximate = d.take("approx");
    let flush = d.take("ftz");
    let rounding = d
        .take_one_of(&Rounding::MODIFIERS)
        .unwrap_or(Rounding::NearestEven);
    let f = Type::F64;
    match d.name {
        "add" => d.lanes(
            &[f; 2],
            binary(move |a: f64, b: f64| sum_double(a, b, rounding)),
        ),
        "sub" => d.lanes(
            &[f; 2],
            binary(move |a: f64, b: f64| sum_double(a, -b, rounding)),
        ),
        "mul" => d.lanes(
            &[f; 2],
            binary(move |a: f64, b: f64| {
                let high = a * b;
                double(
                    high,
                    if rounding == Rounding::NearestEven {
                        0.0
                    } else {
                        a.mul_add(b, -high)
                    },
                    rounding,
                )
            }),
        ),
        "fma" | "mad" => d.lanes(
            &[f; 3],
            ternary(move |a: f64, b: f64, c: f64| fma_double(a, b, c, rounding)),
        ),
        "div" => d.lanes(
            &[f; 2],
            binary(move |a: f64, b: f64| quotient_double(a, b, rounding)),
        ),
        "rcp" if approximate => d.lanes(&[f], unary(move |a: f64| coarse(a, flush, |a| 1.0 / a))),
        "rsqrt" if approximate => d.lanes(
            &[f],
            unary(move |a: f64| coarse(a, flush, |a| 1.0 / a.sqrt())),
        ),
        "rcp" => d.lanes(&[f], unary(move |a: f64| quotient_double(1.0, a, rounding))),
        "sqrt" => d.lanes(
            &[f],
            unary(move |a: f64| {
                let high = a.sqrt();
                double(high, (-high).mul_add(high, a), rounding)
            }),
        ),
        "min" => d.lanes(&[f; 2], binary(|a: f64, b: f64| extreme(a, b, true, false))),
        "max" => d.lanes(
            &[f; 2],
            binary(|a: f64, b: f64| extreme(a, b, false, false)),
        ),
        "abs" => d.lanes(&[f], unary(f64::abs)),
        "neg" => d.lanes(&[f], unary(|a: f64| -a)),
        "copysign" => d.lanes(&[f; 2], binary(|sign: f64, a: f64| a.copysign(sign))),
        _ => Ok(None),
    }
}

/// The `.approx.ftz.f64` forms see and give the upper 32 bits only.
fn coarse(a: f64, flush: bool, f: impl Fn(f64) -> f64) -> f64 {
    let high = |x: f64| f64::from_bits(x.to_bits() & !0xffff_ffff);
    let zero = |x: f64| {
        if flush && x.is_subnormal() {
            0f64.copysign(x)
        } else {
            x
        }
    };
    zero(high(f(zero(high(a)))))
}

fn sum_double(a: f64, b: f64, rounding: Rounding) -> f64 {
    if rounding == Rounding::NearestEven {
        return a + b;
    }
    let (high, low) = two_sum(a, b);
    if high == 0.0
        && rounding == Rounding::Down
        && (a != 0.0 || a.is_sign_negative() != b.is_sign_negative())
    {
        return -0.0;
    }
    double(high, low, rounding)
}

fn quotient_double(a: f64, b: f64, rounding: Rounding) -> f64 {
    let high = a / b;
    if rounding == Rounding::NearestEven || !high.is_finite() || b.is_infinite() {
        return high;
    }
    double(high, sign_of_rest((-high).mul_add(b, a), b), rounding)
}

/// What the nearest result loses, by Boldo and Muller's error of an fma.
fn fma_double(a: f64, b: f64, c: f64, rounding: Rounding) -> f64 {
    let high = a.mul_add(b, c);
    if rounding == Rounding::NearestEven || !high.is_finite() {
        return high;
    }
    let product = a * b;
    let product_low = a.mul_add(b, -product);
    let (sum, sum_low) = two_sum(c, product_low);
    let (upper, upper_low) = two_sum(product, sum);
    let rest = (upper - high) + upper_low;
    double(high, rest + sum_low, rounding)
}
