//! Integer instructions against plain Rust, on edge values.

mod common;

use common::{check, run_instruction};

const EDGES_16: [u64; 10] = [0, 1, 2, 7, 0x7ffe, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff];
const EDGES_32: [u64; 12] = [
    0,
    1,
    2,
    31,
    32,
    0x1234_5678,
    0x7fff_ffff,
    0x8000_0000,
    0x8000_0001,
    0xdead_beef,
    0xffff_fffe,
    0xffff_ffff,
];
const EDGES_64: [u64; 12] = [
    0,
    1,
    3,
    63,
    64,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0x8000_0000_0000_0001,
    0xffff_ffff,
    0x1_0000_0000,
    0xdead_beef_1234_5678,
    u64::MAX,
];

/// Checks `name.type %d, %a, %b` for a type of 16, 32 and 64 bits.
macro_rules! check_two {
    ($name:literal, $f:expr, $($ty:ident $suffix:literal),*) => {$(
        let f: fn($ty, $ty) -> $ty = $f;
        let (bits, edges): (u32, &[u64]) = match <$ty>::BITS {
            16 => (16, &EDGES_16),
            32 => (32, &EDGES_32),
            _ => (64, &EDGES_64),
        };
        let instruction = format!("{}.{} %d, %a, %b;", $name, $suffix);
        check(&instruction, bits, &[bits, bits], edges, |v| f(v[0] as $ty, v[1] as $ty) as u64);
    )*};
}

#[test]
fn sums_products_and_extremes_wrap() {
    check_two!("add", |a, b| a.wrapping_add(b), u16 "u16", u32 "u32", i64 "s64");
    check_two!("sub", |a, b| a.wrapping_sub(b), i16 "s16", i32 "s32", u64 "u64");
    check_two!("mul.lo", |a, b| a.wrapping_mul(b), u16 "u16", i32 "s32", u64 "u64");
    check_two!("min", |a, b| a.min(b), u16 "u16", i32 "s32", u32 "u32", i64 "s64", u64 "u64");
    check_two!("max", |a, b| a.max(b), i16 "s16", i32 "s32", u32 "u32", i64 "s64", u64 "u64");
    check_two!("add.sat", |a, b| a.saturating_add(b), i32 "s32");
    check_two!("sub.sat", |a, b| a.saturating_sub(b), i32 "s32");
}

#[test]
fn high_halves_of_products() {
    check_two!("mul.hi", |a, b| ((u32::from(a) * u32::from(b)) >> 16) as u16, u16 "u16");
    check_two!("mul.hi", |a, b| ((i32::from(a) * i32::from(b)) >> 16) as i16, i16 "s16");
    check_two!("mul.hi", |a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32, u32 "u32");
    check_two!("mul.hi", |a, b| ((i64::from(a) * i64::from(b)) >> 32) as i32, i32 "s32");
    check_two!("mul.hi", |a, b| ((u128::from(a) * u128::from(b)) >> 64) as u64, u64 "u64");
    check_two!("mul.hi", |a, b| ((i128::from(a) * i128::from(b)) >> 64) as i64, i64 "s64");
}

#[test]
fn division_is_total() {
    check_two!("div", |a, b| a.checked_div(b).unwrap_or(u32::MAX), u32 "u32");
    check_two!("div", |a, b| if b == 0 { -1 } else { a.wrapping_div(b) }, i32 "s32", i64 "s64", i16 "s16");
    check_two!("rem", |a, b| if b == 0 { a } else { a.wrapping_rem(b) }, i32 "s32", i64 "s64", u64 "u64");
    // INT_MIN / -1 wraps.
    let row = vec![0x8000_0000, 0xffff_ffff];
    assert_eq!(
        run_instruction("div.s32 %d, %a, %b;", 32, &[32, 32], &[row]),
        [0x8000_0000]
    );
}

#[test]
fn wide_products_and_multiply_add() {
    check("mul.wide.u32 %d, %a, %b;", 64, &[32, 32], &EDGES_32, |v| {
        v[0] * v[1]
    });
    check("mul.wide.s32 %d, %a, %b;", 64, &[32, 32], &EDGES_32, |v| {
        (i64::from(v[0] as i32) * i64::from(v[1] as i32)) as u64
    });
    check("mul.wide.s16 %d, %a, %b;", 32, &[16, 16], &EDGES_16, |v| {
        (i32::from(v[0] as i16) * i32::from(v[1] as i16)) as u64
    });
    let three = [0u64, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
    check(
        "mad.lo.s32 %d, %a, %b, %c;",
        32,
        &[32, 32, 32],
        &three,
        |v| v[0].wrapping_mul(v[1]).wrapping_add(v[2]),
    );
    check(
        "mad.hi.u32 %d, %a, %b, %c;",
        32,
        &[32, 32, 32],
        &three,
        |v| ((v[0] * v[1]) >> 32) + v[2],
    );
    check(
        "mad.wide.u32 %d, %a, %b, %c;",
        64,
        &[32, 32, 64],
        &three,
        |v| (v[0] * v[1]).wrapping_add(v[2]),
    );
    check("mul24.lo.u32 %d, %a, %b;", 32, &[32, 32], &three, |v| {
        (v[0] & 0xff_ffff) * (v[1] & 0xff_ffff)
    });
    check("sad.s32 %d, %a, %b, %c;", 32, &[32, 32, 32], &three, |v| {
        let (a, b) = (i64::from(v[0] as i32), i64::from(v[1] as i32));
        ((a - b).unsigned_abs()).wrapping_add(v[2])
    });
}

#[test]
fn one_operand() {
    check("abs.s32 %d, %a;", 32, &[32], &EDGES_32, |v| {
        (v[0] as i32).wrapping_abs() as u64
    });
    check("neg.s64 %d, %a;", 64, &[64], &EDGES_64, |v| {
        v[0].wrapping_neg()
    });
    check("not.b16 %d, %a;", 16, &[16], &EDGES_16, |v| !v[0]);
    check("cnot.b32 %d, %a;", 32, &[32], &EDGES_32, |v| {
        u64::from(v[0] == 0)
    });
    check("popc.b64 %d, %a;", 32, &[64], &EDGES_64, |v| {
        v[0].count_ones().into()
    });
    check("clz.b32 %d, %a;", 32, &[32], &EDGES_32, |v| {
        (v[0] as u32).leading_zeros().into()
    });
    check("brev.b64 %d, %a;", 64, &[64], &EDGES_64, |v| {
        v[0].reverse_bits()
    });
    check("bfind.u32 %d, %a;", 32, &[32], &EDGES_32, |v| {
        v[0].checked_ilog2().map_or(0xffff_ffff, u64::from)
    });
    check("bfind.shiftamt.u32 %d, %a;", 32, &[32], &EDGES_32, |v| {
        v[0].checked_ilog2()
            .map_or(0xffff_ffff, |at| u64::from(31 - at))
    });
    check("bfind.s32 %d, %a;", 32, &[32], &EDGES_32, |v| {
        let v = v[0] as i32;
        let v = if v < 0 { !v } else { v };
        v.checked_ilog2().map_or(0xffff_ffff, u64::from)
    });
}

#[test]
fn shifts_clamp_their_count() {
    let counts = [
        0u64,
        1,
        15,
        16,
        31,
        32,
        33,
        63,
        64,
        0x8000_0000,
        0xffff_ffff,
    ];
    check("shl.b32 %d, %a, %b;", 32, &[32, 32], &counts, |v| {
        if v[1] < 32 { v[0] << v[1] } else { 0 }
    });
    check("shr.u32 %d, %a, %b;", 32, &[32, 32], &counts, |v| {
        if v[1] < 32 { v[0] >> v[1] } else { 0 }
    });
    check("shr.s32 %d, %a, %b;", 32, &[32, 32], &counts, |v| {
        ((v[0] as i32) >> v[1].min(31)) as u64
    });
    check("shr.s64 %d, %a, %b;", 64, &[64, 32], &EDGES_64[..8], |v| {
        ((v[0] as i64) >> (v[1] as u32).min(63)) as u64
    });
    check("shl.b16 %d, %a, %b;", 16, &[16, 32], &counts, |v| {
        if v[1] < 16 { v[0] << v[1] } else { 0 }
    });
    check("shr.s16 %d, %a, %b;", 16, &[16, 32], &EDGES_16, |v| {
        ((v[0] as i16) >> v[1].min(15)) as u64
    });
    let wide = |v: &[u64]| v[1] << 32 | v[0];
    check(
        "shf.l.wrap.b32 %d, %a, %b, %c;",
        32,
        &[32, 32, 32],
        &EDGES_32[..10],
        |v| wide(v) << (v[2] & 31) >> 32,
    );
    check(
        "shf.r.wrap.b32 %d, %a, %b, %c;",
        32,
        &[32, 32, 32],
        &EDGES_32[..10],
        |v| wide(v) >> (v[2] & 31),
    );
    check(
        "shf.l.clamp.b32 %d, %a, %b, %c;",
        32,
        &[32, 32, 32],
        &EDGES_32[..10],
        |v| wide(v) << v[2].min(32) >> 32,
    );
    check(
        "shf.r.clamp.b32 %d, %a, %b, %c;",
        32,
        &[32, 32, 32],
        &EDGES_32[..10],
        |v| wide(v) >> v[2].min(32),
    );
}

#[test]
fn logic_of_two_and_three() {
    check_two!("and", |a, b| a & b, u16 "b16", u32 "b32", u64 "b64");
    check_two!("or", |a, b| a | b, u16 "b16", u32 "b32", u64 "b64");
    check_two!("xor", |a, b| a ^ b, u16 "b16", u32 "b32", u64 "b64");
    let some = [0x0f0f_0f0fu64, 0x3333_3333, 0x5555_5555, 0xdead_beef, 0];
    // Tables from the ISA: the same expression on 0xF0, 0xCC, 0xAA.
    check("lop3.b32 %d, %a, %b, %c, 0x80;", 32, &[32; 3], &some, |v| {
        v[0] & v[1] & v[2]
    });
    check("lop3.b32 %d, %a, %b, %c, 0xfe;", 32, &[32; 3], &some, |v| {
        v[0] | v[1] | v[2]
    });
    check("lop3.b32 %d, %a, %b, %c, 0x96;", 32, &[32; 3], &some, |v| {
        v[0] ^ v[1] ^ v[2]
    });
    check("lop3.b32 %d, %a, %b, %c, 0xca;", 32, &[32; 3], &some, |v| {
        (v[0] & v[1]) | (!v[0] & v[2])
    });
}

/// The ISA's pseudocode of `bfe`, bit by bit.
fn extract(a: u64, at: u64, length: u64, bits: u64, signed: bool) -> u64 {
    let (at, length, msb) = (at & 0xff, length & 0xff, bits - 1);
    let bit = |i: u64| a >> i & 1;
    let sign = if !signed || length == 0 {
        0
    } else {
        bit((at + length - 1).min(msb))
    };
    (0..bits).fold(0, |d, i| {
        let this = if i < length && at + i <= msb {
            bit(at + i)
        } else {
            sign
        };
        d | this << i
    })
}

/// The ISA's pseudocode of `bfi`.
fn insert(a: u64, b: u64, at: u64, length: u64, bits: u64) -> u64 {
    let (at, length) = (at & 0xff, length & 0xff);
    (0..length).filter(|i| at + i < bits).fold(b, |f, i| {
        let bit = a >> i & 1;
        (f & !(1 << (at + i))) | bit << (at + i)
    })
}

#[test]
fn bit_fields_follow_the_isas_pseudocode() {
    let values = [
        0u64,
        1,
        5,
        8,
        31,
        32,
        33,
        255,
        256,
        0x8765_4321,
        0xffff_ffff,
    ];
    check("bfe.u32 %d, %a, %b, %c;", 32, &[32; 3], &values, |v| {
        extract(v[0], v[1], v[2], 32, false)
    });
    check("bfe.s32 %d, %a, %b, %c;", 32, &[32; 3], &values, |v| {
        extract(v[0], v[1], v[2], 32, true)
    });
    let wide = [0u64, 1, 7, 40, 63, 64, 0x8765_4321_dead_beef, u64::MAX];
    check("bfe.s64 %d, %a, %b, %c;", 64, &[64, 32, 32], &wide, |v| {
        extract(v[0], v[1], v[2], 64, true)
    });
    check("bfe.u64 %d, %a, %b, %c;", 64, &[64, 32, 32], &wide, |v| {
        extract(v[0], v[1], v[2], 64, false)
    });
    let few = [0u64, 3, 8, 31, 32, 200, 0xdead_beef];
    check("bfi.b32 %d, %a, %b, %c, %e;", 32, &[32; 4], &few, |v| {
        insert(v[0], v[1], v[2], v[3], 32)
    });
    check(
        "bfi.b64 %d, %a, %b, %c, %e;",
        64,
        &[64, 64, 32, 32],
        &wide[..7],
        |v| insert(v[0], v[1], v[2], v[3], 64),
    );
}

#[test]
fn bytes_are_permuted() {
    let permute = |selector: u64| {
        let instruction = format!("prmt.b32 %d, %a, %b, {selector:#x};");
        run_instruction(
            &instruction,
            32,
            &[32, 32],
            &[vec![0x8122_3344, 0x5566_7788]],
        )[0]
    };
    assert_eq!(permute(0x3210), 0x8122_3344);
    assert_eq!(permute(0x7654), 0x5566_7788);
    assert_eq!(permute(0x0123), 0x4433_2281);
    assert_eq!(permute(0x5410), 0x7788_3344);
    // Bit 3: the sign of the byte, eight times.
    assert_eq!(permute(0xb8c4), 0xff00_ff88);
    let mode = |name: &str, c: u64| {
        run_instruction(
            &format!("prmt.b32.{name} %d, %a, %b, {c};"),
            32,
            &[32, 32],
            &[vec![0x3322_1100, 0x7766_5544]],
        )[0]
    };
    // The ISA's tables, as byte numbers from the most significant on.
    assert_eq!(mode("f4e", 1), 0x4433_2211);
    assert_eq!(mode("b4e", 1), 0x6677_0011);
    assert_eq!(mode("rc8", 2), 0x2222_2222);
    assert_eq!(mode("ecl", 1), 0x3322_1111);
    assert_eq!(mode("ecr", 2), 0x2222_1100);
    assert_eq!(mode("rc16", 1), 0x3322_3322);
}

#[test]
fn carries_chain() {
    let add = "add.cc.u32 %r10, %a, %b;\naddc.u32 %d, 0, 0;";
    check(add, 32, &[32, 32], &EDGES_32, |v| (v[0] + v[1]) >> 32);
    let sub = "sub.cc.u32 %r10, %a, %b;\nsubc.u32 %d, 0, 0;";
    check(sub, 32, &[32, 32], &EDGES_32, |v| {
        if v[0] < v[1] { 0xffff_ffff } else { 0 }
    });
    // A 64-bit product from halves.
    let product = "mov.b64 {%r10, %r11}, %a;\nmov.b64 {%r12, %r13}, %b;\nmul.lo.u32 %r14, %r10, %r12;\n\
        mul.hi.u32 %r15, %r10, %r12;\nmad.lo.cc.u32 %r15, %r10, %r13, %r15;\nmad.lo.u32 %r15, %r11, %r12, %r15;\n\
        mov.b64 %d, {%r14, %r15};";
    check(product, 64, &[64, 64], &EDGES_64, |v| {
        v[0].wrapping_mul(v[1])
    });
    let carry = "mad.lo.cc.u32 %r10, %a, %b, %c;\nmadc.hi.u32 %d, %a, %b, 0;";
    check(carry, 32, &[32; 3], &EDGES_32, |v| {
        (v[0] * v[1] + v[2]) >> 32
    });
}

#[test]
fn dot_products_of_bytes_and_pairs() {
    let values = [0u64, 0x0102_0304, 0x7f80_ff01, 0xffff_ffff];
    let dot = |v: &[u64], signed: bool| {
        let byte = |x: u64, i: usize| {
            let byte = (x >> (8 * i)) as u8;
            if signed {
                i64::from(byte as i8)
            } else {
                i64::from(byte)
            }
        };
        (0..4).fold(v[2] as i64, |sum, i| sum + byte(v[0], i) * byte(v[1], i)) as u64
    };
    check("dp4a.s32.s32 %d, %a, %b, %c;", 32, &[32; 3], &values, |v| {
        dot(v, true)
    });
    check("dp4a.u32.u32 %d, %a, %b, %c;", 32, &[32; 3], &values, |v| {
        dot(v, false)
    });
    check("max.s16x2 %d, %a, %b;", 32, &[32, 32], &values, |v| {
        let half = |x: u64, i: u32| (x >> (16 * i)) as i16;
        (0..2).fold(0, |d, i| {
            d | u64::from(half(v[0], i).max(half(v[1], i)) as u16) << (16 * i)
        })
    });
}

#[test]
fn selections() {
    check(
        "setp.lt.s32 %q, %a, %b;\nselp.b32 %d, %a, %b, %q;",
        32,
        &[32, 32],
        &EDGES_32,
        |v| (v[0] as i32).min(v[1] as i32) as u64,
    );
    check(
        "slct.b32.s32 %d, %a, %b, %c;",
        32,
        &[32; 3],
        &EDGES_32,
        |v| if (v[2] as i32) < 0 { v[1] } else { v[0] },
    );
    check(
        "set.ge.u32.s32 %d, %a, %b;",
        32,
        &[32, 32],
        &EDGES_32,
        |v| {
            if v[0] as i32 >= v[1] as i32 {
                0xffff_ffff
            } else {
                0
            }
        },
    );
    let both = "setp.gt.and.u32 %q|%p2, %a, %b, %p3;\nselp.u32 %r10, 1, 0, %q;\nselp.u32 %r11, 2, 0, %p2;\nor.b32 %d, %r10, %r11;";
    let with = |c: &str| format!("setp.eq.u32 %p3, 0, {c};\n{both}");
    check(&with("0"), 32, &[32, 32], &EDGES_32, |v| {
        if v[0] > v[1] { 1 } else { 2 }
    });
    check(&with("1"), 32, &[32, 32], &EDGES_32, |_| 0);
}
