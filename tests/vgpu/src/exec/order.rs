//! Who touched shared memory, and what orders an access after another.
//!
//! Each warp has two clocks: one that barriers advance, one that `bar.warp.sync` advances too. An access is ordered before another
//! when the second warp has learned of the first one's clock at a barrier, or, within a warp, when its lanes synchronised between.

use crate::fault::What;

/// Who makes an access.
#[derive(Clone, Copy)]
pub struct Who {
    /// In the block.
    pub thread: u32,
    /// Of the PTX text.
    pub line: u32,
    /// Atomic or volatile: such accesses do not race with each other.
    pub strong: bool,
}

/// An access: by whom and when. One of epoch zero has never been.
#[derive(Clone, Copy, Default)]
pub struct Touch {
    /// Barriers of the whole block before it.
    epoch: u32,
    clock: u32,
    lane_clock: u32,
    pub line: u32,
    thread: u16,
    strong: bool,
}

impl Touch {
    fn warp(self) -> usize {
        usize::from(self.thread) / 32
    }

    /// The same access by the lane so far behind.
    pub fn by_lane(self, lane: usize) -> Self {
        Self {
            thread: self.thread + lane as u16,
            ..self
        }
    }
}

/// The clocks of a block's warps.
#[derive(Default)]
pub struct Clocks {
    warps: usize,
    /// Barriers that all warps have passed: whatever came before one is ordered.
    epoch: u32,
    clocks: Vec<u32>,
    lane_clocks: Vec<u32>,
    /// `known[a * warps + b]`: the clock of `b` that `a` has seen.
    known: Vec<u32>,
}

impl Clocks {
    /// Those of a fresh block.
    pub fn reset(&mut self, warps: usize) {
        self.warps = warps;
        self.epoch = 1;
        for (list, len, value) in [
            (&mut self.clocks, warps, 1),
            (&mut self.lane_clocks, warps, 1),
            (&mut self.known, warps * warps, 0),
        ] {
            list.clear();
            list.resize(len, value);
        }
    }

    /// The lanes of a warp have synchronised.
    pub fn sync_lanes(&mut self, warp: usize) {
        self.lane_clocks[warp] += 1;
    }

    /// A barrier of these warps is complete.
    pub fn sync_warps(&mut self, warps: impl Iterator<Item = usize> + Clone) {
        let n = self.warps;
        self.epoch += u32::from(warps.clone().count() == n);
        let mut all: Vec<u32> = vec![0; n];
        for warp in warps.clone() {
            for (known, all) in self.known[warp * n..][..n].iter().zip(&mut all) {
                *all = (*all).max(*known);
            }
        }
        warps.clone().for_each(|warp| all[warp] = self.clocks[warp]);
        for warp in warps {
            self.known[warp * n..][..n].copy_from_slice(&all);
            self.clocks[warp] += 1;
            self.lane_clocks[warp] += 1;
        }
    }

    /// An access by `who` now.
    #[inline(always)]
    pub fn touch(&self, who: Who) -> Touch {
        let warp = who.thread as usize / 32;
        Touch {
            epoch: self.epoch,
            clock: self.clocks[warp],
            lane_clock: self.lane_clocks[warp],
            line: who.line,
            thread: who.thread as u16,
            strong: who.strong,
        }
    }

    /// `warp` has not learned, at a barrier, of what `other` did at `clock`.
    fn unseen(&self, warp: usize, other: usize, clock: u32) -> bool {
        clock > self.known[warp * self.warps + other]
    }

    /// `touch` was made by another thread, and nothing orders `now` after it.
    #[inline]
    fn races(&self, touch: Touch, now: Touch) -> bool {
        if touch.epoch != now.epoch || touch.thread == now.thread || (touch.strong && now.strong) {
            return false;
        }
        match touch.warp() == now.warp() {
            true => touch.lane_clock == now.lane_clock,
            false => self.unseen(now.warp(), touch.warp(), touch.clock),
        }
    }
}

/// What happened to a piece of memory: its last write, and the reads since.
#[derive(Clone, Copy, Default)]
pub struct History {
    pub write: Touch,
    read: Touch,
    /// More than one lane of the warp that read last has read.
    many: bool,
    /// Warps that read.
    readers: u32,
}

impl History {
    #[inline(always)]
    pub fn note_read(&mut self, now: Touch, clocks: &Clocks) -> Result<(), Box<What>> {
        if self.write.epoch == now.epoch && clocks.races(self.write, now) {
            return Err(race("read", "written", self.write));
        }
        let (mine, old) = (1 << now.warp(), self.read);
        self.read = now;
        if self.readers != 0 && old.epoch == now.epoch && old.clock == now.clock {
            let same_warp = self.readers & mine != 0 && old.lane_clock == now.lane_clock;
            self.many = same_warp && (self.many || old.thread != now.thread);
            self.read.strong &= old.strong;
            self.readers |= mine;
        } else {
            self.readers = mine;
            self.many = false;
        }
        Ok(())
    }

    /// A write of the value that is there already (not `changes`) is no race.
    #[inline]
    pub fn note_write(
        &mut self,
        now: Touch,
        changes: bool,
        clocks: &Clocks,
    ) -> Result<(), Box<What>> {
        if changes {
            if clocks.races(self.write, now) {
                return Err(race("write", "written", self.write));
            }
            if self.readers != 0 && self.read.epoch == now.epoch {
                self.check_readers(now, clocks)?;
            }
        }
        self.write = now;
        Ok(())
    }

    /// Reads by other warps, and by other lanes of this one.
    fn check_readers(&self, now: Touch, clocks: &Clocks) -> Result<(), Box<What>> {
        let (read, warp) = (self.read, now.warp());
        if read.strong && now.strong {
            return Ok(());
        }
        let mut others = (0..clocks.warps).filter(|&r| r != warp && self.readers >> r & 1 == 1);
        if let Some(other) = others.find(|&r| clocks.unseen(warp, r, read.clock)) {
            let thread = if read.warp() == other {
                read.thread
            } else {
                other as u16 * 32
            };
            return Err(race("write", "read", Touch { thread, ..read }));
        }
        let lanes = read.warp() == warp && read.lane_clock == now.lane_clock;
        match lanes && (self.many || read.thread != now.thread) {
            true => Err(race("write", "read", read)),
            false => Ok(()),
        }
    }
}

#[cold]
fn race(this: &'static str, other: &'static str, touch: Touch) -> Box<What> {
    Box::new(What::SharedRace {
        this,
        other,
        thread: touch.thread.into(),
        line: touch.line,
    })
}
