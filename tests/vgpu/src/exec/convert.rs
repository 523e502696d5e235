//! `cvt`: between all types, in all directions of rounding.

use half::{bf16, f16};

use super::code::{Code, Reg};
use super::decode::{Decoded, Decoding};
use super::float::{NAN, canonical, flush, saturate};
use super::lanes::{LaneFn, binary, unary};
use super::rounding::{BRAIN, Format, HALF, Rounding, SINGLE, TENSOR, round_to, widen};
use crate::ptx::types::Type;

/// A conversion of one value.
#[derive(Clone, Copy)]
struct Conversion {
    to: Type,
    from: Type,
    /// Of the result, where it is a float.
    rounding: Rounding,
    /// To a whole number first.
    whole: Option<Rounding>,
    saturate: bool,
    finite: bool,
    relu: bool,
    flush: bool,
}

const WHOLE: [(&str, Rounding); 4] = [
    ("rni", Rounding::NearestEven),
    ("rzi", Rounding::Zero),
    ("rmi", Rounding::Down),
    ("rpi", Rounding::Up),
];

pub fn decode(d: &mut Decoding) -> Decoded {
    if d.name != "cvt" {
        return Ok(None);
    }
    let [to, from] = d.types[..] else {
        return Ok(None);
    };
    let away = d.take("rna").then_some(Rounding::NearestAway);
    let conversion = Conversion {
        to,
        from,
        rounding: d
            .take_one_of(&Rounding::MODIFIERS)
            .or(away)
            .unwrap_or(Rounding::NearestEven),
        whole: d.take_one_of(&WHOLE),
        saturate: d.take("sat"),
        finite: d.take("satfinite"),
        relu: d.take("relu"),
        flush: d.take("ftz"),
    };
    if let Some(pair) = pairs(d, conversion) {
        return pair;
    }
    let small = |ty: Type| {
        matches!(
            ty,
            Type::Tf32 | Type::E4m3x2 | Type::E5m2x2 | Type::F16x2 | Type::Bf16x2
        )
    };
    if small(from) || (small(to) && to != Type::Tf32) || to == Type::Pred || from == Type::Pred {
        return Ok(None);
    }
    let run = fast(conversion).unwrap_or_else(|| unary(move |bits: u64| conversion.run(bits)));
    let Some(Code::Lanes {
        run,
        to: register,
        from: sources,
    }) = d.lanes(&[from], run)?
    else {
        return Ok(None);
    };
    let run = widened(run, to, register);
    Ok(Some(Code::Lanes {
        run,
        to: register,
        from: sources,
    }))
}

/// A narrow signed result fills its wider register with its sign.
fn widened(run: LaneFn, to: Type, register: Reg) -> LaneFn {
    if !to.signed() || register.bits <= to.bits() {
        return run;
    }
    let (unused, keep) = (64 - to.bits(), u64::MAX >> (64 - register.bits));
    Box::new(move |from, out| {
        run(from, out);
        out.0
            .iter_mut()
            .for_each(|x| *x = ((*x << unused) as i64 >> unused) as u64 & keep);
    })
}

/// The conversions that kernels are full of, without a detour over doubles.
fn fast(c: Conversion) -> Option<LaneFn> {
    if c.flush || c.saturate || c.relu || c.finite || c.rounding != Rounding::NearestEven {
        return None;
    }
    Some(match (c.to, c.from, c.whole) {
        (Type::F32, Type::S32, None) => unary(|a: i32| a as f32),
        (Type::F32, Type::U32, None) => unary(|a: u32| a as f32),
        (Type::F64, Type::F32, None) => unary(|a: f32| f64::from(a)),
        (Type::F32, Type::F64, None) => unary(|a: f64| canonical(a as f32)),
        (Type::F32, Type::F16, None) => unary(|a: f16| canonical(a.to_f32())),
        (Type::F32, Type::Bf16, None) => unary(|a: bf16| canonical(a.to_f32())),
        (Type::F16, Type::F32, None) => unary(|a: f32| {
            if a.is_nan() {
                0x7fff
            } else {
                f16::from_f32(a).to_bits()
            }
        }),
        (Type::Bf16, Type::F32, None) => unary(|a: f32| {
            if a.is_nan() {
                0x7fff
            } else {
                bf16::from_f32(a).to_bits()
            }
        }),
        (to, from, None) if !to.float() && !from.float() => {
            let (unused, keep) = (64 - from.bits(), u64::MAX >> (64 - to.bits()));
            if from.signed() {
                unary(move |a: u64| ((a << unused) as i64 >> unused) as u64 & keep)
            } else {
                unary(move |a: u64| a << unused >> unused & keep)
            }
        }
        _ => return None,
    })
}

fn format(ty: Type) -> Option<Format> {
    match ty {
        Type::F16 => Some(HALF),
        Type::Bf16 => Some(BRAIN),
        Type::F32 => Some(SINGLE),
        Type::Tf32 => Some(TENSOR),
        _ => None,
    }
}

impl Conversion {
    fn run(self, bits: u64) -> u64 {
        if self.from.float() {
            self.number(bits)
        } else {
            self.integer(bits)
        }
    }

    fn integer(self, bits: u64) -> u64 {
        let unused = 64 - self.from.bits();
        let value = if self.from.signed() {
            i128::from((bits << unused) as i64 >> unused)
        } else {
            i128::from(bits << unused >> unused)
        };
        match self.to {
            Type::F64 if self.rounding == Rounding::NearestEven => (value as f64).to_bits(),
            to if to.float() => {
                // A double may not hold 64 bits: what it lost makes it odd, which later rounding sees.
                let near = value as f64;
                let rest = value - near as i128;
                if to == Type::F64 {
                    return super::rounding::double(near, rest as f64, self.rounding).to_bits();
                }
                self.float(super::rounding::to_odd(near, rest as f64))
            }
            to => {
                let value = if self.saturate {
                    clamp(value, to)
                } else {
                    value
                };
                value as u64 & (u64::MAX >> (64 - to.bits()))
            }
        }
    }

    fn number(self, bits: u64) -> u64 {
        let mut value = match self.from {
            Type::F64 => f64::from_bits(bits),
            Type::F32 if self.flush => flush(f32::from_bits(bits as u32)).into(),
            Type::F32 => f32::from_bits(bits as u32).into(),
            from => format(from).map_or(f64::NAN, |format| widen(bits, format)),
        };
        if let Some(whole) = self.whole {
            value = match whole {
                Rounding::Zero => value.trunc(),
                Rounding::Down => value.floor(),
                Rounding::Up => value.ceil(),
                _ => value.round_ties_even(),
            };
        }
        if self.to.float() {
            return self.float(value);
        }
        // Out of range clamps. NaN gives zero, but the top bit where either side is 64 bits wide.
        let value = match value.is_nan() {
            true if self.to.bits() == 64 || self.from == Type::F64 => {
                return 1 << (self.to.bits() - 1);
            }
            true => 0,
            false => clamp(value as i128, self.to),
        };
        value as u64 & (u64::MAX >> (64 - self.to.bits()))
    }

    fn float(self, value: f64) -> u64 {
        let value = match value {
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
        let Some(format) = format(self.to) else {
            return value.to_bits();
        };
        if self.to == Type::Tf32 {
            // Kept in the upper bits of a single.
            let bits = if value.is_nan() {
                0x3_ffff
            } else {
                round_to(value, format, self.rounding)
            };
            return if value.is_nan() {
                u64::from(NAN.to_bits())
            } else {
                bits << 13
            };
        }
        let bits = round_to(value, format, self.rounding);
        let infinity = ((1u64 << format.exponent) - 1) << format.fraction;
        match self.to {
            Type::F32 if value.is_nan() => NAN.to_bits().into(),
            Type::F32 if self.flush => flush(f32::from_bits(bits as u32)).to_bits().into(),
            Type::F32 if self.saturate => saturate(f32::from_bits(bits as u32)).to_bits().into(),
            _ if value.is_nan() => 0x7fff,
            _ if self.finite && bits & infinity == infinity => bits - 1,
            _ => bits,
        }
    }
}

fn clamp(value: i128, to: Type) -> i128 {
    let bits = to.bits();
    if to.signed() {
        value.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    } else {
        value.clamp(0, (1 << bits) - 1)
    }
}

/// Two values into one register, the first operand above; and pairs of 8-bit floats.
fn pairs(d: &mut Decoding, c: Conversion) -> Option<Decoded> {
    let eight = |ty: Type| matches!(ty, Type::E4m3x2 | Type::E5m2x2);
    let element = match c.to {
        Type::F16x2 => Type::F16,
        Type::Bf16x2 => Type::Bf16,
        _ => Type::F32,
    };
    let one = Conversion { to: element, ..c };
    Some(match (c.to, c.from) {
        (Type::F16x2 | Type::Bf16x2, Type::F32) => d.lanes(
            &[Type::F32; 2],
            binary(move |high: u64, low: u64| one.run(high) << 16 | one.run(low)),
        ),
        (to, Type::F32) if eight(to) => d.lanes(
            &[Type::F32; 2],
            binary(move |high: f32, low: f32| {
                u64::from(byte(high.into(), to, c.relu)) << 8
                    | u64::from(byte(low.into(), to, c.relu))
            }),
        ),
        (to, Type::F16x2) if eight(to) => d.lanes(
            &[Type::F16x2],
            unary(move |pair: u32| {
                let [low, high] =
                    [pair, pair >> 16].map(|bits| widen(u64::from(bits & 0xffff), HALF));
                u64::from(byte(high, to, c.relu)) << 8 | u64::from(byte(low, to, c.relu))
            }),
        ),
        (Type::F16x2, from) if eight(from) => d.lanes(
            &[from],
            unary(move |pair: u32| {
                let [low, high] = [pair, pair >> 8].map(|bits| {
                    let value = from_byte(bits as u8, from);
                    if value.is_nan() {
                        0x7fff
                    } else {
                        round_to(value, HALF, Rounding::NearestEven)
                    }
                });
                high << 16 | low
            }),
        ),
        _ => return None,
    })
}

/// 8-bit floats saturate at their largest finite value (`.satfinite` is obligatory). `e4m3` has no infinity, one NaN, and uses
/// the exponent of all ones for numbers up to 448.
fn byte(x: f64, to: Type, relu: bool) -> u8 {
    let x = if relu && x <= 0.0 { 0.0 } else { x };
    let (format, largest) = match to {
        // One more exponent than IEEE would give it: rounded in a format that has it.
        Type::E4m3x2 => (
            Format {
                fraction: 3,
                exponent: 5,
            },
            448.0,
        ),
        _ => (
            Format {
                fraction: 2,
                exponent: 5,
            },
            57344.0,
        ),
    };
    if x.is_nan() {
        return 0x7f;
    }
    let x = x.clamp(-largest, largest);
    let sign = u8::from(x.is_sign_negative()) << 7;
    if to == Type::E5m2x2 {
        return round_to(x, format, Rounding::NearestEven) as u8;
    }
    // Scaled so that the subnormals of the wider exponent (bias 15) are those of e4m3 (bias 7).
    let scaled = round_to(x.abs() / 256.0, format, Rounding::NearestEven) as u8;
    sign | scaled.min(0x7e)
}

fn from_byte(bits: u8, from: Type) -> f64 {
    if from == Type::E5m2x2 {
        return widen(
            bits.into(),
            Format {
                fraction: 2,
                exponent: 5,
            },
        );
    }
    if bits & 0x7f == 0x7f {
        return f64::NAN;
    }
    let magnitude = widen(
        u64::from(bits & 0x7f),
        Format {
            fraction: 3,
            exponent: 5,
        },
    ) * 256.0;
    if bits & 0x80 != 0 {
        -magnitude
    } else {
        magnitude
    }
}
