//! What kernels do to global memory: checked accesses, and races, between blocks of one launch and with other operations.
//!
//! Per four bytes we remember who wrote last and who read last. Two operations that touch the same bytes, one of them
//! writing, race unless one happens before the other (`operations.rs`), or both accesses are strong.
//! Two blocks that touch the same bytes in one launch, one of them writing, race unless both are strong accesses (atomic, volatile, relaxed and stronger), or unless the earlier
//! one passed a fence since and the later one has acquired something (the pattern of "the last block sums up").
//! The memory is short, so that a race can be missed, never invented.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError, RwLockReadGuard};

use super::Spans;
use super::allocation::Allocation;
use super::operations::{Doing, Stamp};
use super::page::{PAGE_BYTES, Page};
use crate::fault::What;

/// The last write and the last read of a word.
#[derive(Default)]
pub(super) struct Touched {
    write: AtomicU64,
    read: AtomicU64,
}

/// What is done to some bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

impl Touched {
    /// Memory that this operation made: as if written by it.
    pub fn born(Stamp(stamp): Stamp) -> Self {
        Self {
            write: AtomicU64::new(u64::from(stamp) << 40 | NO_BLOCK | 15 << 4),
            read: AtomicU64::new(0),
        }
    }

    pub fn set(&self, access: Access, mark: Mark) {
        match access {
            Access::Read => self.read.store(mark.0, Relaxed),
            Access::Write => self.write.store(mark.0, Relaxed),
        }
    }

    /// What other operations did to these bytes happens before this one's access.
    #[inline]
    pub fn check(&self, doing: &Doing, access: Access, bytes: u64) -> Result<(), Box<What>> {
        let write = Mark(self.write.load(Relaxed));
        if !doing.follows(write.epoch()) && write.bytes() & bytes != 0 {
            return Err(write.unordered(doing, access, Access::Write));
        }
        if access == Access::Write {
            let read = Mark(self.read.load(Relaxed));
            if !doing.follows(read.epoch()) && read.bytes() & bytes != 0 {
                return Err(read.unordered(doing, access, Access::Read));
            }
        }
        Ok(())
    }
}

/// operation 24 | block 24 | fence 8 | bytes 4 | flags 4, in 64 bits.
#[derive(Clone, Copy)]
pub(super) struct Mark(u64);

/// The block of what no kernel did.
const NO_BLOCK: u64 = 0xff_ffff << 16;

/// Of a write: it was strong. Of a read: several blocks read.
const FLAG: u64 = 1;

impl Mark {
    /// Of an operation that is no kernel.
    pub fn of_operation(doing: &Doing, bytes: u64) -> Self {
        Self(u64::from(doing.stamp) << 40 | NO_BLOCK | bytes << 4)
    }

    /// `doing` does this to what the mark's operation did that to.
    #[cold]
    fn unordered(self, doing: &Doing, this: Access, that: Access) -> Box<What> {
        let word = |access| match access {
            Access::Read => "reads",
            Access::Write => "writes",
        };
        doing.unordered(word(this), self.epoch(), word(that))
    }

    fn new(epoch: u32, actor: &Actor, bytes: u64, flag: bool) -> Self {
        let block = u64::from(actor.block & 0xff_ffff);
        Self(
            u64::from(epoch) << 40
                | block << 16
                | u64::from(actor.fences) << 8
                | bytes << 4
                | u64::from(flag),
        )
    }
    fn epoch(self) -> u32 {
        (self.0 >> 40) as u32
    }
    fn block(self) -> u32 {
        (self.0 >> 16) as u32 & 0xff_ffff
    }
    fn fence(self) -> u8 {
        (self.0 >> 8) as u8
    }
    fn bytes(self) -> u64 {
        self.0 >> 4 & 15
    }
    fn flag(self) -> bool {
        self.0 & FLAG != 0
    }
    /// This read and a later one of the same launch: of several blocks, the bytes that each of them read.
    fn joined_by(self, new: Self) -> Self {
        if self.flag() {
            self
        } else if self.block() == new.block() {
            Self(new.0 | self.bytes() << 4)
        } else if self.bytes() & new.bytes() == 0 {
            new
        } else {
            Self(new.0 & (!0xf0 | self.bytes() << 4) | FLAG)
        }
    }
}

/// A block, as global memory sees it.
#[derive(Default)]
pub(crate) struct Actor {
    /// Its number in the grid.
    pub block: u32,
    /// Fences it has passed, wrapping.
    pub fences: u8,
    /// It has read something strongly, so that what others released may be visible.
    pub acquired: bool,
}

/// Global memory while a kernel runs.
pub(crate) struct Launch<'a> {
    spans: RwLockReadGuard<'a, Spans>,
    doing: Doing<'a>,
    /// Fences passed, by block.
    fences: Vec<AtomicU8>,
    /// Atomics of 8 bytes take turns.
    turns: Vec<Mutex<()>>,
}

impl<'a> Launch<'a> {
    pub(super) fn new(spans: RwLockReadGuard<'a, Spans>, doing: Doing<'a>, blocks: u64) -> Self {
        let fences = (0..blocks.min(1 << 24)).map(|_| AtomicU8::new(0)).collect();
        Self {
            spans,
            doing,
            fences,
            turns: (0..64).map(|_| Mutex::new(())).collect(),
        }
    }

    /// `size` bytes (1, 2, 4 or 8).
    #[inline]
    pub fn load(
        &self,
        actor: &mut Actor,
        address: u64,
        size: usize,
        strong: bool,
    ) -> Result<u64, Box<What>> {
        let (allocation, offset) = self.find(address, size)?;
        let Some(page) = allocation.written_page(offset) else {
            return Err(Box::new(What::NeverWritten { space: "global" }));
        };
        let at = (offset % PAGE_BYTES) as usize;
        if !page.is_written(at, size) {
            return Err(Box::new(What::NeverWritten { space: "global" }));
        }
        actor.acquired |= strong;
        page.check_whole(&self.doing, Access::Read)?;
        for part in (0..size).step_by(4) {
            self.note_read(page.touched(at + part), actor, bytes_of(at, size), strong)?;
        }
        Ok(page.load(at, size))
    }

    #[inline]
    pub fn store(
        &self,
        actor: &Actor,
        address: u64,
        size: usize,
        value: u64,
        strong: bool,
    ) -> Result<(), Box<What>> {
        let (allocation, offset) = self.find(address, size)?;
        let page = allocation.page(offset);
        let at = (offset % PAGE_BYTES) as usize;
        self.note_writes(page, at, actor, size, strong)?;
        page.store(at, size, value);
        Ok(())
    }

    /// Reads, changes and writes back as one; what it was.
    pub fn update(
        &self,
        actor: &mut Actor,
        address: u64,
        size: usize,
        mut new: impl FnMut(u64) -> u64,
    ) -> Result<u64, Box<What>> {
        let (allocation, offset) = self.find(address, size)?;
        let page = allocation.page(offset);
        let at = (offset % PAGE_BYTES) as usize;
        if !page.is_written(at, size) {
            return Err(Box::new(What::NeverWritten { space: "global" }));
        }
        actor.acquired = true;
        self.note_writes(page, at, actor, size, true)?;
        if size < 8 {
            return Ok(page.update(at, size, new));
        }
        let turn = &self.turns[(address >> 3) as usize % self.turns.len()];
        let _held = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let old = page.load(at, size);
        page.store(at, size, new(old));
        Ok(old)
    }

    #[inline]
    fn note_writes(
        &self,
        page: &Page,
        at: usize,
        actor: &Actor,
        size: usize,
        strong: bool,
    ) -> Result<(), Box<What>> {
        page.check_whole(&self.doing, Access::Write)?;
        (0..size).step_by(4).try_for_each(|part| {
            self.note_write(page.touched(at + part), actor, bytes_of(at, size), strong)
        })
    }

    /// The text at `address`, as far as it goes.
    pub fn text(&self, address: u64) -> String {
        let byte = |i: u64| {
            let (allocation, offset) = self.spans.find(address + i, 1).ok()?;
            allocation
                .written_page(offset)?
                .byte((offset % PAGE_BYTES) as usize)
        };
        let bytes: Vec<u8> = (0..1024)
            .map_while(byte)
            .take_while(|&byte| byte != 0)
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A fence at the scope of the card.
    pub fn fence(&self, actor: &mut Actor) {
        actor.fences = actor.fences.wrapping_add(1);
        if let Some(fences) = self.fences.get(actor.block as usize) {
            fences.store(actor.fences, Relaxed);
        }
    }

    #[inline]
    fn find(&self, address: u64, size: usize) -> Result<(&Allocation, u64), Box<What>> {
        let found = self.spans.find(address, size as u64)?;
        if !address.is_multiple_of(size as u64) {
            return Err(Box::new(What::Misaligned { bytes: size as u64 }));
        }
        found.0.used_by(&self.doing);
        Ok(found)
    }

    /// What `mark` did happens before what `actor` does now.
    fn ordered(&self, mark: Mark, actor: &Actor) -> bool {
        let fences = self
            .fences
            .get(mark.block() as usize)
            .map_or(0, |f| f.load(Relaxed));
        actor.acquired && fences != mark.fence()
    }

    /// `mark` is not of an operation that has no order with this one, unless both accesses are strong.
    #[inline]
    fn check_others(
        &self,
        mark: Mark,
        bytes: u64,
        strong: bool,
        [this, that]: [Access; 2],
    ) -> Result<(), Box<What>> {
        if self.doing.follows(mark.epoch()) || strong || mark.bytes() & bytes == 0 {
            Ok(())
        } else {
            Err(mark.unordered(&self.doing, this, that))
        }
    }

    /// `mark` was made in this launch by another block on some of these bytes.
    #[inline]
    fn meets(&self, mark: Mark, actor: &Actor, bytes: u64) -> bool {
        mark.epoch() == self.doing.stamp
            && mark.block() != actor.block & 0xff_ffff
            && mark.bytes() & bytes != 0
    }

    #[inline]
    fn note_read(
        &self,
        touched: &Touched,
        actor: &Actor,
        bytes: u64,
        strong: bool,
    ) -> Result<(), Box<What>> {
        let write = Mark(touched.write.load(Relaxed));
        self.check_others(
            write,
            bytes,
            strong && write.flag(),
            [Access::Read, Access::Write],
        )?;
        if self.meets(write, actor, bytes)
            && !(strong && write.flag())
            && !self.ordered(write, actor)
        {
            return Err(Box::new(What::GlobalRace {
                this: "read",
                other: "written",
                block: write.block(),
            }));
        }
        if strong {
            return Ok(());
        }
        let old = Mark(touched.read.load(Relaxed));
        let new = Mark::new(self.doing.stamp, actor, bytes, false);
        let new = if old.epoch() != self.doing.stamp {
            new
        } else {
            old.joined_by(new)
        };
        if new.0 != old.0 {
            touched.read.store(new.0, Relaxed);
        }
        Ok(())
    }

    #[inline]
    fn note_write(
        &self,
        touched: &Touched,
        actor: &Actor,
        bytes: u64,
        strong: bool,
    ) -> Result<(), Box<What>> {
        let write = Mark(touched.write.load(Relaxed));
        self.check_others(write, bytes, strong && write.flag(), [Access::Write; 2])?;
        if self.meets(write, actor, bytes)
            && !(strong && write.flag())
            && !self.ordered(write, actor)
        {
            return Err(Box::new(What::GlobalRace {
                this: "write",
                other: "written",
                block: write.block(),
            }));
        }
        let read = Mark(touched.read.load(Relaxed));
        self.check_others(read, bytes, false, [Access::Write, Access::Read])?;
        if read.epoch() == self.doing.stamp && read.bytes() & bytes != 0 {
            let raced = if read.flag() {
                !actor.acquired
            } else {
                self.meets(read, actor, bytes) && !self.ordered(read, actor)
            };
            if raced {
                return Err(Box::new(What::GlobalRace {
                    this: "write",
                    other: "read",
                    block: read.block(),
                }));
            }
        }
        let mut new = Mark::new(self.doing.stamp, actor, bytes, strong);
        if write.0 & !0xff == new.0 & !0xff {
            new.0 |= write.bytes() << 4;
        }
        if new.0 != write.0 {
            touched.write.store(new.0, Relaxed);
        }
        Ok(())
    }
}

/// Which bytes of their word (or words) an access touches.
#[inline]
fn bytes_of(at: usize, size: usize) -> u64 {
    (((1u64 << size.min(4)) - 1) << (at % 4)) & 15
}
