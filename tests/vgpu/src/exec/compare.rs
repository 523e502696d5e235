//! Comparisons: `setp`, `set`, `slct`, `testp`.

use half::{bf16, f16};

use super::code::Source;
use super::code::{Code, PredicateSource};
use super::decode::{Decoded, Decoding};
use super::float::flush;
use super::half_float::Small;
use super::lanes::{LaneFn, Lanes, Scalar, TestFn, for_integer, ternary, test};
use super::rounding::HALF;
use crate::ptx::ir::Constant;
use crate::ptx::names::Operand;
use crate::ptx::types::Type;

/// `setp.OP.BOOL.type p|q, a, b, c`: `p = (a OP b) BOOL c`, `q = !(a OP b) BOOL c`.
pub struct SetPredicate {
    pub from: [Source; 2],
    pub test: TestFn,
    /// Of the upper halves, for pairs: `q` is theirs.
    pub test_high: Option<TestFn>,
    pub combine: Option<(Combine, PredicateSource)>,
    /// `p`, `q`.
    pub to: [Option<u32>; 2],
}

/// Of masks: the boolean operation of a comparison and a predicate.
pub type Combine = fn(u32, u32) -> u32;

impl SetPredicate {
    /// What `p` and `q` become.
    pub fn run(&self, a: &Lanes, b: &Lanes, c: u32) -> [u32; 2] {
        let first = (self.test)(a, b);
        let second = self.test_high.as_ref().map_or(!first, |test| test(a, b));
        match self.combine {
            Some((combine, _)) => [combine(first, c), combine(second, c)],
            None => [first, second],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    /// Neither is NaN.
    Numbers,
    /// One is NaN.
    Nan,
}

use Comparison::{Equal, Greater, GreaterEqual, Less, LessEqual, Nan, NotEqual, Numbers};

/// The comparison, and whether NaN makes it true.
const COMPARISONS: [(&str, (Comparison, bool)); 18] = [
    ("eq", (Equal, false)),
    ("ne", (NotEqual, false)),
    ("lt", (Less, false)),
    ("le", (LessEqual, false)),
    ("gt", (Greater, false)),
    ("ge", (GreaterEqual, false)),
    ("lo", (Less, false)),
    ("ls", (LessEqual, false)),
    ("hi", (Greater, false)),
    ("hs", (GreaterEqual, false)),
    ("equ", (Equal, true)),
    ("neu", (NotEqual, true)),
    ("ltu", (Less, true)),
    ("leu", (LessEqual, true)),
    ("gtu", (Greater, true)),
    ("geu", (GreaterEqual, true)),
    ("num", (Numbers, false)),
    ("nan", (Nan, false)),
];

const COMBINATIONS: [(&str, Combine); 3] = [
    ("and", |a, b| a & b),
    ("or", |a, b| a | b),
    ("xor", |a, b| a ^ b),
];

fn integers<T: Scalar + Ord>(comparison: Comparison) -> Option<TestFn> {
    Some(match comparison {
        Equal => test(|a: T, b: T| a == b),
        NotEqual => test(|a: T, b: T| a != b),
        Less => test(|a: T, b: T| a < b),
        LessEqual => test(|a: T, b: T| a <= b),
        Greater => test(|a: T, b: T| a > b),
        GreaterEqual => test(|a: T, b: T| a >= b),
        Numbers | Nan => return None,
    })
}

fn floats<T: Scalar>(
    comparison: (Comparison, bool),
    number: impl Fn(T) -> f64 + Copy + Send + Sync + 'static,
) -> TestFn {
    let (comparison, unordered) = comparison;
    macro_rules! ordered {
        ($op:tt) => {
            test(move |a: T, b: T| {
                let (a, b) = (number(a), number(b));
                (a $op b) | (unordered & (a.is_nan() | b.is_nan()))
            })
        };
    }
    match comparison {
        Equal => ordered!(==),
        Less => ordered!(<),
        LessEqual => ordered!(<=),
        Greater => ordered!(>),
        GreaterEqual => ordered!(>=),
        // Written out, for `!=` is true of NaN.
        NotEqual => test(move |a: T, b: T| {
            let (a, b) = (number(a), number(b));
            (a < b) | (a > b) | (unordered & (a.is_nan() | b.is_nan()))
        }),
        Numbers => test(move |a: T, b: T| !(number(a).is_nan() | number(b).is_nan())),
        Nan => test(move |a: T, b: T| number(a).is_nan() | number(b).is_nan()),
    }
}

/// The test for `ty`, and that of the upper halves of pairs.
fn test_of(d: &mut Decoding, ty: Type) -> Option<(TestFn, Option<TestFn>)> {
    let comparison = d.take_one_of(&COMPARISONS)?;
    let ftz = d.take("ftz");
    let tiny = move |x: f64| {
        if ftz && x.abs() < 6.103_515_625e-5 {
            0.0
        } else {
            x
        }
    };
    let low = match ty {
        Type::F32 if ftz => floats(comparison, |a: f32| flush(a).into()),
        Type::F32 => floats(comparison, |a: f32| a.into()),
        Type::F64 => floats(comparison, |a: f64| a),
        Type::F16 | Type::F16x2 => floats(comparison, move |a: f16| tiny(a.to_f64())),
        Type::Bf16 | Type::Bf16x2 => floats(comparison, |a: bf16| a.to_f64()),
        _ => for_integer!(ty, T => integers::<T>(comparison.0))??,
    };
    let high = match ty {
        Type::F16x2 | Type::Bf16x2 => {
            let small = Small::of(ty)?;
            let half = small.format == HALF;
            Some(floats(comparison, move |a: u32| {
                let x = small.widen((a >> 16) as u16);
                if half { tiny(x) } else { x }
            }))
        }
        _ => None,
    };
    Some((low, high))
}

pub fn decode(d: &mut Decoding) -> Decoded {
    match d.name {
        "setp" => set_predicate(d),
        "set" => set(d),
        "slct" => select_by_sign(d),
        "testp" => property(d),
        _ => Ok(None),
    }
}

fn set_predicate(d: &mut Decoding) -> Decoded {
    let ty = d.ty()?;
    let Some((test, test_high)) = test_of(d, ty) else {
        return Ok(None);
    };
    let combine = match d.take_one_of(&COMBINATIONS) {
        Some(combine) => Some((combine, d.predicate(3)?)),
        None => None,
    };
    d.expect_operands(if combine.is_some() { 4 } else { 3 })?;
    let to = match d.operand(0)? {
        Operand::Pair(pair) => [predicate_or_sink(&pair.0)?, predicate_or_sink(&pair.1)?],
        one => [predicate_or_sink(one)?, None],
    };
    let from = [d.from(1, ty)?, d.from(2, ty)?];
    Ok(Some(Code::SetPredicate(Box::new(SetPredicate {
        from,
        test,
        test_high,
        combine,
        to,
    }))))
}

pub fn predicate_or_sink(operand: &Operand) -> Result<Option<u32>, String> {
    match operand {
        Operand::Predicate(used) if !used.negated => Ok(Some(used.index)),
        Operand::Sink => Ok(None),
        other => Err(format!("a predicate register was expected, not {other:?}")),
    }
}

/// `set`: all ones, or the number one, for true.
fn set(d: &mut Decoding) -> Decoded {
    let [to, ty] = d.types[..] else {
        return Ok(None);
    };
    // The modifier `.ftz` is for the source.
    let Some((low, high)) = test_of(d, ty) else {
        return Ok(None);
    };
    if d.operands.len() != 3 {
        return Err("a boolean combination in `set` is not executed".into());
    }
    let truth: u64 = match to {
        Type::U32 | Type::S32 | Type::B32 => 0xffff_ffff,
        Type::U16 | Type::S16 | Type::B16 => 0xffff,
        Type::F32 => 1f32.to_bits().into(),
        Type::F16 | Type::F16x2 => f16::ONE.to_bits().into(),
        Type::Bf16 | Type::Bf16x2 => bf16::ONE.to_bits().into(),
        _ => return Ok(None),
    };
    let half = if high.is_some() {
        truth & 0xffff
    } else {
        truth
    };
    let run: LaneFn = Box::new(move |from, out| {
        let low = low(from[0], from[1]);
        let high = high.as_ref().map_or(0, |test| test(from[0], from[1]));
        for (i, x) in out.0.iter_mut().enumerate() {
            let bit = |mask: u32| u64::from(mask >> i & 1).wrapping_neg();
            *x = bit(low) & half | (bit(high) & half) << 16;
        }
    });
    d.lanes(&[ty, ty], run)
}

/// `slct`: `a` where `c >= 0`, else (and for NaN) `b`.
fn select_by_sign(d: &mut Decoding) -> Decoded {
    let [ty, by] = d.types[..] else {
        return Ok(None);
    };
    let ftz = d.take("ftz");
    let run = match by {
        Type::S32 => ternary(|a: u64, b: u64, c: i32| if c >= 0 { a } else { b }),
        Type::F32 => ternary(move |a: u64, b: u64, c: f32| {
            let c = if ftz { flush(c) } else { c };
            if c >= 0.0 { a } else { b }
        }),
        _ => return Ok(None),
    };
    d.lanes(&[ty, ty, by], run)
}

fn property(d: &mut Decoding) -> Decoded {
    /// Of a value, and whether it is subnormal.
    type Property = fn(f64, bool) -> bool;
    const PROPERTIES: [(&str, Property); 6] = [
        ("finite", |x, _| x.is_finite()),
        ("infinite", |x, _| x.is_infinite()),
        ("number", |x, _| !x.is_nan()),
        ("notanumber", |x, _| x.is_nan()),
        ("normal", |x, subnormal| {
            x.is_finite() && x != 0.0 && !subnormal
        }),
        ("subnormal", |_, subnormal| subnormal),
    ];
    let Some(property) = d.take_one_of(&PROPERTIES) else {
        return Ok(None);
    };
    let run = match d.ty()? {
        Type::F32 => test(move |a: f32, _: f32| property(a.into(), a.is_subnormal())),
        Type::F64 => test(move |a: f64, _: f64| property(a, a.is_subnormal())),
        _ => return Ok(None),
    };
    let ty = d.ty()?;
    let from = [d.from(1, ty)?, d.names.constant(Constant::Bits(0))];
    let to = [Some(d.to_predicate(0)?), None];
    Ok(Some(Code::SetPredicate(Box::new(SetPredicate {
        from,
        test: run,
        test_high: None,
        combine: None,
        to,
    }))))
}
