//! `atom` and `red`.

use super::code::{Code, Reg, Source};
use super::decode::{Decoded, Decoding, Refusal};
use super::float::{canonical, extreme};
use super::half_float::Small;
use super::lanes::{Scalar, for_integer};
use super::memory_ops::{Place, is_hint, lanes, space_of};
use super::order::Who;
use super::rounding::fma_to_odd;
use super::warp::{Machine, Trouble, View, Warp};
use crate::fault::What;
use crate::ptx::ir::Space;
use crate::ptx::types::Type;

/// What memory becomes: from what it was and up to two operands.
type Change = Box<dyn Fn(u64, u64, u64) -> u64 + Send + Sync>;

pub struct Atomic {
    place: Place,
    change: Change,
    from: [Source; 2],
    to: Option<Reg>,
}

pub fn decode(d: &mut Decoding) -> Decoded {
    let gives = match d.name {
        "atom" => true,
        "red" => false,
        _ => return Ok(None),
    };
    if d.take("async") {
        return Err("asynchronous reductions are not executed".into());
    }
    let first = usize::from(gives);
    let (space, address) = space_of(d, first)?;
    for order in ["relaxed", "acquire", "release", "acq_rel", "noftz"] {
        d.take(order);
    }
    let ty = d.ty()?;
    let Some(change) = change(d, ty) else {
        return Ok(None);
    };
    d.ignore(is_hint);
    let place = Place {
        space,
        address,
        bytes: ty.bytes() as usize,
        strong: true,
    };
    let b = d.from(first + 1, ty)?;
    let c = if d.operands.len() > first + 2 {
        d.from(first + 2, ty)?
    } else {
        d.constant(0)
    };
    let to = if gives {
        d.vector_to(0)?.first().copied().flatten()
    } else {
        None
    };
    Ok(Some(Code::Atomic(Box::new(Atomic {
        place,
        change,
        from: [b, c],
        to,
    }))))
}

const OPERATIONS: [&str; 10] = [
    "add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec",
];

fn change(d: &mut Decoding, ty: Type) -> Option<Change> {
    let operation = *OPERATIONS.iter().find(|name| d.take(name))?;
    if let Some(small) = Small::of(ty) {
        return small_change(operation, small);
    }
    match (operation, ty) {
        ("exch", _) => return Some(Box::new(|_, b, _| b)),
        ("cas", _) => return Some(Box::new(|old, b, c| if old == b { c } else { old })),
        ("add", Type::F32) => {
            // On global memory cards flush subnormals here; we keep them.
            return Some(float_change(|a: f32, b: f32| canonical(a + b)));
        }
        ("add", Type::F64) => return Some(float_change(|a: f64, b: f64| a + b)),
        _ => {}
    }
    integer_change(operation, ty)
}

fn float_change<T: Scalar>(f: impl Fn(T, T) -> T + Send + Sync + 'static) -> Change {
    Box::new(move |old, b, _| f(T::read(old), T::read(b)).bits())
}

fn integer_change(operation: &str, ty: Type) -> Option<Change> {
    for_integer!(ty, T => {
        let f: fn(T, T) -> T = match operation {
            "add" => |a, b| a.wrapping_add(b),
            "min" => |a, b| a.min(b),
            "max" => |a, b| a.max(b),
            "and" => |a, b| a & b,
            "or" => |a, b| a | b,
            "xor" => |a, b| a ^ b,
            "inc" => |a, b| if a >= b { 0 } else { a + 1 },
            "dec" => |a, b| if a == 0 || a > b { b } else { a - 1 },
            _ => return None,
        };
        float_change(f)
    })
}

fn small_change(operation: &str, small: Small) -> Option<Change> {
    let f: fn(f64, f64) -> f64 = match operation {
        "add" => |a, b| fma_to_odd(a, 1.0, b),
        "min" => |a, b| extreme(a, b, true, false),
        "max" => |a, b| extreme(a, b, false, false),
        "exch" => return Some(Box::new(|_, b, _| b)),
        "cas" => return Some(Box::new(|old, b, c| if old == b { c } else { old })),
        _ => return None,
    };
    let f = small.map(move |[a, b, _]| small.round(f(small.widen(a), small.widen(b))));
    Some(Box::new(move |old, b, _| {
        u64::from(f(old as u32, b as u32, 0))
    }))
}

impl Atomic {
    pub fn run(
        &self,
        machine: &mut Machine,
        warp: &mut Warp,
        view: &View,
        mask: u32,
    ) -> Result<(), Trouble> {
        let addresses = self.place.addresses(warp, view);
        let [b, c] = self.from.map(|source| *warp.value(view, source));
        let bytes = self.place.bytes;
        let keep = u64::MAX >> (64 - 8 * bytes);
        for lane in lanes(mask) {
            let (space, address) = self.place.resolve(addresses.0[lane]);
            let (b, c) = (b.0[lane] & keep, c.0[lane] & keep);
            let new = |old| (self.change)(old, b, c);
            let old = match space {
                Space::Global | Space::Generic => {
                    machine
                        .running
                        .memory
                        .update(&mut machine.actor, address, bytes, new)
                }
                Space::Shared => {
                    let who = Who {
                        thread: warp.first_thread + lane as u32,
                        line: view.line,
                        strong: true,
                    };
                    machine.shared.update(address, bytes, who, new)
                }
                Space::Local => warp.local.load(lane, address, bytes).and_then(|old| {
                    warp.local.store(lane, address, bytes, new(old))?;
                    Ok(old)
                }),
                Space::Const | Space::Param => Err(Box::new(What::ReadOnly(space.name()))),
            };
            let old = old.map_err(|what| Trouble::at(lane, address, what))?;
            if let Some(to) = self.to {
                warp.registers[view.registers + to.index as usize].0[lane] = old;
            }
        }
        Ok(())
    }
}

/// The reduction of `redux.sync`, on words.
pub fn word_reduction(operation: &str, ty: Type) -> Result<fn(u32, u32) -> u32, Refusal> {
    Ok(match (operation, ty) {
        ("add", _) => u32::wrapping_add,
        ("and", _) => |a, b| a & b,
        ("or", _) => |a, b| a | b,
        ("xor", _) => |a, b| a ^ b,
        ("min", Type::S32) => |a, b| (a as i32).min(b as i32) as u32,
        ("max", Type::S32) => |a, b| (a as i32).max(b as i32) as u32,
        ("min", Type::U32) => u32::min,
        ("max", Type::U32) => u32::max,
        _ => return Err(format!("`.{operation}.{}` is not executed", ty.name())),
    })
}
