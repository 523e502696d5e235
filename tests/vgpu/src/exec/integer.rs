//! Integer arithmetic. It wraps; division by zero gives all ones, as cards do.

use super::code::{Code, Reg, Source};
use super::decode::{Decoded, Decoding};
use super::lanes::{LaneFn, Lanes, binary, for_integer, ternary, unary};
use crate::ptx::types::Type;

pub fn decode(d: &mut Decoding) -> Decoded {
    let arithmetic = matches!(
        d.name,
        "add"
            | "sub"
            | "addc"
            | "subc"
            | "mul"
            | "mad"
            | "madc"
            | "mul24"
            | "mad24"
            | "div"
            | "rem"
            | "min"
            | "max"
            | "abs"
            | "neg"
            | "sad"
            | "dp4a"
            | "dp2a"
    );
    if !arithmetic {
        return Ok(None);
    }
    if d.name == "dp4a" {
        return dot(d);
    }
    let Ok(ty) = d.ty() else { return Ok(None) };
    if ty.float() || !matches!(ty.bits(), 16 | 32 | 64) || matches!(ty, Type::F16x2 | Type::Bf16x2)
    {
        return Ok(None);
    }
    if d.has("cc") || matches!(d.name, "addc" | "subc" | "madc") {
        return carry(d, ty);
    }
    if matches!(ty, Type::U16x2 | Type::S16x2) {
        return pairs(d, ty);
    }
    match d.name {
        "mul" | "mad" => product(d, ty),
        "mul24" | "mad24" => product24(d, ty),
        "abs" | "neg" => {
            let negate = d.name == "neg";
            let run = for_integer!(ty, T => unary(move |a: T| {
                if negate || (a as i128) < 0 { (0 as T).wrapping_sub(a) } else { a }
            }));
            one(d, &[ty], run)
        }
        "sad" => {
            let run = for_integer!(ty, T => ternary(|a: T, b: T, c: T| {
                c.wrapping_add(if a < b { b.wrapping_sub(a) } else { a.wrapping_sub(b) })
            }));
            one(d, &[ty; 3], run)
        }
        _ => two(d, ty),
    }
}

fn one(d: &mut Decoding, types: &[Type], run: Option<LaneFn>) -> Decoded {
    match run {
        Some(run) => d.lanes(types, run),
        None => Ok(None),
    }
}

fn two(d: &mut Decoding, ty: Type) -> Decoded {
    let run: Option<LaneFn> = match (d.name, d.take("sat")) {
        ("add", true) if ty == Type::S32 => Some(binary(i32::saturating_add)),
        ("sub", true) if ty == Type::S32 => Some(binary(i32::saturating_sub)),
        (_, true) => None,
        ("add", _) => for_integer!(ty, T => binary(|a: T, b: T| a.wrapping_add(b))),
        ("sub", _) => for_integer!(ty, T => binary(|a: T, b: T| a.wrapping_sub(b))),
        ("min", _) => for_integer!(ty, T => binary(|a: T, b: T| a.min(b))),
        ("max", _) => for_integer!(ty, T => binary(|a: T, b: T| a.max(b))),
        ("div", _) => {
            for_integer!(ty, T => binary(|a: T, b: T| if b == 0 { !0 } else { a.wrapping_div(b) }))
        }
        ("rem", _) => {
            for_integer!(ty, T => binary(|a: T, b: T| if b == 0 { a } else { a.wrapping_rem(b) }))
        }
        _ => None,
    };
    one(d, &[ty; 2], run)
}

fn product(d: &mut Decoding, ty: Type) -> Decoded {
    let adds = d.name == "mad";
    if d.take("wide") {
        return wide(d, ty, adds);
    }
    let run: Option<LaneFn> = if d.take("hi") {
        let saturate = d.take("sat");
        match ty {
            Type::S32 if saturate => Some(ternary(|a: i32, b: i32, c: i32| {
                high32(a, b).saturating_add(c)
            })),
            Type::U32 => Some(ternary(|a: u32, b: u32, c: u32| {
                ((u64::from(a) * u64::from(b)) >> 32).wrapping_add(u64::from(c)) as u32
            })),
            Type::S32 => Some(ternary(|a: i32, b: i32, c: i32| {
                high32(a, b).wrapping_add(c)
            })),
            _ => for_integer!(ty, T => ternary(|a: T, b: T, c: T| {
                let high = (a as i128).wrapping_mul(b as i128) >> T::BITS;
                (high as T).wrapping_add(c)
            })),
        }
    } else if d.take("lo") {
        if adds {
            for_integer!(ty, T => ternary(|a: T, b: T, c: T| a.wrapping_mul(b).wrapping_add(c)))
        } else {
            for_integer!(ty, T => binary(|a: T, b: T| a.wrapping_mul(b)))
        }
    } else {
        None
    };
    // Without an addend its source is zero.
    one(d, &[ty; 3][..if adds { 3 } else { 2 }], run)
}

fn high32(a: i32, b: i32) -> i32 {
    ((i64::from(a) * i64::from(b)) >> 32) as i32
}

fn wide(d: &mut Decoding, ty: Type, adds: bool) -> Decoded {
    let (run, double): (LaneFn, Type) = match ty {
        Type::U16 => (
            ternary(|a: u16, b: u16, c: u32| (u32::from(a) * u32::from(b)).wrapping_add(c)),
            Type::U32,
        ),
        Type::S16 => (
            ternary(|a: i16, b: i16, c: i32| (i32::from(a) * i32::from(b)).wrapping_add(c)),
            Type::S32,
        ),
        Type::U32 => (
            ternary(|a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c)),
            Type::U64,
        ),
        Type::S32 => (
            ternary(|a: i32, b: i32, c: i64| (i64::from(a) * i64::from(b)).wrapping_add(c)),
            Type::S64,
        ),
        _ => return Ok(None),
    };
    d.lanes(&[ty, ty, double][..if adds { 3 } else { 2 }], run)
}

/// Products of the low 24 bits: bits 0..32 or 16..48 of the result.
fn product24(d: &mut Decoding, ty: Type) -> Decoded {
    let shift = if d.take("hi") { 16 } else { 0 };
    d.take("lo");
    let adds = d.name == "mad24";
    let run: LaneFn = match ty {
        Type::U32 => ternary(move |a: u32, b: u32, c: u32| {
            let product = u64::from(a & 0xff_ffff) * u64::from(b & 0xff_ffff);
            ((product >> shift) as u32).wrapping_add(c)
        }),
        Type::S32 => ternary(move |a: i32, b: i32, c: i32| {
            let product = i64::from(a << 8 >> 8) * i64::from(b << 8 >> 8);
            ((product >> shift) as i32).wrapping_add(c)
        }),
        _ => return Ok(None),
    };
    d.lanes(&[ty; 3][..if adds { 3 } else { 2 }], run)
}

/// Two 16-bit integers in a register.
fn pairs(d: &mut Decoding, ty: Type) -> Decoded {
    let signed = ty == Type::S16x2;
    let pick: fn(i32, i32) -> i32 = match d.name {
        "add" => |a, b| a + b,
        "sub" => |a, b| a - b,
        "min" => |a, b| a.min(b),
        "max" => |a, b| a.max(b),
        _ => return Ok(None),
    };
    let half = move |bits: u32| {
        if signed {
            i32::from(bits as i16)
        } else {
            i32::from(bits as u16)
        }
    };
    let run = binary(move |a: u32, b: u32| {
        let low = pick(half(a), half(b)) as u32 & 0xffff;
        let high = pick(half(a >> 16), half(b >> 16)) as u32;
        low | high << 16
    });
    d.lanes(&[ty; 2], run)
}

/// `dp4a`: four products of bytes and an addend.
fn dot(d: &mut Decoding) -> Decoded {
    let [a, b] = d.types[..] else { return Ok(None) };
    let byte = |word: u32, i: usize, signed: bool| {
        let byte = word.to_le_bytes()[i];
        if signed {
            i32::from(byte as i8)
        } else {
            i32::from(byte)
        }
    };
    let (sa, sb) = (a.signed(), b.signed());
    let run = ternary(move |a: u32, b: u32, c: u32| {
        let sum: i32 = (0..4).map(|i| byte(a, i, sa) * byte(b, i, sb)).sum();
        c.wrapping_add(sum as u32)
    });
    d.lanes(&[Type::B32; 3], run)
}

/// Arithmetic with the carry of the thread.
pub struct Carry {
    to: Reg,
    pub from: [Source; 3],
    kind: Chain,
    bits: u32,
    signed: bool,
    takes: bool,
    gives: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Chain {
    Add,
    Subtract,
    Low,
    High,
}

fn carry(d: &mut Decoding, ty: Type) -> Decoded {
    let (low, high) = (d.take("lo"), d.take("hi"));
    let (kind, takes) = match d.name {
        "add" => (Chain::Add, false),
        "addc" => (Chain::Add, true),
        "sub" => (Chain::Subtract, false),
        "subc" => (Chain::Subtract, true),
        "mad" | "madc" if low => (Chain::Low, d.name == "madc"),
        "mad" | "madc" if high => (Chain::High, d.name == "madc"),
        _ => return Ok(None),
    };
    let count = if matches!(kind, Chain::Low | Chain::High) {
        3
    } else {
        2
    };
    d.expect_operands(count + 1)?;
    let mut from = [d.constant(0); 3];
    for (i, source) in from.iter_mut().enumerate().take(count) {
        *source = d.from(i + 1, ty)?;
    }
    let gives = d.take("cc");
    let carry = Carry {
        to: d.to(0)?,
        from,
        kind,
        bits: ty.bits(),
        signed: ty.signed(),
        takes,
        gives,
    };
    Ok(Some(Code::Carry(Box::new(carry))))
}

impl Carry {
    /// The result, its register, and the carries that come out.
    pub fn run(&self, [a, b, c]: [&Lanes; 3], carries: u32) -> (Lanes, Reg, u32) {
        let (mut out, mut after) = (Lanes::ZERO, 0);
        let mask = (1u128 << self.bits) - 1;
        let extend = |bits: u64| {
            let unused = 128 - self.bits;
            if self.signed {
                (i128::from(bits) << unused >> unused) as u128
            } else {
                u128::from(bits) & mask
            }
        };
        for i in 0..out.0.len() {
            let taken = u128::from(self.takes && carries >> i & 1 == 1);
            let (x, y, z) = (
                u128::from(a.0[i]) & mask,
                u128::from(b.0[i]) & mask,
                u128::from(c.0[i]) & mask,
            );
            let product = extend(a.0[i]).wrapping_mul(extend(b.0[i]));
            let sum = match self.kind {
                Chain::Add => x + y + taken,
                // The borrow shows above the width.
                Chain::Subtract => x.wrapping_sub(y).wrapping_sub(taken),
                Chain::Low => (product & mask) + z + taken,
                Chain::High => (product >> self.bits & mask) + z + taken,
            };
            out.0[i] = (sum & mask) as u64;
            after |= u32::from(sum & !mask != 0) << i;
        }
        (out, self.to, if self.gives { after } else { carries })
    }
}
