//! `cp.async`: copies from global to shared memory that are there only once they have been waited for.

use super::code::{Address, Code, PredicateSource, Source};
use super::decode::{Decoded, Decoding};
use super::memory_ops::{is_hint, lanes};
use super::order::Who;
use super::warp::{Machine, Trouble, View, Warp};
use crate::fault::What;
use crate::memory::{SHARED_WINDOW, window};
use crate::ptx::names::Operand;
use crate::ptx::types::Type;

pub struct CopyAsync {
    to: Address,
    from: Address,
    bytes: usize,
    /// Bytes to read; the rest is zero.
    read: Option<Source>,
    /// Reads nothing where true.
    ignore: Option<PredicateSource>,
}

/// A copy under way.
struct Pending {
    lane: usize,
    /// The group of the lane that it will be committed in.
    group: u32,
    to: u64,
    bytes: [u8; 16],
    count: usize,
    line: u32,
}

/// Copies of a warp under way, oldest first.
#[derive(Default)]
pub struct Copies {
    pending: Vec<Pending>,
    /// Groups that each lane has committed.
    committed: [u32; 32],
}

pub fn decode(d: &mut Decoding) -> Decoded {
    if d.name != "cp" || d.has("bulk") || d.has("mbarrier") {
        return Ok(None);
    }
    if !d.take("async") {
        return Ok(None);
    }
    if d.take("commit_group") {
        return Ok(Some(Code::CommitCopies));
    }
    if d.take("wait_group") {
        return Ok(Some(Code::WaitCopies {
            groups: d.integer(0)? as usize,
            commit: false,
        }));
    }
    if d.take("wait_all") {
        return Ok(Some(Code::WaitCopies {
            groups: 0,
            commit: true,
        }));
    }
    let hinted = d.has("L2::cache_hint");
    d.ignore(|m| is_hint(m) || matches!(m, "shared" | "shared::cta" | "global"));
    if hinted {
        d.operands.pop();
    }
    let bytes = d.integer(2)? as usize;
    if !matches!(bytes, 4 | 8 | 16) {
        return Err(format!("copies of {bytes} bytes are not known"));
    }
    let (mut read, mut ignore) = (None, None);
    if d.operands.len() > 3 {
        match d.operand(3)? {
            Operand::Predicate(_) => ignore = Some(d.predicate(3)?),
            _ => read = Some(d.from(3, Type::U32)?),
        }
    }
    let copy = CopyAsync {
        to: d.address(0)?.0,
        from: d.address(1)?.0,
        bytes,
        read,
        ignore,
    };
    Ok(Some(Code::CopyAsync(Box::new(copy))))
}

impl CopyAsync {
    pub fn run(
        &self,
        machine: &mut Machine,
        warp: &mut Warp,
        view: &View,
        mask: u32,
    ) -> Result<(), Trouble> {
        let to = *warp.value(view, self.to.base);
        let from = *warp.value(view, self.from.base);
        let read = self.read.map(|source| *warp.value(view, source));
        let ignored = self.ignore.map_or(0, |by| warp.predicate(view, by));
        for lane in lanes(mask) {
            let to = to.0[lane].wrapping_add(self.to.offset);
            let to = if window(to) == SHARED_WINDOW {
                to - SHARED_WINDOW
            } else {
                to
            };
            let from = from.0[lane].wrapping_add(self.from.offset);
            let wanted = read
                .map_or(self.bytes, |read| read.0[lane] as u32 as usize)
                .min(self.bytes);
            let wanted = if ignored >> lane & 1 == 1 { 0 } else { wanted };
            if wanted > 0 && !from.is_multiple_of(self.bytes as u64) {
                return Err(Trouble::at(
                    lane,
                    from,
                    What::Misaligned {
                        bytes: self.bytes as u64,
                    },
                ));
            }
            let mut bytes = [0; 16];
            let mut at = 0;
            while at < wanted {
                let size = if wanted - at >= 4 { 4 } else { 1 };
                let address = from.wrapping_add(at as u64);
                let value = machine
                    .running
                    .memory
                    .load(&mut machine.actor, address, size, false);
                let value = value.map_err(|what| Trouble::at(lane, address, what))?;
                bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
                at += size;
            }
            let who = Who {
                thread: warp.first_thread + lane as u32,
                line: view.line,
                strong: false,
            };
            machine
                .shared
                .start_copy(to, self.bytes, who)
                .map_err(|what| Trouble::at(lane, to, what))?;
            let group = warp.copies.committed[lane];
            warp.copies.pending.push(Pending {
                lane,
                group,
                to,
                bytes,
                count: self.bytes,
                line: view.line,
            });
        }
        Ok(())
    }
}

impl Copies {
    pub fn commit(&mut self, mask: u32) {
        lanes(mask).for_each(|lane| self.committed[lane] += 1);
    }

    /// What these lanes committed is there, but for their last `groups` groups.
    pub fn wait(&mut self, mask: u32, groups: usize, machine: &mut Machine, first_thread: u32) {
        let committed = self.committed;
        self.pending.retain(|copy| {
            let waited = mask >> copy.lane & 1 == 1
                && copy.group as usize + groups < committed[copy.lane] as usize;
            if waited {
                let who = Who {
                    thread: first_thread + copy.lane as u32,
                    line: copy.line,
                    strong: false,
                };
                machine
                    .shared
                    .end_copy(copy.to, &copy.bytes[..copy.count], who);
            }
            !waited
        });
    }
}
