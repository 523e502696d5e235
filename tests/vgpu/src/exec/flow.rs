//! Where a warp goes: branches, calls, barriers, ends.

use super::code::{Code, PredicateSource, Reg, Source};
use super::decode::{Decoded, Decoding};
use crate::ptx::cfg::NOWHERE;
use crate::ptx::names::Operand;
use crate::ptx::types::Type;

/// A call; arguments and results are offsets in the caller's part of local memory.
pub struct Call {
    pub function: usize,
    pub arguments: Vec<u32>,
    pub returned: Vec<u32>,
}

pub struct Barrier {
    pub id: Source,
    /// How many threads take part; all of the block where none is given.
    pub threads: Option<Source>,
    pub kind: BarrierKind,
}

#[derive(Clone, Copy)]
pub enum BarrierKind {
    Wait,
    /// Counts, but goes on.
    Arrive,
    /// Counts the threads whose predicate is true.
    Count {
        to: Reg,
        by: PredicateSource,
    },
    /// True where all (or any) are.
    Poll {
        to: u32,
        by: PredicateSource,
        all: bool,
    },
}

pub fn decode(d: &mut Decoding) -> Decoded {
    match d.name {
        "bra" => {
            d.take("uni");
            let to = match *d.operand(0)? {
                Operand::Name(name) => d.names.label(name),
                ref other => return Err(format!("a label was expected, not {other:?}")),
            };
            Ok(Some(Code::Branch {
                to,
                reconverge: NOWHERE,
            }))
        }
        "brx" => {
            d.take("idx");
            d.take("uni");
            let index = d.from(0, Type::U32)?;
            let Operand::Name(name) = *d.operand(1)? else {
                return Err("a list of targets was expected".into());
            };
            let to = d
                .names
                .tables
                .get(name)
                .cloned()
                .ok_or_else(|| format!("targets `{name}` are not declared"))?;
            Ok(Some(Code::BranchTable {
                index,
                to,
                reconverge: NOWHERE,
            }))
        }
        "ret" => {
            d.take("uni");
            Ok(Some(Code::Return))
        }
        "exit" => Ok(Some(Code::Exit)),
        "trap" | "brkpt" => Ok(Some(Code::Trap)),
        "nanosleep" | "pmevent" | "griddepcontrol" => {
            d.ignore(|_| true);
            Ok(Some(Code::Nothing))
        }
        "bar" | "barrier" => barrier(d),
        _ => Ok(None),
    }
}

fn barrier(d: &mut Decoding) -> Decoded {
    if d.take("warp") {
        d.take("sync");
        return Ok(Some(Code::WarpBarrier {
            mask: d.from(0, Type::B32)?,
        }));
    }
    d.take("cta");
    d.take("aligned");
    let (kind, first) = if d.take("sync") {
        (BarrierKind::Wait, 0)
    } else if d.take("arrive") {
        (BarrierKind::Arrive, 0)
    } else if d.take("red") {
        let last = d.operands.len() - 1;
        let by = d.predicate(last)?;
        d.operands.pop();
        let kind = if d.take("popc") {
            BarrierKind::Count { to: d.to(0)?, by }
        } else if d.take("and") {
            BarrierKind::Poll {
                to: d.to_predicate(0)?,
                by,
                all: true,
            }
        } else if d.take("or") {
            BarrierKind::Poll {
                to: d.to_predicate(0)?,
                by,
                all: false,
            }
        } else {
            return Ok(None);
        };
        d.types.clear();
        (kind, 1)
    } else {
        return Ok(None);
    };
    let id = d.from(first, Type::U32)?;
    let threads = if d.operands.len() > first + 1 {
        Some(d.from(first + 1, Type::U32)?)
    } else {
        None
    };
    Ok(Some(Code::Barrier(Box::new(Barrier { id, threads, kind }))))
}
