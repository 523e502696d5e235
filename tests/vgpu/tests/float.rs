//! Floating-point instructions: exact values in integers, rounded by comparison, and edges by hand.

mod common;

use common::{check, run_instruction};
use half::{bf16, f16};

const NAN: u64 = 0x7fff_ffff;

/// `0` exactly: so many times two to the power.
#[derive(Clone, Copy)]
struct Exact(i128, i32);

impl Exact {
    fn of(x: f32) -> Self {
        let bits = x.to_bits();
        let (e, f) = ((bits >> 23 & 0xff) as i32, i128::from(bits & 0x7f_ffff));
        let magnitude = if e == 0 { f } else { f | 1 << 23 };
        Self(if x < 0.0 { -magnitude } else { magnitude }, e.max(1) - 150)
    }
    fn align(self, exponent: i32) -> i128 {
        self.0 << (self.1 - exponent)
    }
    fn plus(self, other: Self) -> Self {
        let exponent = self.1.min(other.1);
        Self(self.align(exponent) + other.align(exponent), exponent)
    }
    fn times(self, other: Self) -> Self {
        Self(self.0 * other.0, self.1 + other.1)
    }
    fn cmp(self, other: Self) -> std::cmp::Ordering {
        let exponent = self.1.min(other.1);
        self.align(exponent).cmp(&other.align(exponent))
    }
    /// Rounded by walking to the neighbours on either side.
    fn round(self, mode: &str) -> f32 {
        let mut below = (self.0 as f64 * 2f64.powi(self.1)) as f32;
        while Self::of(below).cmp(self).is_gt() {
            below = below.next_down();
        }
        while Self::of(below.next_up()).cmp(self).is_le() {
            below = below.next_up();
        }
        if Self::of(below).cmp(self).is_eq() {
            return below;
        }
        let above = below.next_up();
        let twice = self.plus(self).cmp(Self::of(below).plus(Self::of(above)));
        match mode {
            "rm" => below,
            "rp" => above,
            "rz" => {
                if self.0 > 0 {
                    below
                } else {
                    above
                }
            }
            _ if twice.is_lt() || (twice.is_eq() && below.to_bits() & 1 == 0) => below,
            _ => above,
        }
    }
}

/// Values whose sums and products fit 128 bits, many of them halfway cases.
fn values() -> Vec<u64> {
    let mut state = 12345u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    let mut list = vec![
        1.0f32,
        -1.0,
        1.5,
        -3.0,
        1.0 + f32::EPSILON,
        1.0 - f32::EPSILON / 2.0,
        f32::EPSILON,
        8_388_609.0,
    ];
    list.extend((0..12).map(|_| {
        let magnitude = f32::from_bits((117 + random() % 20) << 23 | (random() & 0x7f_ffff));
        if random() & 1 == 0 {
            magnitude
        } else {
            -magnitude
        }
    }));
    list.into_iter().map(|x| x.to_bits().into()).collect()
}

fn single(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

#[test]
fn sums_products_and_fused_ones_round_in_all_directions() {
    for mode in ["rn", "rz", "rm", "rp"] {
        let exact = |bits: u64| Exact::of(single(bits));
        check(
            &format!("mul.{mode}.f32 %d, %a, %b;"),
            32,
            &[32, 32],
            &values(),
            |v| exact(v[0]).times(exact(v[1])).round(mode).to_bits().into(),
        );
        check(
            &format!("fma.{mode}.f32 %d, %a, %b, %c;"),
            32,
            &[32; 3],
            &values(),
            |v| {
                let sum = exact(v[0]).times(exact(v[1])).plus(exact(v[2]));
                let zero = if mode == "rm" { 0x8000_0000 } else { 0 };
                if sum.0 == 0 {
                    zero
                } else {
                    sum.round(mode).to_bits().into()
                }
            },
        );
        check(
            &format!("add.{mode}.f32 %d, %a, %b;"),
            32,
            &[32, 32],
            &values(),
            |v| {
                let sum = exact(v[0]).plus(exact(v[1]));
                let zero = if mode == "rm" { 0x8000_0000 } else { 0 };
                if sum.0 == 0 {
                    zero
                } else {
                    sum.round(mode).to_bits().into()
                }
            },
        );
    }
}

/// `a / b` (or the root of `b`) lies between neighbours in the direction asked for.
#[test]
fn quotients_and_roots_round_in_all_directions() {
    for mode in ["rn", "rz", "rm", "rp"] {
        check(
            &format!("div.{mode}.f32 %d, %a, %b;"),
            32,
            &[32, 32],
            &values(),
            |v| {
                let (a, b) = (single(v[0]), single(v[1]));
                let near = a / b;
                // Compare `near * b` with `a`, exactly.
                let product = Exact::of(near).times(Exact::of(b)).cmp(Exact::of(a));
                let above = if b < 0.0 {
                    product.is_lt()
                } else {
                    product.is_gt()
                };
                let below = !above && product.is_ne();
                directed(near, above, below, mode).to_bits().into()
            },
        );
        check(
            &format!("sqrt.{mode}.f32 %d, %a;"),
            32,
            &[32],
            &values(),
            |v| {
                let a = single(v[0]);
                if a < 0.0 {
                    return NAN;
                }
                let near = a.sqrt();
                let square = Exact::of(near).times(Exact::of(near)).cmp(Exact::of(a));
                directed(near, square.is_gt(), square.is_lt(), mode)
                    .to_bits()
                    .into()
            },
        );
    }
}

fn directed(near: f32, above: bool, below: bool, mode: &str) -> f32 {
    match mode {
        "rm" if above => near.next_down(),
        "rp" if below => near.next_up(),
        "rz" if above && near > 0.0 => near.next_down(),
        "rz" if below && near < 0.0 => near.next_up(),
        _ => near,
    }
}

fn one(instruction: &str, row: &[f32]) -> u64 {
    let row: Vec<u64> = row.iter().map(|x| x.to_bits().into()).collect();
    run_instruction(instruction, 32, &vec![32; row.len()], &[row])[0]
}

fn bits(x: f32) -> u64 {
    x.to_bits().into()
}

#[test]
fn overflow_and_underflow_follow_the_direction() {
    let (max, tiny) = (f32::MAX, f32::from_bits(1));
    assert_eq!(
        one("add.rn.f32 %d, %a, %b;", &[max, max]),
        bits(f32::INFINITY)
    );
    assert_eq!(one("add.rz.f32 %d, %a, %b;", &[max, max]), bits(max));
    assert_eq!(one("add.rm.f32 %d, %a, %b;", &[max, max]), bits(max));
    assert_eq!(one("add.rp.f32 %d, %a, %b;", &[-max, -max]), bits(-max));
    assert_eq!(one("mul.rn.f32 %d, %a, %b;", &[tiny, 0.5]), 0);
    assert_eq!(one("mul.rp.f32 %d, %a, %b;", &[tiny, 0.5]), 1);
    assert_eq!(one("mul.rm.f32 %d, %a, %b;", &[-tiny, 0.5]), 0x8000_0001);
    assert_eq!(one("mul.rz.f32 %d, %a, %b;", &[-tiny, 0.5]), 0x8000_0000);
    assert_eq!(one("add.rm.f32 %d, %a, %b;", &[0.0, 0.0]), 0);
    assert_eq!(one("add.rm.f32 %d, %a, %b;", &[0.0, -0.0]), bits(-0.0));
    // Subnormals are kept, unless flushed.
    assert_eq!(
        one("mul.f32 %d, %a, %b;", &[f32::MIN_POSITIVE, 0.5]),
        bits(f32::MIN_POSITIVE / 2.0)
    );
    assert_eq!(
        one("mul.ftz.f32 %d, %a, %b;", &[f32::MIN_POSITIVE, -0.5]),
        bits(-0.0)
    );
    assert_eq!(one("add.ftz.f32 %d, %a, %b;", &[tiny, 1.0]), bits(1.0));
    assert_eq!(one("add.sat.f32 %d, %a, %b;", &[0.75, 0.75]), bits(1.0));
    assert_eq!(one("add.sat.f32 %d, %a, %b;", &[f32::NAN, 0.75]), 0);
}

#[test]
fn a_fused_multiply_add_rounds_once() {
    // The square loses its last bits when it is rounded before the sum.
    let x = 1.0 + 3.0 * f32::EPSILON;
    assert_eq!(
        one("fma.rn.f32 %d, %a, %b, %c;", &[x, x, -1.0]),
        bits(x.mul_add(x, -1.0))
    );
    assert_ne!(x.mul_add(x, -1.0), x * x - 1.0);
}

#[test]
fn nan_is_canonical_and_extremes_prefer_numbers() {
    assert_eq!(
        one("add.f32 %d, %a, %b;", &[f32::INFINITY, f32::NEG_INFINITY]),
        NAN
    );
    assert_eq!(one("div.rn.f32 %d, %a, %b;", &[0.0, 0.0]), NAN);
    assert_eq!(
        one("div.rn.f32 %d, %a, %b;", &[-1.0, 0.0]),
        bits(f32::NEG_INFINITY)
    );
    assert_eq!(one("min.f32 %d, %a, %b;", &[f32::NAN, 2.0]), bits(2.0));
    assert_eq!(one("max.f32 %d, %a, %b;", &[f32::NAN, f32::NAN]), NAN);
    assert_eq!(one("max.NaN.f32 %d, %a, %b;", &[f32::NAN, 2.0]), NAN);
    assert_eq!(one("min.f32 %d, %a, %b;", &[0.0, -0.0]), bits(-0.0));
    assert_eq!(one("max.f32 %d, %a, %b;", &[-0.0, 0.0]), 0);
    assert_eq!(
        one("min.xorsign.abs.f32 %d, %a, %b;", &[-3.0, 2.0]),
        bits(-2.0)
    );
    assert_eq!(one("abs.f32 %d, %a;", &[-0.0]), 0);
    assert_eq!(one("neg.f32 %d, %a;", &[0.0]), bits(-0.0));
    assert_eq!(one("copysign.f32 %d, %a, %b;", &[-1.0, 3.0]), bits(-3.0));
}

#[test]
fn approximations_are_the_accurate_values() {
    for x in [0.1f32, 0.75, 1.0, 3.3, 10.0] {
        let wide = f64::from(x);
        assert_eq!(
            one("ex2.approx.f32 %d, %a;", &[x]),
            bits(wide.exp2() as f32)
        );
        assert_eq!(
            one("lg2.approx.f32 %d, %a;", &[x]),
            bits(wide.log2() as f32)
        );
        assert_eq!(one("sin.approx.f32 %d, %a;", &[x]), bits(wide.sin() as f32));
        assert_eq!(one("cos.approx.f32 %d, %a;", &[x]), bits(wide.cos() as f32));
        assert_eq!(
            one("tanh.approx.f32 %d, %a;", &[x]),
            bits(wide.tanh() as f32)
        );
        assert_eq!(
            one("rsqrt.approx.ftz.f32 %d, %a;", &[x]),
            bits((1.0 / wide.sqrt()) as f32)
        );
        assert_eq!(one("rcp.approx.ftz.f32 %d, %a;", &[x]), bits(1.0 / x));
        assert_eq!(one("sqrt.approx.f32 %d, %a;", &[x]), bits(x.sqrt()));
        assert_eq!(one("div.full.f32 %d, %a, 0f40400000;", &[x]), bits(x / 3.0));
    }
    assert_eq!(
        one("lg2.approx.f32 %d, %a;", &[0.0]),
        bits(f32::NEG_INFINITY)
    );
    assert_eq!(
        one("rcp.approx.ftz.f32 %d, %a;", &[f32::from_bits(1)]),
        bits(f32::INFINITY)
    );
}

#[test]
fn comparisons_know_nan() {
    let values: Vec<u64> = [1.0f32, -1.0, 0.0, -0.0, f32::NAN, f32::INFINITY]
        .iter()
        .map(|x| x.to_bits().into())
        .collect();
    type Test = fn(f32, f32) -> bool;
    let tests: [(&str, Test); 14] = [
        ("eq", |a, b| a == b),
        ("ne", |a, b| a != b && !a.is_nan() && !b.is_nan()),
        ("lt", |a, b| a < b),
        ("le", |a, b| a <= b),
        ("gt", |a, b| a > b),
        ("ge", |a, b| a >= b),
        ("equ", |a, b| a == b || a.is_nan() || b.is_nan()),
        ("neu", |a, b| a != b),
        ("ltu", |a, b| a < b || a.is_nan() || b.is_nan()),
        ("leu", |a, b| a <= b || a.is_nan() || b.is_nan()),
        ("gtu", |a, b| a > b || a.is_nan() || b.is_nan()),
        ("geu", |a, b| a >= b || a.is_nan() || b.is_nan()),
        ("num", |a, b| !a.is_nan() && !b.is_nan()),
        ("nan", |a, b| a.is_nan() || b.is_nan()),
    ];
    for (name, test) in tests {
        let instruction = format!("setp.{name}.f32 %q, %a, %b;\nselp.u32 %d, 1, 0, %q;");
        check(&instruction, 32, &[32, 32], &values, |v| {
            test(single(v[0]), single(v[1])).into()
        });
    }
    check(
        "testp.finite.f32 %q, %a;\nselp.u32 %d, 1, 0, %q;",
        32,
        &[32],
        &values,
        |v| single(v[0]).is_finite().into(),
    );
}

#[test]
fn doubles_are_those_of_rust() {
    let values: Vec<u64> = [1.0f64, -1.5, 1e300, 3e-310, 0.1, f64::INFINITY]
        .iter()
        .map(|x| x.to_bits())
        .collect();
    let of = |v: &[u64], i: usize| f64::from_bits(v[i]);
    let finite = &values[..5];
    check("add.f64 %d, %a, %b;", 64, &[64, 64], finite, |v| {
        (of(v, 0) + of(v, 1)).to_bits()
    });
    check("mul.rn.f64 %d, %a, %b;", 64, &[64, 64], finite, |v| {
        (of(v, 0) * of(v, 1)).to_bits()
    });
    check("div.rn.f64 %d, %a, %b;", 64, &[64, 64], finite, |v| {
        (of(v, 0) / of(v, 1)).to_bits()
    });
    check("fma.rn.f64 %d, %a, %b, %c;", 64, &[64; 3], finite, |v| {
        of(v, 0).mul_add(of(v, 1), of(v, 2)).to_bits()
    });
    check("max.f64 %d, %a, %b;", 64, &[64, 64], &values, |v| {
        of(v, 0).max(of(v, 1)).to_bits()
    });
    let third = |mode: &str| {
        let row = vec![1f64.to_bits(), 3f64.to_bits()];
        f64::from_bits(
            run_instruction(
                &format!("div.{mode}.f64 %d, %a, %b;"),
                64,
                &[64, 64],
                &[row],
            )[0],
        )
    };
    // 1/3 rounds down to nearest.
    assert_eq!(
        (third("rn"), third("rz"), third("rm"), third("rp")),
        (1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, (1.0f64 / 3.0).next_up())
    );
}

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
