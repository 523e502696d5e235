//! One instruction.

use super::code::{Code, Reg, Source};
use super::integer::Carry;
use super::lanes::{Lanes, WARP};
use super::proxy::pass_fence;
use super::warp::{Machine, Trouble, View, Warp};
use super::warp_ops::members;
use crate::fault::What;

impl Warp {
    pub fn execute(
        &mut self,
        code: &Code,
        machine: &mut Machine,
        view: &View,
        mask: u32,
    ) -> Result<(), Trouble> {
        match code {
            Code::SetPredicate(set) => {
                let [a, b] = set.from.map(|source| self.value(view, source));
                let c = set.combine.map_or(0, |(_, by)| self.predicate(view, by));
                let results = set.run(a, b, c);
                for (to, result) in set.to.iter().zip(results) {
                    if let Some(to) = to {
                        self.set_predicate(view, *to, mask, result);
                    }
                }
            }
            Code::Predicate { to, run, from } => {
                let [a, b] = from.map(|source| self.predicate(view, source));
                self.set_predicate(view, *to, mask, run(a, b));
            }
            Code::Select { to, from, by } => {
                let by = self.predicate(view, *by);
                let [a, b] = from.map(|source| self.value(view, source));
                let keep = u64::MAX >> (64 - to.bits);
                let mut out = Lanes::ZERO;
                for (i, x) in out.0.iter_mut().enumerate() {
                    *x = if by >> i & 1 == 1 { a.0[i] } else { b.0[i] } & keep;
                }
                self.set(view, *to, mask, &out);
            }
            Code::Load(load) => load.run(machine, self, view, mask)?,
            Code::Store(store) => store.run(machine, self, view, mask)?,
            Code::Atomic(atomic) => atomic.run(machine, self, view, mask)?,
            Code::Shuffle(shuffle) => shuffle.run(self, view, mask)?,
            Code::Vote(vote) => vote.run(self, view, mask)?,
            Code::Match(matched) => matched.run(self, view, mask)?,
            Code::Reduce(reduce) => reduce.run(self, view, mask)?,
            Code::CopyAsync(copy) => copy.run(machine, self, view, mask)?,
            Code::LoadMatrix(load) => load.run(machine, self, view, mask)?,
            Code::Mma(mma) => mma.run(self, view, mask)?,
            Code::Elect(elect) => elect.run(self, view, mask)?,
            Code::CopyBulk(copy) => copy.run(machine, self, view, mask)?,
            Code::CopyTensor(copy) => copy.run(machine, self, view, mask)?,
            Code::Wgmma(wgmma) => wgmma.run(machine, self, view, mask)?,
            Code::WarpBarrier { mask: members_of } => {
                let named = *self.value(view, *members_of);
                members(self, &named, mask, "bar.warp.sync")?;
                machine.shared.sync_lanes(self.first_thread as usize / WARP);
            }
            Code::Trap => return Err(Trouble::of(mask.trailing_zeros() as usize, What::Trap)),
            other => self.execute_simple(other, machine, view, mask),
        }
        Ok(())
    }

    /// Executes an instruction that cannot fail and is rare or cheap.
    fn execute_simple(&mut self, code: &Code, machine: &mut Machine, view: &View, mask: u32) {
        match code {
            Code::Pack { to, from, bits } => self.pack(view, mask, *to, from, *bits),
            Code::Unpack { to, from, bits } => self.unpack(view, mask, to, *from, *bits),
            Code::Carry(carry) => self.carry(view, mask, carry),
            Code::Clock { to } => {
                let keep = u64::MAX >> (64 - to.bits);
                self.set(view, *to, mask, &Lanes::all(self.executed & keep));
            }
            Code::ActiveMask { to } => self.set(view, *to, mask, &Lanes::all(mask.into())),
            Code::Fence { card } => {
                if *card {
                    machine.running.memory.fence(&mut machine.actor);
                }
            }
            Code::BranchTable {
                index,
                to,
                reconverge,
            } => {
                let index = *self.value(view, *index);
                self.branch_table(&index, to, *reconverge, mask);
            }
            Code::Return => self.end_lanes(mask, false),
            Code::Exit => self.end_lanes(mask, true),
            Code::CommitCopies => self.copies.commit(mask),
            Code::WaitCopies { groups, commit } => {
                if *commit {
                    self.copies.commit(mask);
                }
                self.copies.wait(mask, *groups, machine, self.first_thread);
            }
            Code::ProxyFence { data } => pass_fence(machine, self, mask, *data),
            Code::CommitBulk => self.bulk.commit(mask),
            Code::WaitBulk { groups } => self.bulk.wait(mask, *groups, machine, self.first_thread),
            Code::FenceProducts => self.products.fence(view.line),
            Code::CommitProducts => self.products.commit(view.line),
            Code::WaitProducts { groups } => {
                self.products
                    .wait(*groups, view.line, machine, self.first_thread);
            }
            // Done by `step` and `execute`; named, so that a new instruction is not forgotten here.
            Code::Nothing
            | Code::Lanes { .. }
            | Code::SetPredicate(_)
            | Code::Predicate { .. }
            | Code::Select { .. }
            | Code::Load(_)
            | Code::Store(_)
            | Code::Atomic(_)
            | Code::Branch { .. }
            | Code::Call(_)
            | Code::Trap
            | Code::Barrier(_)
            | Code::WarpBarrier { .. }
            | Code::Shuffle(_)
            | Code::Vote(_)
            | Code::Match(_)
            | Code::Reduce(_)
            | Code::CopyAsync(_)
            | Code::LoadMatrix(_)
            | Code::Mma(_)
            | Code::MBarrier(_)
            | Code::SetRegisters { .. }
            | Code::Elect(_)
            | Code::CopyBulk(_)
            | Code::CopyTensor(_)
            | Code::Wgmma(_) => {}
        }
    }

    /// Writes the values of `from`, `bits` each, side by side into `to`, the first lowest.
    fn pack(&mut self, view: &View, mask: u32, to: Reg, from: &[Source], bits: u32) {
        let mut out = Lanes::ZERO;
        for (i, source) in from.iter().enumerate() {
            let values = self.value(view, *source);
            for (x, part) in out.0.iter_mut().zip(&values.0) {
                *x |= (part & (u64::MAX >> (64 - bits))) << (i as u32 * bits);
            }
        }
        self.set(view, to, mask, &out);
    }

    /// Writes the parts of `from`, `bits` each, into the registers of `to` that there are, the lowest first.
    fn unpack(&mut self, view: &View, mask: u32, to: &[Option<Reg>], from: Source, bits: u32) {
        let values = *self.value(view, from);
        for (i, to) in to.iter().enumerate() {
            let Some(to) = to else { continue };
            let part = values
                .0
                .map(|x| x >> (i as u32 * bits) & (u64::MAX >> (64 - bits)));
            self.set(view, *to, mask, &Lanes(part));
        }
    }

    /// Adds or subtracts with the lanes' carries, and keeps the new ones.
    fn carry(&mut self, view: &View, mask: u32, carry: &Carry) {
        let (out, to, after) = carry.run(
            carry.from.map(|source| self.value(view, source)),
            self.carries,
        );
        self.set(view, to, mask, &out);
        self.carries = (self.carries & !mask) | (after & mask);
    }
}
