//! `mbarrier`: barriers in shared memory that count arrivals and bytes, phase by phase.
//!
//! The object itself is kept here, not in the words it occupies. A warp whose wait is not over is parked until some
//! phase completes; when nobody else can go on either, its wait gives false, as one does after a while on a card.

use super::bulk::Landing;
use super::code::{Code, Reg, Source};
use super::decode::{Decoded, Decoding};
use super::lanes::{Lanes, WARP};
use super::memory_ops::{lanes, resolve, space_of};
use super::order::{Released, Touch, Who};
use super::warp::{Machine, Trouble, View, Wait, Warp};
use crate::fault::What;
use crate::ptx::ir::Space;
use crate::ptx::names::Operand;
use crate::ptx::types::Type;

/// The most bytes that a phase may wait for, and arrivals too: 2^20 - 1.
const MOST: i64 = (1 << 20) - 1;

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

/// One barrier.
struct Object {
    address: u64,
    /// Arrivals that a phase needs, and those it still needs.
    expected: u32,
    pending: u32,
    /// Bytes expected that have not come.
    bytes: i64,
    /// Phases complete.
    phase: u32,
    /// Whose clock it is.
    agent: usize,
    /// What arrivals have released, and what waiting for the last phase tells.
    released: Released,
    completed: Released,
    /// Copies whose bytes it counts in this phase.
    landing: Vec<Landing>,
    /// The initialisation, and whether the async proxy sees it.
    by: Who,
    fenced: bool,
}

/// Those of a block.
#[derive(Default)]
pub struct MBarriers {
    list: Vec<Object>,
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
            let complete = match parity {
                true => u64::from(now) & 1 != phases.0[lane] & 1,
                false => u64::from(now) > phases.0[lane],
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

impl Machine<'_> {
    fn object(&mut self, address: u64, who: Who) -> Result<&mut Object, Box<What>> {
        self.shared.touch_barrier(address, who)?;
        let found = self.mbarriers.list.iter_mut();
        let mut found = found.filter(|object| object.address == address);
        found.next().ok_or_else(|| {
            Box::new(What::Undefined(
                "no mbarrier was initialised at this address".into(),
            ))
        })
    }

    fn init(&mut self, address: u64, count: u32, who: Who) -> Result<(), Box<What>> {
        if count == 0 || i64::from(count) > MOST {
            let what = format!("an mbarrier for {count} arrivals: 1 to {MOST} are possible");
            return Err(Box::new(What::Undefined(what)));
        }
        let plain = Who {
            strong: false,
            ..who
        };
        self.shared.set_barrier(address, plain, true)?;
        let agent = self.shared.clocks.add_agent();
        let agent = agent.ok_or_else(|| {
            Box::new(What::Undefined(
                "more mbarriers in one block than the virtual GPU follows".into(),
            ))
        })?;
        self.mbarriers.list.push(Object {
            address,
            expected: count,
            pending: count,
            bytes: 0,
            phase: 0,
            agent,
            released: Released::default(),
            completed: Released::default(),
            landing: Vec::new(),
            by: who,
            fenced: false,
        });
        Ok(())
    }

    fn invalidate(&mut self, address: u64, who: Who) -> Result<(), Box<What>> {
        self.object(address, who)?;
        self.shared.set_barrier(address, who, false)?;
        self.mbarriers.list.retain(|o| o.address != address);
        Ok(())
    }

    /// So many bytes more, or fewer, are to come in this phase.
    fn expect(&mut self, address: u64, bytes: i64, who: Who) -> Result<(), Box<What>> {
        let object = self.object(address, who)?;
        object.bytes += bytes;
        if object.bytes.abs() > MOST {
            let what = format!(
                "{} bytes outstanding at an mbarrier: {MOST} at most",
                object.bytes
            );
            return Err(Box::new(What::Undefined(what)));
        }
        self.complete_phase(address);
        Ok(())
    }

    /// The phase it arrived in.
    fn arrive(
        &mut self,
        address: u64,
        count: u32,
        bytes: i64,
        release: bool,
        who: Who,
    ) -> Result<u32, Box<What>> {
        if bytes != 0 {
            // Together with the arrival: the phase cannot complete between the two.
            self.object(address, who)?.bytes += bytes;
        }
        let object = self.object(address, who)?;
        let phase = object.phase;
        if count == 0 || count > object.pending {
            let what = format!(
                "{count} arrivals at an mbarrier of which {} of {} are missing in this phase",
                object.pending, object.expected
            );
            return Err(Box::new(What::Undefined(what)));
        }
        object.pending -= count;
        if release {
            let mut released = std::mem::take(&mut object.released);
            self.shared
                .clocks
                .release(who.thread as usize / WARP, &mut released);
            if let Ok(object) = self.object(address, who) {
                object.released = released;
            }
        }
        self.expect(address, 0, who)?;
        Ok(phase)
    }

    /// Phases complete so far.
    fn phase(&mut self, address: u64, who: Who) -> Result<u32, Box<What>> {
        Ok(self.object(address, who)?.phase)
    }

    fn acquire(&mut self, address: u64, who: Who) {
        let object = self.mbarriers.list.iter().find(|o| o.address == address);
        if let Some(object) = object {
            let warp = who.thread as usize / WARP;
            self.shared.clocks.acquire(warp, &object.completed);
        }
    }

    /// If everyone and everything has come.
    fn complete_phase(&mut self, address: u64) {
        let mut objects = self.mbarriers.list.iter_mut();
        let Some(object) = objects.find(|o| o.address == address) else {
            return;
        };
        if object.pending != 0 || object.bytes != 0 {
            return;
        }
        object.pending = object.expected;
        object.phase += 1;
        self.events += 1;
        object.released.complete(object.agent, object.phase);
        object.completed = object.released.clone();
        for landing in object.landing.drain(..) {
            let write = Touch::by_agent(object.agent, object.phase, landing.line);
            self.shared.end_copy_as(landing.to, &landing.bytes, write);
        }
    }

    /// The async proxy may signal this barrier.
    pub fn check_signal(&mut self, address: u64, who: Who) -> Result<(), Box<What>> {
        let object = self.object(address, who)?;
        match object.fenced {
            true => Ok(()),
            false => Err(Box::new(What::NoProxyFence {
                thread: object.by.thread,
                line: object.by.line,
            })),
        }
    }

    /// A bulk copy is on its way: its bytes count for the barrier.
    pub fn land(&mut self, address: u64, landing: Landing, who: Who) -> Result<(), Box<What>> {
        let bytes = landing.bytes.len() as i64;
        self.object(address, who)?.landing.push(landing);
        self.expect(address, -bytes, who)
    }
}

impl MBarriers {
    /// These threads have passed a fence: the async proxy sees what they initialised.
    pub fn fence(&mut self, first_thread: u32, mask: u32) {
        for object in &mut self.list {
            let lane = object.by.thread.wrapping_sub(first_thread);
            object.fenced |= lane < 32 && mask >> lane & 1 == 1;
        }
    }

    /// The line of a copy whose phase never completed, and its thread.
    pub fn left_over(&self) -> Option<(u32, u32)> {
        let landings = self.list.iter().flat_map(|object| &object.landing);
        landings.map(|l| (l.thread, l.line)).next()
    }

    /// What a warp waits for that waits for phase `phase` of a barrier.
    pub fn describe(&self, address: u64, phase: u32) -> String {
        let Some(object) = self.list.iter().find(|o| o.address == address) else {
            return "an mbarrier that is no more".into();
        };
        format!(
            "phase {phase} of the mbarrier at {address:#x} has {} of {} arrivals and {} bytes outstanding",
            object.expected - object.pending,
            object.expected,
            object.bytes
        )
    }
}
