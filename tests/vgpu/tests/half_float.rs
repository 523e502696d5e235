//! Instructions on `.f16`, `.bf16` and pairs of them.

mod common;

use common::{check, run_instruction};
use half::{bf16, f16};

/// Pairs and single ones of both 16-bit formats.
#[test]
fn small_floats_round_once() {
    let h: Vec<u64> = [1.0f32, -2.5, 0.333, 65504.0, 6e-8, 1e-4, 0.0]
        .iter()
        .map(|&x| f16::from_f32(x).to_bits().into())
        .collect();
    let of = |v: &[u64], i: usize| f64::from(f16::from_bits(v[i] as u16).to_f32());
    // Sums and products of two are exact in a double; so is its conversion through a single here.
    check("add.f16 %d, %a, %b;", 16, &[16, 16], &h, |v| {
        f16::from_f32((of(v, 0) + of(v, 1)) as f32).to_bits().into()
    });
    check("mul.f16 %d, %a, %b;", 16, &[16, 16], &h, |v| {
        f16::from_f32((of(v, 0) * of(v, 1)) as f32).to_bits().into()
    });
    check("sub.f16x2 %d, %a, %b;", 32, &[32, 32], &h, |v| {
        f16::from_f32((of(v, 0) - of(v, 1)) as f32).to_bits().into()
    });
    let pair = |low: f32, high: f32| {
        u64::from(f16::from_f32(low).to_bits()) | u64::from(f16::from_f32(high).to_bits()) << 16
    };
    let run = |instruction: &str, row: Vec<u64>| {
        run_instruction(instruction, 32, &vec![32; row.len()], &[row])[0]
    };
    assert_eq!(
        run(
            "fma.rn.f16x2 %d, %a, %b, %c;",
            vec![pair(2.0, 3.0), pair(4.0, 5.0), pair(1.0, -1.0)]
        ),
        pair(9.0, 14.0)
    );
    assert_eq!(
        run(
            "fma.rn.relu.f16x2 %d, %a, %b, %c;",
            vec![pair(2.0, -3.0), pair(4.0, 5.0), pair(1.0, 1.0)]
        ),
        pair(9.0, 0.0)
    );
    assert_eq!(
        run(
            "max.f16x2 %d, %a, %b;",
            vec![pair(2.0, -3.0), pair(4.0, -5.0)]
        ),
        pair(4.0, -3.0)
    );
    // 2048 + 1 is halfway: to even. With a little more it is not.
    let third = |c: f32| f16::from_f32(c).to_bits().into();
    let fma = |a: f32, b: f32, c: f32| {
        let row = vec![third(a), third(b), third(c)];
        run_instruction("fma.rn.f16 %d, %a, %b, %c;", 16, &[16; 3], &[row])[0]
    };
    assert_eq!(fma(1.0, 1.0, 2048.0), third(2048.0));
    assert_eq!(fma(1.001, 1.0, 2048.0), third(2050.0));
    assert_eq!(fma(300.0, 300.0, 0.0), u64::from(f16::INFINITY.to_bits()));
    let b = |x: f32| u64::from(bf16::from_f32(x).to_bits());
    let brain = |instruction: &str, row: Vec<u64>| {
        run_instruction(instruction, 16, &vec![16; row.len()], &[row])[0]
    };
    assert_eq!(
        brain("fma.rn.bf16 %d, %a, %b, %c;", vec![b(3.0), b(5.0), b(0.5)]),
        b(15.5)
    );
    assert_eq!(
        brain("add.rn.bf16 %d, %a, %b;", vec![b(256.0), b(1.0)]),
        b(256.0)
    );
    assert_eq!(
        brain("add.rn.bf16 %d, %a, %b;", vec![b(256.0), b(3.0)]),
        b(260.0)
    );
    assert_eq!(brain("min.bf16 %d, %a, %b;", vec![0x7fff, b(3.0)]), b(3.0));
}
