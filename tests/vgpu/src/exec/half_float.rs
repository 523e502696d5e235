//! Arithmetic of `.f16`, `.bf16` and pairs of them: exact in doubles, rounded once.

use half::{bf16, f16};

use super::decode::{Decoded, Decoding};
use super::float::extreme;
use super::lanes::{LaneFn, binary, ternary, unary};
use super::rounding::{BRAIN, Format, HALF, Rounding, fma_to_odd, round_to};
use crate::ptx::types::Type;

/// A 16-bit format; `pair`: two in a register.
#[derive(Clone, Copy)]
pub struct Small {
    pub format: Format,
    pub pair: bool,
}

impl Small {
    pub fn of(ty: Type) -> Option<Self> {
        let (format, pair) = match ty {
            Type::F16 => (HALF, false),
            Type::F16x2 => (HALF, true),
            Type::Bf16 => (BRAIN, false),
            Type::Bf16x2 => (BRAIN, true),
            _ => return None,
        };
        Some(Self { format, pair })
    }

    #[inline]
    pub fn widen(self, bits: u16) -> f64 {
        if self.format == HALF {
            f16::from_bits(bits).to_f32().into()
        } else {
            bf16::from_bits(bits).to_f32().into()
        }
    }

    /// To nearest; every NaN is the canonical one.
    #[inline]
    pub fn round(self, x: f64) -> u16 {
        if x.is_nan() {
            0x7fff
        } else {
            round_to(x, self.format, Rounding::NearestEven) as u16
        }
    }

    /// For one value, or for the two halves.
    pub fn map(self, f: impl Fn([u16; 3]) -> u16) -> impl Fn(u32, u32, u32) -> u32 {
        move |a, b, c| {
            let low = u32::from(f([a as u16, b as u16, c as u16]));
            if !self.pair {
                return low;
            }
            let high = [a, b, c].map(|x| (x >> 16) as u16);
            low | u32::from(f(high)) << 16
        }
    }
}

/// `.ftz`, `.sat` and `.relu` of an instruction.
#[derive(Clone, Copy)]
struct Ends {
    small: Small,
    flush: bool,
    saturate: bool,
    relu: bool,
}

impl Ends {
    fn enter(self, bits: u16) -> f64 {
        let bits = if self.flush && bits & 0x7c00 == 0 {
            bits & 0x8000
        } else {
            bits
        };
        self.small.widen(bits)
    }
    fn leave(self, x: f64) -> u16 {
        let x = match x {
            // NaN: zero when saturated, NaN through relu.
            x if self.saturate => {
                if x > 0.0 {
                    x.min(1.0)
                } else {
                    0.0
                }
            }
            x if self.relu && x <= 0.0 => 0.0,
            x => x,
        };
        let bits = self.small.round(x);
        if self.flush && bits & 0x7c00 == 0 {
            bits & 0x8000
        } else {
            bits
        }
    }
}

pub fn decode(d: &mut Decoding) -> Decoded {
    let Some((ty, small)) = d.ty().ok().and_then(|ty| Some((ty, Small::of(ty)?))) else {
        return Ok(None);
    };
    let flush = d.take("ftz") && small.format == HALF;
    d.take("rn");
    d.take("approx");
    let ends = Ends {
        small,
        flush,
        saturate: d.take("sat"),
        relu: d.take("relu"),
    };
    let apply = move |f: fn(f64, f64, f64) -> f64| {
        small.map(move |[a, b, c]| ends.leave(f(ends.enter(a), ends.enter(b), ends.enter(c))))
    };
    let one = |f: fn(f64, f64, f64) -> f64| -> LaneFn {
        let f = apply(f);
        unary(move |a: u32| f(a, 0, 0))
    };
    let two = |f: fn(f64, f64, f64) -> f64| -> LaneFn {
        let f = apply(f);
        binary(move |a: u32, b: u32| f(a, b, 0))
    };
    match d.name {
        "add" => d.lanes(&[ty; 2], two(|a, b, _| fma_to_odd(a, 1.0, b))),
        "sub" => d.lanes(&[ty; 2], two(|a, b, _| fma_to_odd(a, 1.0, -b))),
        "mul" => d.lanes(&[ty; 2], two(|a, b, _| a * b)),
        "fma" => {
            let f = apply(fma_to_odd);
            d.lanes(&[ty; 3], ternary(f))
        }
        "ex2" => d.lanes(&[ty], one(|a, _, _| a.exp2())),
        "tanh" => d.lanes(&[ty], one(|a, _, _| a.tanh())),
        "min" | "max" => minimum(d, ty, ends),
        "abs" | "neg" => {
            let (keep, flip) = if d.name == "abs" {
                (0x7fff, 0)
            } else {
                (0xffff, 0x8000)
            };
            let f = small.map(move |[a, ..]| {
                let a = if flush && a & 0x7c00 == 0 {
                    a & 0x8000
                } else {
                    a
                };
                (a & keep) ^ flip
            });
            d.lanes(&[ty], unary(move |a: u32| f(a, 0, 0)))
        }
        _ => Ok(None),
    }
}

fn minimum(d: &mut Decoding, ty: Type, ends: Ends) -> Decoded {
    let (smaller, nan, xor) = (d.name == "min", d.take("NaN"), d.take("xorsign"));
    if xor && !d.take("abs") {
        return Ok(None);
    }
    let f = ends.small.map(move |[a, b, _]| {
        let sign = (a ^ b) & 0x8000;
        let (a, b) = if xor {
            (a & 0x7fff, b & 0x7fff)
        } else {
            (a, b)
        };
        let picked = ends.leave(extreme(ends.enter(a), ends.enter(b), smaller, nan));
        if xor { picked & 0x7fff | sign } else { picked }
    });
    d.lanes(&[ty; 2], binary(move |a: u32, b: u32| f(a, b, 0)))
}
