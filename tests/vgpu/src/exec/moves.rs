//! `mov`, `selp`, `cvta`, `isspacep`: values from place to place.

use super::code::{Code, PredicateSource, Special};
use super::compare::SetPredicate;
use super::decode::{Decoded, Decoding};
use super::lanes::{binary, test, unary};
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, window};
use crate::ptx::ir::Space;
use crate::ptx::names::Operand;
use crate::ptx::types::Type;

pub fn decode(d: &mut Decoding) -> Decoded {
    match d.name {
        "mov" => moved(d),
        "selp" => select(d),
        "cvta" => address(d),
        "isspacep" => is_in_space(d),
        _ => Ok(None),
    }
}

fn moved(d: &mut Decoding) -> Decoded {
    let ty = d.ty()?;
    d.expect_operands(2)?;
    if ty == Type::Pred {
        let from = [d.predicate(1)?, PredicateSource::Constant(false)];
        return Ok(Some(Code::Predicate {
            to: d.to_predicate(0)?,
            run: |a, _| a,
            from,
        }));
    }
    if let Operand::Vector(list) = d.operand(0)? {
        let bits = part(ty, list.len())?;
        let to = d.vector_to(0)?;
        return Ok(Some(Code::Unpack {
            to,
            from: d.from(1, ty)?,
            bits,
        }));
    }
    let to = d.to(0)?;
    if let Operand::Vector(list) = d.operand(1)? {
        let bits = part(ty, list.len())?;
        return Ok(Some(Code::Pack {
            to,
            from: d.vector_from(1, ty)?,
            bits,
        }));
    }
    if let Operand::Special(Special::Clock) = d.operand(1)? {
        return Ok(Some(Code::Clock { to }));
    }
    let keep = u64::MAX >> (64 - ty.bits().min(64));
    d.lanes(&[ty], unary(move |a: u64| a & keep))
}

/// Bits of one of `count` parts.
fn part(ty: Type, count: usize) -> Result<u32, String> {
    match (ty.bits(), count) {
        (16 | 32 | 64, 2) | (32 | 64, 4) => Ok(ty.bits() / count as u32),
        _ => Err(format!(
            "{count} parts of `.{}` are not executed",
            ty.name()
        )),
    }
}

fn select(d: &mut Decoding) -> Decoded {
    let ty = d.ty()?;
    d.expect_operands(4)?;
    let from = [d.from(1, ty)?, d.from(2, ty)?];
    Ok(Some(Code::Select {
        to: d.to(0)?,
        from,
        by: d.predicate(3)?,
    }))
}

const SPACES: [(&str, Space); 6] = [
    ("global", Space::Global),
    ("const", Space::Const),
    ("shared", Space::Shared),
    ("shared::cta", Space::Shared),
    ("local", Space::Local),
    ("param", Space::Param),
];

/// Where generic addresses of a space start; those of `.global` and `.const` are themselves generic.
pub fn window_of(space: Space) -> u64 {
    match space {
        Space::Shared => SHARED_WINDOW,
        Space::Local => LOCAL_WINDOW,
        Space::Param => PARAM_WINDOW,
        Space::Generic | Space::Global | Space::Const => 0,
    }
}

/// `cvta.space` makes an address generic, `cvta.to.space` one of the space.
fn address(d: &mut Decoding) -> Decoded {
    let back = d.take("to");
    d.take("param::entry");
    let Some(space) = d.take_one_of(&SPACES) else {
        return Ok(None);
    };
    let ty = d.ty()?;
    // Parameters of functions are kept in local memory.
    let space = match (space, d.operand(1)?) {
        (Space::Param, Operand::Address(_, Some(of))) => *of,
        (space, _) => space,
    };
    let start = d.constant(window_of(space));
    let to = d.to(0)?;
    let from = [d.from(1, ty)?, start, start, start];
    let run = if back {
        binary(|a: u64, start: u64| a.wrapping_sub(start))
    } else {
        binary(|a: u64, start: u64| a.wrapping_add(start))
    };
    Ok(Some(Code::Lanes { run, to, from }))
}

fn is_in_space(d: &mut Decoding) -> Decoded {
    let Some(space) = d.take_one_of(&SPACES) else {
        return Ok(None);
    };
    let from = [d.from(1, Type::U64)?, d.constant(window_of(space))];
    let test = match space {
        Space::Global => test(|a: u64, _: u64| window(a) > PARAM_WINDOW),
        Space::Const => test(|_: u64, _: u64| false),
        _ => test(|a: u64, start: u64| window(a) == start),
    };
    let to = [Some(d.to_predicate(0)?), None];
    Ok(Some(Code::SetPredicate(Box::new(SetPredicate {
        from,
        test,
        test_high: None,
        combine: None,
        to,
    }))))
}
