//! Proxy fences, `elect.sync` and `setmaxnreg`: what warps with roles of their own need besides barriers.

use super::code::{Code, Reg, Source};
use super::decode::{Decoded, Decoding};
use super::lanes::{Lanes, WARP};
use super::memory_ops::lanes;
use super::warp::{Machine, Trouble, View, Wait, Warp};
use super::warp_ops::members;
use crate::fault::What;
use crate::ptx::names::Operand;
use crate::ptx::types::Type;

/// Registers of a multiprocessor of compute capability 9.0.
const REGISTERS: u32 = 64 << 10;

pub struct Elect {
    lane: Option<Reg>,
    leads: u32,
    mask: Source,
}

pub fn decode(d: &mut Decoding) -> Decoded {
    match d.name {
        "fence" if d.has("proxy") || d.has("mbarrier_init") => fence(d),
        "elect" => elect(d),
        "setmaxnreg" => set_registers(d),
        _ => Ok(None),
    }
}

fn fence(d: &mut Decoding) -> Decoded {
    d.names.needs_target(90, false)?;
    if d.take("mbarrier_init") {
        if !d.take("release") || !d.take("cluster") {
            return Ok(None);
        }
        return Ok(Some(Code::ProxyFence { data: false }));
    }
    d.take("proxy");
    // What tensor maps are made of is not written by kernels here.
    if d.take("tensormap::generic") {
        d.ignore(|m| matches!(m, "acquire" | "release" | "cta" | "cluster" | "gpu" | "sys"));
        return Ok(Some(Code::Nothing));
    }
    if !d.take("async") {
        return Ok(None);
    }
    let elsewhere = d.take("global");
    d.ignore(|m| matches!(m, "shared::cta" | "shared::cluster"));
    Ok(Some(if elsewhere {
        Code::Nothing
    } else {
        Code::ProxyFence { data: true }
    }))
}

fn elect(d: &mut Decoding) -> Decoded {
    d.names.needs_target(90, false)?;
    if !d.take("sync") {
        return Ok(None);
    }
    let Operand::Pair(pair) = d.operand(0)?.clone() else {
        return Err("`d|p` was expected".into());
    };
    let (lane, leads) = *pair;
    let lane = match lane {
        Operand::Register(reg) => Some(reg),
        Operand::Sink => None,
        other => return Err(format!("a register was expected, not {other:?}")),
    };
    let Operand::Predicate(leads) = leads else {
        return Err("a predicate was expected after `|`".into());
    };
    Ok(Some(Code::Elect(Box::new(Elect {
        lane,
        leads: leads.index,
        mask: d.from(1, Type::B32)?,
    }))))
}

fn set_registers(d: &mut Decoding) -> Decoded {
    d.names.needs_target(90, true)?;
    let more = d.take("inc");
    if !(more || d.take("dec")) || !d.take("sync") || !d.take("aligned") || d.ty()? != Type::U32 {
        return Ok(None);
    }
    let count = d.integer(0)? as u32;
    if !(24..=256).contains(&count) || !count.is_multiple_of(8) {
        return Err(format!(
            "{count} registers: a multiple of 8 from 24 to 256 was expected"
        ));
    }
    Ok(Some(Code::SetRegisters { count, more }))
}

impl Elect {
    /// The lowest lane leads: a card may choose another one.
    pub fn run(&self, warp: &mut Warp, view: &View, mask: u32) -> Result<(), Trouble> {
        let named = *warp.value(view, self.mask);
        members(warp, &named, mask, "elect.sync")?;
        let leader = mask.trailing_zeros();
        if let Some(lane) = self.lane {
            warp.set(view, lane, mask, &Lanes::all(leader.into()));
        }
        warp.set_predicate(view, self.leads, mask, 1 << leader);
        Ok(())
    }
}

/// The async proxy sees what these lanes have done so far.
pub fn pass_fence(machine: &mut Machine, warp: &Warp, mask: u32, data: bool) {
    machine.mbarriers.fence(warp.first_thread, mask);
    if data {
        let number = warp.first_thread as usize / WARP;
        machine.shared.clocks.proxy_fence(number, lanes(mask));
    }
}

/// Registers that each thread of a kernel has when it starts: as many as its largest block allows.
pub fn registers_at_start(machine: &Machine) -> Option<u32> {
    let kernel = &machine.running.functions[machine.running.kernel];
    let by_block = |threads: u32| REGISTERS / threads.next_multiple_of(128) / 8 * 8;
    let most = kernel
        .max_registers
        .or_else(|| kernel.max_threads.map(by_block))?;
    Some(most.min(255).next_multiple_of(8))
}

/// `setmaxnreg`: gives registers to the block's pool, or waits until it can take them from there.
pub fn change_registers(
    machine: &mut Machine,
    warp: &mut Warp,
    mask: u32,
    count: u32,
    more: bool,
) -> Result<Option<Wait>, Trouble> {
    let lane = mask.trailing_zeros() as usize;
    let wrong = |what: String| Err(Trouble::of(lane, What::Undefined(what)));
    let Some(start) = registers_at_start(machine) else {
        return wrong("`setmaxnreg` in a kernel without `.maxntid` or `.maxnreg`".into());
    };
    if mask != warp.live || warp.live != u32::MAX {
        return wrong("`setmaxnreg` needs all lanes of the warp".into());
    }
    let has = warp.registers_held.unwrap_or(start);
    if more != (count > has) && count != has {
        let way = if more { "inc" } else { "dec" };
        return wrong(format!(
            "`setmaxnreg.{way}` to {count} of a warp that has {has}"
        ));
    }
    let threads = WARP as u32;
    if more && machine.registers_free < (count - has) * threads {
        let barrier = None;
        return Ok(Some(Wait { lane, barrier }));
    }
    machine.registers_free = machine.registers_free + has * threads - count * threads;
    machine.events += 1;
    warp.registers_held = Some(count);
    Ok(None)
}
