//! `cvt` between all types.

mod common;

use common::{check, run_instruction};
use half::{bf16, f16};

fn one(instruction: &str, to: u32, from: u32, value: u64) -> u64 {
    run_instruction(instruction, to, &[from], &[vec![value]])[0]
}

fn bits(x: f32) -> u64 {
    x.to_bits().into()
}

#[test]
fn integers_extend_truncate_and_saturate() {
    let values = [
        0u64,
        1,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0x8000,
        0xffff_ffff,
        0x8000_0000,
        0x1_2345_6789,
    ];
    check("cvt.s64.s32 %d, %a;", 64, &[32], &values, |v| {
        i64::from(v[0] as i32) as u64
    });
    check("cvt.u64.u32 %d, %a;", 64, &[32], &values, |v| {
        v[0] & 0xffff_ffff
    });
    check("cvt.u32.u64 %d, %a;", 32, &[64], &values, |v| v[0]);
    check("cvt.s32.s8 %d, %a;", 32, &[32], &values, |v| {
        i64::from(v[0] as i8) as u64
    });
    check("cvt.u16.u8 %d, %a;", 16, &[16], &values, |v| v[0] & 0xff);
    check("cvt.s8.s32 %d, %a;", 32, &[32], &values, |v| {
        i64::from(v[0] as i8) as u64
    });
    check("cvt.sat.s8.s32 %d, %a;", 32, &[32], &values, |v| {
        (v[0] as i32).clamp(-128, 127) as u64
    });
    check("cvt.sat.u8.s32 %d, %a;", 32, &[32], &values, |v| {
        (v[0] as i32).clamp(0, 255) as u64
    });
}

#[test]
fn floats_to_integers_clamp_and_round() {
    let values: Vec<u64> = [
        0.5f32,
        1.5,
        2.5,
        -0.5,
        -1.5,
        -2.7,
        3e9,
        -3e9,
        1e20,
        f32::NAN,
        f32::INFINITY,
    ]
    .map(bits)
    .to_vec();
    let of = |v: &[u64]| f32::from_bits(v[0] as u32);
    check("cvt.rzi.s32.f32 %d, %a;", 32, &[32], &values, |v| {
        of(v) as i32 as u64
    });
    check("cvt.rzi.u32.f32 %d, %a;", 32, &[32], &values, |v| {
        (of(v) as u32).into()
    });
    check("cvt.rni.s32.f32 %d, %a;", 32, &[32], &values, |v| {
        of(v).round_ties_even() as i32 as u64
    });
    check("cvt.rmi.s32.f32 %d, %a;", 32, &[32], &values, |v| {
        of(v).floor() as i32 as u64
    });
    check("cvt.rpi.s32.f32 %d, %a;", 32, &[32], &values, |v| {
        of(v).ceil() as i32 as u64
    });
    check("cvt.rzi.u8.f32 %d, %a;", 32, &[32], &values, |v| {
        (of(v) as u8).into()
    });
    check("cvt.rni.f32.f32 %d, %a;", 32, &[32], &values[..8], |v| {
        bits(of(v).round_ties_even())
    });
    // NaN: zero, but the top bit where one side has 64.
    assert_eq!(
        one("cvt.rzi.s64.f32 %d, %a;", 64, 32, bits(f32::NAN)),
        1 << 63
    );
    assert_eq!(
        one("cvt.rzi.s32.f64 %d, %a;", 32, 64, f64::NAN.to_bits()),
        1 << 31
    );
    assert_eq!(one("cvt.rzi.s64.f32 %d, %a;", 64, 32, bits(-1e20)), 1 << 63);
}

#[test]
fn integers_to_floats_round_once() {
    let values = [
        0u64,
        1,
        16_777_217,
        16_777_219,
        0x7fff_ffff,
        0xffff_ffff,
        0x7fff_ffff_ffff_ffff,
        u64::MAX,
        1 << 63,
    ];
    check("cvt.rn.f32.u64 %d, %a;", 32, &[64], &values, |v| {
        bits(v[0] as f32)
    });
    check("cvt.rn.f32.s64 %d, %a;", 32, &[64], &values, |v| {
        bits(v[0] as i64 as f32)
    });
    check("cvt.rn.f32.u32 %d, %a;", 32, &[32], &values, |v| {
        bits(v[0] as u32 as f32)
    });
    check("cvt.rn.f64.u64 %d, %a;", 64, &[64], &values, |v| {
        (v[0] as f64).to_bits()
    });
    check(
        "cvt.rn.f16.s32 %d, %a;",
        16,
        &[32],
        &[0, 1, 2049, 2051, 65504, 0xffff_ffff],
        |v| f16::from_f32(v[0] as i32 as f32).to_bits().into(),
    );
    assert_eq!(
        one("cvt.rz.f32.u32 %d, %a;", 32, 32, 0xffff_ffff),
        bits(4_294_967_040.0)
    );
    assert_eq!(
        one("cvt.rp.f32.u32 %d, %a;", 32, 32, 16_777_217),
        bits(16_777_218.0)
    );
    // One above a tie of 24 bits, lost when rounded to 53 first.
    assert_eq!(
        one("cvt.rn.f32.u64 %d, %a;", 32, 64, (1 << 63) + (1 << 39) + 1),
        bits((1u64 << 63) as f32 + (1u64 << 40) as f32)
    );
}

#[test]
fn floats_narrow_in_all_directions() {
    let values: Vec<u64> = [
        1.0f32,
        1.0005,
        -1.0005,
        65519.0,
        65520.0,
        1e-8,
        6e-8,
        3.1,
        f32::INFINITY,
        f32::MIN_POSITIVE,
        1e38,
    ]
    .map(bits)
    .to_vec();
    let of = |v: &[u64]| f32::from_bits(v[0] as u32);
    check("cvt.rn.f16.f32 %d, %a;", 16, &[32], &values, |v| {
        f16::from_f32(of(v)).to_bits().into()
    });
    check("cvt.rn.bf16.f32 %d, %a;", 16, &[32], &values, |v| {
        bf16::from_f32(of(v)).to_bits().into()
    });
    check("cvt.rz.bf16.f32 %d, %a;", 16, &[32], &values, |v| {
        v[0] >> 16
    });
    check(
        "cvt.f32.f16 %d, %a;",
        32,
        &[16],
        &[0x3c00, 0x0001, 0x8000, 0x7bff, 0x7c00],
        |v| bits(f16::from_bits(v[0] as u16).to_f32()),
    );
    check(
        "cvt.rn.f32.f64 %d, %a;",
        32,
        &[64],
        &[0.1f64, 1e-46, 1e-45, 1e300].map(f64::to_bits),
        |v| bits(f64::from_bits(v[0]) as f32),
    );
    assert_eq!(
        one("cvt.rn.f16.f32 %d, %a;", 16, 32, bits(f32::NAN)),
        0x7fff
    );
    assert_eq!(one("cvt.rz.f16.f32 %d, %a;", 16, 32, bits(1e6)), 0x7bff);
    assert_eq!(one("cvt.rn.relu.bf16.f32 %d, %a;", 16, 32, bits(-3.0)), 0);
    assert_eq!(one("cvt.sat.f32.f32 %d, %a;", 32, 32, bits(7.0)), bits(1.0));
    assert_eq!(
        one("cvt.ftz.f32.f16 %d, %a;", 32, 16, 1),
        bits(f16::from_bits(1).to_f32())
    );
    // 1 + 2^-11 is a tie; a double just above it is not, though a single would make it one.
    let above = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
    assert_eq!(
        one("cvt.rn.f16.f64 %d, %a;", 16, 64, above.to_bits()),
        0x3c01
    );
    assert_eq!(
        one(
            "cvt.rn.f16.f64 %d, %a;",
            16,
            64,
            (1.0 + 2f64.powi(-11)).to_bits()
        ),
        0x3c00
    );
}

#[test]
fn pairs_put_the_first_operand_above() {
    let pair = |name: &str, a: f32, b: f32| {
        run_instruction(
            &format!("{name} %d, %a, %b;"),
            32,
            &[32, 32],
            &[vec![bits(a), bits(b)]],
        )[0]
    };
    let halves = |a: f32, b: f32| {
        u64::from(f16::from_f32(a).to_bits()) << 16 | u64::from(f16::from_f32(b).to_bits())
    };
    let brains = |a: f32, b: f32| {
        u64::from(bf16::from_f32(a).to_bits()) << 16 | u64::from(bf16::from_f32(b).to_bits())
    };
    assert_eq!(pair("cvt.rn.f16x2.f32", 1.5, -2.0), halves(1.5, -2.0));
    assert_eq!(pair("cvt.rn.bf16x2.f32", 1.5, -2.0), brains(1.5, -2.0));
    assert_eq!(pair("cvt.rn.relu.bf16x2.f32", 1.5, -2.0), brains(1.5, 0.0));
}

#[test]
fn tf32_keeps_ten_bits_of_fraction() {
    let one = |x: f32| f32::from_bits(one("cvt.rna.tf32.f32 %d, %a;", 32, 32, bits(x)) as u32);
    assert_eq!(
        one(1.0 + 2f32.powi(-11)),
        1.0 + 2f32.powi(-10),
        "ties go away from zero"
    );
    assert_eq!(one(-1.0 - 2f32.powi(-11)), -1.0 - 2f32.powi(-10));
    assert_eq!(one(1.0 + 2f32.powi(-12)), 1.0);
}

#[test]
fn eight_bit_floats() {
    let to = |ty: &str, a: f32, b: f32| {
        run_instruction(
            &format!("cvt.rn.satfinite.{ty}.f32 %d, %a, %b;"),
            16,
            &[32, 32],
            &[vec![bits(a), bits(b)]],
        )[0]
    };
    // e4m3: 1 is 0x38, 448 the largest 0x7e, 2^-9 the smallest.
    assert_eq!(to("e4m3x2", 1.0, 448.0), 0x387e);
    assert_eq!(to("e4m3x2", -1e9, 2f32.powi(-9)), 0xfe01);
    assert_eq!(to("e4m3x2", f32::NAN, 1.125), 0x7f39);
    assert_eq!(to("e5m2x2", 1.0, 1e9), 0x3c7b);
    let back = |ty: &str, v: u64| one(&format!("cvt.rn.f16x2.{ty} %d, %a;"), 32, 16, v);
    assert_eq!(
        back("e4m3x2", 0x387e),
        u64::from(f16::ONE.to_bits()) << 16 | u64::from(f16::from_f32(448.0).to_bits())
    );
    assert_eq!(
        back("e5m2x2", 0x3c01),
        u64::from(f16::ONE.to_bits()) << 16 | u64::from(f16::from_f32(2f32.powi(-16)).to_bits())
    );
}
