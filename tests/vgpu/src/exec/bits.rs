//! Bits: logic, shifts, fields, counts, permutations.

use super::code::{Code, PredicateSource};
use super::decode::{Decoded, Decoding};
use super::lanes::{LaneFn, binary, for_integer, quaternary, ternary, unary};
use crate::ptx::types::Type;

pub fn decode(d: &mut Decoding) -> Decoded {
    if matches!(d.name, "and" | "or" | "xor" | "not") && d.types == [Type::Pred] {
        return predicates(d);
    }
    let Ok(ty) = d.ty() else { return Ok(None) };
    let run = match d.name {
        "and" => for_integer!(ty, T => binary(|a: T, b: T| a & b)),
        "or" => for_integer!(ty, T => binary(|a: T, b: T| a | b)),
        "xor" => for_integer!(ty, T => binary(|a: T, b: T| a ^ b)),
        "not" => for_integer!(ty, T => unary(|a: T| !a)),
        "cnot" => for_integer!(ty, T => unary(|a: T| T::from(a == 0))),
        "shl" => for_integer!(ty, T => binary(|a: T, n: u32| if n < T::BITS { a << n } else { 0 })),
        // The sign fills from above where there is one.
        "shr" => {
            for_integer!(ty, T => binary(|a: T, n: u32| a >> (n.min(T::BITS - 1)) >> u32::from(n >= T::BITS)))
        }
        "popc" => for_integer!(ty, T => unary(|a: T| a.count_ones())),
        "clz" => for_integer!(ty, T => unary(|a: T| a.leading_zeros())),
        "brev" => for_integer!(ty, T => unary(|a: T| a.reverse_bits())),
        "bfind" => return find(d, ty),
        "bfe" => return extract(d, ty),
        "bfi" => return insert(d, ty),
        "shf" => return funnel(d),
        "lop3" => return any_of_three(d),
        "prmt" => return permute(d),
        "bmsk" => return mask(d),
        "szext" => return extend(d, ty),
        _ => return Ok(None),
    };
    let types: &[Type] = match d.name {
        "and" | "or" | "xor" => &[ty, ty],
        "shl" | "shr" => &[ty, Type::U32],
        _ => &[ty],
    };
    match run {
        Some(run) => d.lanes(types, run),
        None => Ok(None),
    }
}

fn predicates(d: &mut Decoding) -> Decoded {
    let run: fn(u32, u32) -> u32 = match d.name {
        "and" => |a, b| a & b,
        "or" => |a, b| a | b,
        "xor" => |a, b| a ^ b,
        _ => |a, _| !a,
    };
    let b = if d.name == "not" {
        PredicateSource::Constant(false)
    } else {
        d.predicate(2)?
    };
    Ok(Some(Code::Predicate {
        to: d.to_predicate(0)?,
        run,
        from: [d.predicate(1)?, b],
    }))
}

/// `bfind`: the highest bit that differs from the sign; all ones when there is none.
fn find(d: &mut Decoding, ty: Type) -> Decoded {
    let amount = d.take("shiftamt");
    let bits = ty.bits();
    let signed = ty.signed();
    let run = unary(move |a: u64| {
        let a = if signed {
            ((a << (64 - bits)) as i64 >> (64 - bits)) as u64
        } else {
            a
        };
        let a = if signed && (a as i64) < 0 { !a } else { a };
        match a.checked_ilog2() {
            Some(at) if amount => bits - 1 - at,
            Some(at) => at,
            None => u32::MAX,
        }
    });
    d.lanes(&[ty], run)
}

/// `bfe`: position and length are bytes; above the field its sign, or zero.
fn extract(d: &mut Decoding, ty: Type) -> Decoded {
    let (width, signed) = (ty.bits(), ty.signed());
    let run = ternary(move |a: u64, at: u32, length: u32| {
        let (at, length) = (at & 0xff, length & 0xff);
        if length == 0 {
            return 0;
        }
        let wide = if signed {
            i128::from((a << (64 - width)) as i64 >> (64 - width))
        } else {
            i128::from(a)
        };
        // The sign bit is that of the field, or the operand's where the field ends beyond it.
        let shifted = wide >> at.min(127);
        let field = if length >= width {
            shifted
        } else {
            let unused = 128 - length;
            let last = at + length - 1;
            if signed && last < width {
                shifted << unused >> unused
            } else if signed {
                shifted
            } else {
                shifted & ((1 << length) - 1)
            }
        };
        field as u64 & (u64::MAX >> (64 - width))
    });
    d.lanes(&[ty, Type::U32, Type::U32], run)
}

/// `bfi`: the low bits of `a` in a field of `b`.
fn insert(d: &mut Decoding, ty: Type) -> Decoded {
    let width = ty.bits();
    let run = quaternary(move |a: u64, b: u64, at: u64, length: u64| {
        let (at, length) = (at & 0xff, length & 0xff);
        let field = if length >= 64 {
            u128::from(u64::MAX)
        } else {
            (1u128 << length) - 1
        };
        let mask = if at >= u64::from(width) {
            0
        } else {
            (field << at) as u64
        };
        let moved = if at >= 64 { 0 } else { a << at };
        ((b & !mask) | (moved & mask)) & (u64::MAX >> (64 - width))
    });
    d.lanes(&[ty, ty, Type::U32, Type::U32], run)
}

/// `shf`: 32 bits out of 64, `b` above `a`.
fn funnel(d: &mut Decoding) -> Decoded {
    let (left, clamp) = (d.take("l"), d.take("clamp"));
    if !(left || d.take("r")) || !(clamp || d.take("wrap")) {
        return Ok(None);
    }
    let run = ternary(move |a: u32, b: u32, n: u32| {
        let n = if clamp { n.min(32) } else { n & 31 };
        let both = u64::from(b) << 32 | u64::from(a);
        if left {
            (both << n >> 32) as u32
        } else {
            (both >> n) as u32
        }
    });
    d.lanes(&[Type::B32; 3], run)
}

/// `lop3`: the logic of three that `0xf0`, `0xcc` and `0xaa` give when put in the table.
fn any_of_three(d: &mut Decoding) -> Decoded {
    let table = d.integer(4)? as u8;
    d.operands.pop();
    let run = ternary(move |a: u32, b: u32, c: u32| {
        let mut out = 0;
        for row in (0..8).filter(|row| table >> row & 1 == 1) {
            let pick = |x: u32, bit: u32| if row & bit != 0 { x } else { !x };
            out |= pick(a, 4) & pick(b, 2) & pick(c, 1);
        }
        out
    });
    d.lanes(&[Type::B32; 3], run)
}

/// `prmt`: bytes of `b` above `a`, picked by `c`.
fn permute(d: &mut Decoding) -> Decoded {
    const MODES: [(&str, usize); 6] = [
        ("f4e", 0),
        ("b4e", 1),
        ("rc8", 2),
        ("ecl", 3),
        ("ecr", 4),
        ("rc16", 5),
    ];
    let mode = d.take_one_of(&MODES);
    let run: LaneFn = ternary(move |a: u32, b: u32, c: u32| {
        let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
        let n = c as usize & 3;
        let picked: [usize; 4] = match mode {
            None => [0, 1, 2, 3].map(|i| (c >> (4 * i)) as usize & 15),
            Some(0) => [n, n + 1, n + 2, n + 3],
            Some(1) => [n, (n + 7) & 7, (n + 6) & 7, (n + 5) & 7],
            Some(2) => [n; 4],
            Some(3) => [n, n.max(1), n.max(2), 3],
            Some(4) => [0, n.min(1), n.min(2), n],
            Some(_) => [0, 1, 0, 1].map(|i| i + 2 * (n & 1)),
        };
        // Bit 3 of a pick spreads the sign of its byte.
        u32::from_le_bytes(picked.map(|pick| match pick & 8 {
            0 => bytes[pick],
            _ => ((bytes[pick & 7] as i8) >> 7) as u8,
        }))
    });
    d.lanes(&[Type::B32; 3], run)
}

/// `bmsk`: so many ones from a position on.
fn mask(d: &mut Decoding) -> Decoded {
    let clamp = d.take("clamp");
    if !clamp && !d.take("wrap") {
        return Ok(None);
    }
    let run = binary(move |at: u32, length: u32| {
        let (at, length) = if clamp {
            (at.min(32), length.min(32))
        } else {
            (at & 31, length & 31)
        };
        (((1u64 << length) - 1) << at) as u32
    });
    d.lanes(&[Type::B32; 2], run)
}

/// `szext`: keeps so many low bits, the sign or zero above.
fn extend(d: &mut Decoding, ty: Type) -> Decoded {
    let clamp = d.take("clamp");
    if !clamp && !d.take("wrap") {
        return Ok(None);
    }
    let signed = ty.signed();
    let run = binary(move |a: u32, n: u32| {
        let n = if clamp { n.min(32) } else { n & 31 };
        match 32 - n {
            32 => 0,
            unused if signed => ((a << unused) as i32 >> unused) as u32,
            unused => a << unused >> unused,
        }
    });
    d.lanes(&[ty, Type::U32], run)
}
