//! `mbarrier`: barriers in shared memory that count arrivals and bytes, phase by phase.
//!
//! A warp whose wait is not over is parked until some
//! phase completes; when nobody else can go on either, its wait gives false, as one does after a while on a card.

use super::code::{Code, Reg, Source};
use super::decode::{Decoded, Decoding};
use super::lanes::{Lanes, WARP};
use super::memory_ops::{lanes, resolve, space_of};
use super::order::Who;
use super::warp::{Machine, Trouble, View, Wait, Warp};
use crate::fault::What;
use crate::ptx::ir::Space;
use crate::ptx::names::Operand;
use crate::ptx::types::Type;

pub struct MBarrierOp {
    space: Space,
    address: super::code::Address,
    what: Act,
}

enum Act {
    Init {
        count: Source,
    },
    Invalidate,
    /// Expects bytes first, if any; gives the phase it arrived in.
    Arrive {
        to: Option<Reg>,
        count: Source,
        expect: Option<Source>,
        release: bool,
    },
    Expect {
        bytes: Source,
    },
    Complete {
        bytes: Source,
    },
    /// Until the phase of this parity, or the one that an arrival gave, is complete.
    Wait {
        to: u32,
        phase: Source,
        parity: bool,
        acquire: bool,
    },
}

pub fn decode(d: &mut Decoding) -> Decoded {
    if d.name != "mbarrier" || d.types != [Type::B64] {
        return Ok(None);
    }
    if d.take("init") {
        let count = d.from(1, Type::U32)?;
        return finish(d, 0, Act::Init { count });
    }
    if d.take("inval") {
        return finish(d, 0, Act::Invalidate);
    }
    if d.take("arrive") {
        return arrive(d);
    }
    if d.take("expect_tx") {
        d.names.needs_target(90, false)?;
        d.take("relaxed");
        let bytes = d.from(1, Type::U32)?;
        return finish(d, 0, Act::Expect { bytes });
    }
    if d.take("complete_tx") {
        d.take("relaxed");
        let bytes = d.from(1, Type::U32)?;
        return finish(d, 0, Act::Complete { bytes });
    }
    if d.has("try_wait") {
        d.names.needs_target(90, false)?;
    }
    if d.take("test_wait") || d.take("try_wait") {
        let (parity, relaxed) = (d.take("parity"), d.take("relaxed"));
        d.take("acquire");
        let ty = if parity { Type::U32 } else { Type::B64 };
        let act = Act::Wait {
            to: d.to_predicate(0)?,
            phase: d.from(2, ty)?,
            parity,
            acquire: !relaxed,
        };
        return finish(d, 1, act);
    }
    Ok(None)
}

fn arrive(d: &mut Decoding) -> Decoded {
    let release = !d.take("relaxed");
    d.take("release");
    let to = match d.operand(0)? {
        Operand::Sink => None,
        _ => Some(d.to(0)?),
    };
    let (mut count, mut expect) = (d.constant(1), None);
    if d.take("expect_tx") {
        expect = Some(d.from(2, Type::U32)?);
    } else if d.operands.len() > 2 {
        count = d.from(2, Type::U32)?;
    }
    let act = Act::Arrive {
        to,
        count,
        expect,
        release,
    };
    finish(d, 1, act)
}

fn finish(d: &mut Decoding, at: usize, what: Act) -> Decoded {
    let (space, address) = space_of(d, at)?;
    d.ignore(|m| matches!(m, "cta" | "cluster"));
    Ok(Some(Code::MBarrier(Box::new(MBarrierOp {
        space,
        address,
        what,
    }))))
}

/// Where in shared memory a barrier lies.
pub fn in_shared(space: Space, address: u64, lane: usize) -> Result<u64, Trouble> {
    match resolve(space, address) {
        (Space::Shared, at) => Ok(at),
        _ => {
            let what = What::Undefined("an mbarrier that is not in shared memory".into());
            Err(Trouble::at(lane, address, what))
        }
    }
}

impl MBarrierOp {
    /// Not `None`: the warp has to wait, and do it again.
    pub fn run(
        &self,
        machine: &mut Machine,
        warp: &mut Warp,
        view: &View,
        mask: u32,
    ) -> Result<Option<Wait>, Trouble> {
        let base = *warp.value(view, self.address.base);
        let address = |lane: usize| {
            let address = base.0[lane].wrapping_add(self.address.offset);
            in_shared(self.space, address, lane)
        };
        let who = |lane: usize| Who {
            thread: warp.first_thread + lane as u32,
            line: view.line,
            strong: true,
        };
        if let Act::Wait { .. } = self.what {
            let mut at = [0; WARP];
            for lane in lanes(mask) {
                at[lane] = address(lane)?;
            }
            return self.wait(machine, warp, view, mask, &at);
        }
        let mut out = Lanes::ZERO;
        for lane in lanes(mask) {
            let (at, who) = (address(lane)?, who(lane));
            let value = |source: Source| warp.value(view, source).0[lane] as u32;
            let done = match self.what {
                Act::Init { count } => machine.init(at, value(count), who),
                Act::Invalidate => machine.invalidate(at, who),
                Act::Expect { bytes } => machine.expect(at, value(bytes).into(), who),
                Act::Complete { bytes } => machine.expect(at, -i64::from(value(bytes)), who),
                Act::Arrive {
                    count,
                    expect,
                    release,
                    ..
                } => {
                    let bytes = expect.map_or(0, |bytes| i64::from(value(bytes)));
                    let phase = machine.arrive(at, value(count), bytes, release, who);
                    phase.map(|phase| out.0[lane] = phase.into())
                }
                Act::Wait { .. } => Ok(()),
            };
            done.map_err(|what| Trouble::at(lane, at, what))?;
        }
        if let Act::Arrive { to: Some(to), .. } = self.what {
            warp.set(view, to, mask, &out);
        }
        Ok(None)
    }

    fn wait(
        &self,
        machine: &mut Machine,
        warp: &mut Warp,
        view: &View,
        mask: u32,
        at: &[u64; WARP],
    ) -> Result<Option<Wait>, Trouble> {
        let Act::Wait {
            to,
            phase,
            parity,
            acquire,
        } = self.what
        else {
            return Ok(None);
        };
        let phases = *warp.value(view, phase);
        let (mut over, mut first) = (0, None);
        for lane in lanes(mask) {
            let who = Who {
                thread: warp.first_thread + lane as u32,
                line: view.line,
                strong: true,
            };
            let trouble = |what| Trouble::at(lane, at[lane], what);
            let now = machine.phase(at[lane], who).map_err(trouble)?;
            let complete = if parity {
                u64::from(now) & 1 != phases.0[lane] & 1
            } else {
                u64::from(now) > phases.0[lane]
            };
            if !complete {
                first.get_or_insert(Wait {
                    lane,
                    barrier: Some((at[lane], now)),
                });
                continue;
            }
            over |= 1 << lane;
            if acquire {
                machine.acquire(at[lane], who);
            }
        }
        // The first attempt fails at once, as it may on a card; the next one is patient. Lanes that go on may be what
        // the others wait for.
        let attempt = first.and_then(|wait| wait.barrier);
        let again = warp.attempt == attempt.map(|barrier| (barrier, view.line));
        if over == 0 && again && !warp.impatient {
            return Ok(first);
        }
        warp.impatient = false;
        warp.attempt = attempt.map(|barrier| (barrier, view.line));
        warp.set_predicate(view, to, mask, over);
        Ok(None)
    }
}
