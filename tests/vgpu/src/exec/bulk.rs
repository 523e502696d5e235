//! `cp.async.bulk`: copies of whole ranges by the async proxy. Into shared memory they complete an mbarrier's phase;
//! out of it they go in groups that their thread waits for.

use super::bulk_tensor;
use super::code::{Address, Code, Source};
use super::decode::{Decoded, Decoding, Refusal};
use super::mbarrier::in_shared;
use super::memory_ops::lanes;
use super::order::Who;
use super::warp::{Machine, Trouble, View, Warp};
use crate::fault::What;
use crate::memory::{SHARED_WINDOW, window};
use crate::ptx::ir::Space;
use crate::ptx::types::Type;

/// A copy of bytes side by side.
pub struct BulkCopy {
    to: Address,
    from: Address,
    bytes: Source,
    /// Of a load.
    barrier: Option<Address>,
}

/// Bytes for shared memory that are there once their mbarrier's phase is complete.
pub struct Landing {
    pub to: u64,
    pub bytes: Vec<u8>,
    pub thread: u32,
    pub line: u32,
}

/// A store whose source is still read.
struct Storing {
    lane: usize,
    group: u32,
    words: Vec<u32>,
    line: u32,
}

/// The bulk groups of a warp's threads.
#[derive(Default)]
pub struct BulkGroups {
    storing: Vec<Storing>,
    committed: [u32; 32],
}

pub fn decode(d: &mut Decoding) -> Decoded {
    if d.name != "cp" || !d.has("bulk") {
        return Ok(None);
    }
    d.names.needs_target(90, false)?;
    if !d.take("async") {
        return Ok(None);
    }
    d.take("bulk");
    if d.take("commit_group") {
        return Ok(Some(Code::CommitBulk));
    }
    if d.take("wait_group") {
        d.take("read");
        return Ok(Some(Code::WaitBulk {
            groups: d.integer(0)? as usize,
        }));
    }
    if d.take("prefetch") {
        d.ignore(|_| true);
        return Ok(Some(Code::Nothing));
    }
    if d.take("L2::cache_hint") {
        d.operands.pop();
    }
    if d.take("tensor") {
        return bulk_tensor::decode(d);
    }
    let loads = is_load(d)?;
    let barrier = if loads { Some(d.address(3)?.0) } else { None };
    d.expect_operands(if loads { 4 } else { 3 })?;
    Ok(Some(Code::CopyBulk(Box::new(BulkCopy {
        to: d.address(0)?.0,
        from: d.address(1)?.0,
        bytes: d.from(2, Type::U32)?,
        barrier,
    }))))
}

/// Into shared memory, with an mbarrier; or out of it, in a group.
pub fn is_load(d: &mut Decoding) -> Result<bool, Refusal> {
    let (barrier, group) = (d.take("mbarrier::complete_tx::bytes"), d.take("bulk_group"));
    let shared = d.take("shared::cta") || d.take("shared::cluster");
    if barrier == group || !shared || !d.take("global") {
        return Err("only copies between global and shared memory are executed".into());
    }
    Ok(barrier)
}

/// The address in shared memory of what may be a generic one.
fn shared_address(address: u64, lane: usize) -> Result<u64, Trouble> {
    let space = match window(address) {
        SHARED_WINDOW => Space::Generic,
        _ => Space::Shared,
    };
    in_shared(space, address, lane)
}

fn aligned(address: u64, to: u64, lane: usize) -> Result<(), Trouble> {
    if address.is_multiple_of(to) {
        Ok(())
    } else {
        Err(Trouble::at(lane, address, What::Misaligned { bytes: to }))
    }
}

/// What `lane` copies into shared memory, done by its mbarrier.
pub fn load(
    machine: &mut Machine,
    who: Who,
    lane: usize,
    landing: Landing,
    barrier: u64,
) -> Result<(), Trouble> {
    let barrier = shared_address(barrier, lane)?;
    let signal = machine.check_signal(barrier, who);
    signal.map_err(|what| Trouble::at(lane, barrier, what))?;
    let started = machine
        .shared
        .start_bulk_copy(landing.to, landing.bytes.len(), who);
    started.map_err(|what| Trouble::at(lane, landing.to, what))?;
    let landed = machine.land(barrier, landing, who);
    landed.map_err(|what| Trouble::at(lane, barrier, what))
}

/// Where `lane` copies to, or from, in shared memory: aligned to so many bytes.
pub fn shared_side(
    warp: &Warp,
    view: &View,
    address: Address,
    lane: usize,
    align: u64,
) -> Result<u64, Trouble> {
    let at = warp.value(view, address.base).0[lane].wrapping_add(address.offset);
    let at = shared_address(at, lane)?;
    aligned(at, align, lane)?;
    Ok(at)
}

/// Bytes of shared memory as the async proxy reads them; the source is held until the group is waited for.
pub fn take_source(
    machine: &mut Machine,
    warp: &mut Warp,
    who: Who,
    lane: usize,
    from: u64,
    bytes: u64,
) -> Result<Vec<u8>, Trouble> {
    let mut taken = Vec::with_capacity(bytes as usize);
    for at in (from..from + bytes).step_by(4) {
        let word = machine.shared.load_by_proxy(at, who);
        let word = word.map_err(|what| Trouble::at(lane, at, what))?;
        taken.extend(word.to_le_bytes());
    }
    let words: Vec<u32> = (from / 4..(from + bytes) / 4).map(|w| w as u32).collect();
    machine.shared.hold(&words, "`cp.async.bulk`", who.line);
    let group = warp.bulk.committed[lane];
    warp.bulk.storing.push(Storing {
        lane,
        group,
        words,
        line: who.line,
    });
    Ok(taken)
}

/// Bytes of global memory, in the largest aligned pieces.
pub fn read_global(
    machine: &mut Machine,
    address: u64,
    to: &mut [u8],
    lane: usize,
) -> Result<(), Trouble> {
    for (at, size) in pieces(address, to.len()) {
        let from = address + at as u64;
        let memory = &machine.running.memory;
        let value = memory.load(&mut machine.actor, from, size, false);
        let value = value.map_err(|what| Trouble::at(lane, from, what))?;
        to[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
    }
    Ok(())
}

pub fn write_global(
    machine: &mut Machine,
    address: u64,
    from: &[u8],
    lane: usize,
) -> Result<(), Trouble> {
    for (at, size) in pieces(address, from.len()) {
        let mut value = [0; 8];
        value[..size].copy_from_slice(&from[at..at + size]);
        let (to, value) = (address + at as u64, u64::from_le_bytes(value));
        let memory = &machine.running.memory;
        let stored = memory.store(&machine.actor, to, size, value, false);
        stored.map_err(|what| Trouble::at(lane, to, what))?;
    }
    Ok(())
}

fn pieces(address: u64, bytes: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let fits =
            |&size: &usize| size <= bytes - at && (address + at as u64).is_multiple_of(size as u64);
        let size = [8, 4, 2, 1].into_iter().find(fits)?;
        at += size;
        Some((at - size, size))
    })
}

impl BulkCopy {
    pub fn run(
        &self,
        machine: &mut Machine,
        warp: &mut Warp,
        view: &View,
        mask: u32,
    ) -> Result<(), Trouble> {
        let sizes = *warp.value(view, self.bytes);
        for lane in lanes(mask) {
            let bytes = u64::from(sizes.0[lane] as u32);
            if !bytes.is_multiple_of(16) {
                let what = What::Undefined(format!(
                    "a bulk copy of {bytes} bytes, which is no multiple of 16"
                ));
                return Err(Trouble::of(lane, what));
            }
            let who = Who {
                thread: warp.first_thread + lane as u32,
                line: view.line,
                strong: false,
            };
            let global = |warp: &Warp, address: Address| {
                let at = warp.value(view, address.base).0[lane].wrapping_add(address.offset);
                aligned(at, 16, lane).map(|()| at)
            };
            match self.barrier {
                Some(barrier) => {
                    let to = shared_side(warp, view, self.to, lane, 16)?;
                    let from = global(warp, self.from)?;
                    let mut landing = Landing {
                        to,
                        bytes: vec![0; bytes as usize],
                        thread: who.thread,
                        line: view.line,
                    };
                    read_global(machine, from, &mut landing.bytes, lane)?;
                    let at = warp.value(view, barrier.base).0[lane].wrapping_add(barrier.offset);
                    load(machine, who, lane, landing, at)?;
                }
                None => {
                    let from = shared_side(warp, view, self.from, lane, 16)?;
                    let to = global(warp, self.to)?;
                    let taken = take_source(machine, warp, who, lane, from, bytes)?;
                    write_global(machine, to, &taken, lane)?;
                }
            }
        }
        Ok(())
    }
}

impl BulkGroups {
    pub fn commit(&mut self, mask: u32) {
        lanes(mask).for_each(|lane| self.committed[lane] += 1);
    }

    /// These lanes' groups are done with, but for their last `groups`.
    pub fn wait(&mut self, mask: u32, groups: usize, machine: &mut Machine, first_thread: u32) {
        let committed = self.committed;
        self.storing.retain(|storing| {
            let waited = mask >> storing.lane & 1 == 1
                && storing.group as usize + groups < committed[storing.lane] as usize;
            if waited {
                let who = Who {
                    thread: first_thread + storing.lane as u32,
                    line: storing.line,
                    strong: false,
                };
                machine.shared.let_go(&storing.words, who);
            }
            !waited
        });
    }

    /// The lane and line of a store that is not done although its thread ends.
    pub fn left_over(&self) -> Option<(usize, u32)> {
        self.storing.first().map(|s| (s.lane, s.line))
    }
}
