//! Who touched shared memory, and what orders an access after another.
//!
//! Each warp has two clocks: one that barriers advance, one that `bar.warp.sync` advances too. An access is ordered before another
//! when the second warp has learned of the first one's clock at a barrier, or, within a warp, when its lanes synchronised between.
//!
//! What bulk copies write is the work of an agent of its own for each mbarrier, whose clock is the phase: nobody knows
//! of it who has not waited for that phase. What threads write is seen by the async proxy only after the thread that
//! wrote has passed a proxy fence, and the reader has learned of the fence.

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

/// The epoch of agents: no barrier of the block orders what they do.
const AGENT: u32 = u32::MAX;

impl Touch {
    /// A write by the agent of an mbarrier, in a phase counted from one.
    pub fn by_agent(agent: usize, phase: u32, line: u32) -> Self {
        Self {
            epoch: AGENT,
            clock: phase,
            lane_clock: 0,
            line,
            thread: (agent * 32) as u16,
            strong: false,
        }
    }

    pub fn thread(self) -> u32 {
        self.thread.into()
    }

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
    /// Warps and agents.
    columns: usize,
    /// `known[a * columns + b]`: the clock of `b` that `a` has seen.
    known: Vec<u32>,
    /// Threads of the warps, once a proxy fence was passed; zero before.
    threads: usize,
    /// `fenced[a * threads + t]`: the clock up to which the async proxy sees what `t` wrote, as far as `a` knows.
    fenced: Vec<u32>,
}

/// What one side hands to the other through an mbarrier.
#[derive(Clone, Default)]
pub struct Released {
    known: Vec<u32>,
    fenced: Vec<u32>,
}

impl Released {
    /// Phase `phase` of this agent's mbarrier is complete.
    pub fn complete(&mut self, agent: usize, phase: u32) {
        if self.known.len() <= agent {
            self.known.resize(agent + 1, 0);
        }
        self.known[agent] = phase;
    }
}

/// The later of each two clocks.
fn join(to: &mut [u32], from: &[u32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = (*to).max(*from);
    }
}

impl Clocks {
    /// Those of a fresh block.
    pub fn reset(&mut self, warps: usize) {
        self.warps = warps;
        self.columns = warps;
        self.threads = 0;
        self.fenced.clear();
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
        let n = self.columns;
        self.epoch += u32::from(warps.clone().count() == self.warps);
        let (mut all, mut fenced) = (vec![0; n], vec![0; self.threads]);
        for warp in warps.clone() {
            join(&mut all, &self.known[warp * n..][..n]);
            join(
                &mut fenced,
                &self.fenced[warp * self.threads..][..self.threads],
            );
        }
        warps.clone().for_each(|warp| all[warp] = self.clocks[warp]);
        for warp in warps {
            self.known[warp * n..][..n].copy_from_slice(&all);
            self.fenced[warp * self.threads..][..self.threads].copy_from_slice(&fenced);
            self.clocks[warp] += 1;
            self.lane_clocks[warp] += 1;
        }
    }

    /// A new agent, known to nobody; `None` when there are too many.
    pub fn add_agent(&mut self) -> Option<usize> {
        let (old, new) = (self.columns, self.columns + 1);
        if new > usize::from(u16::MAX) / 32 {
            return None;
        }
        let mut known = vec![0; self.warps * new];
        for (to, from) in known.chunks_mut(new).zip(self.known.chunks(old)) {
            to[..old].copy_from_slice(from);
        }
        (self.known, self.columns) = (known, new);
        Some(old)
    }

    /// `warp` arrives: whoever waits will know what it knows, and what it did.
    pub fn release(&mut self, warp: usize, to: &mut Released) {
        to.known.resize(self.columns, 0);
        join(
            &mut to.known,
            &self.known[warp * self.columns..][..self.columns],
        );
        to.known[warp] = self.clocks[warp];
        self.clocks[warp] += 1;
        if self.threads > 0 {
            to.fenced.resize(self.threads, 0);
            join(
                &mut to.fenced,
                &self.fenced[warp * self.threads..][..self.threads],
            );
        }
    }

    /// `warp` has waited for what others released.
    pub fn acquire(&mut self, warp: usize, from: &Released) {
        join(
            &mut self.known[warp * self.columns..][..self.columns],
            &from.known,
        );
        if self.threads > 0 {
            join(
                &mut self.fenced[warp * self.threads..][..self.threads],
                &from.fenced,
            );
        }
    }

    /// These lanes pass a proxy fence: the async proxy sees what they wrote.
    pub fn proxy_fence(&mut self, warp: usize, lanes: impl Iterator<Item = usize>) {
        if self.threads == 0 {
            self.threads = self.warps * 32;
            self.fenced = vec![0; self.warps * self.threads];
        }
        for lane in lanes {
            self.fenced[warp * self.threads + warp * 32 + lane] = self.clocks[warp];
        }
        self.clocks[warp] += 1;
    }

    /// The async proxy, on behalf of `warp`, does not see this write of a thread's.
    pub fn hidden(&self, write: Touch, warp: usize) -> bool {
        let by_thread = write.epoch != 0 && write.epoch != AGENT;
        let fenced = |thread: usize| match self.threads {
            0 => 0,
            threads => self.fenced[warp * threads + thread],
        };
        by_thread && fenced(write.thread.into()) < write.clock
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
        clock > self.known[warp * self.columns + other]
    }

    /// `touch` was made by another thread, and nothing orders `now` after it.
    #[inline]
    fn races(&self, touch: Touch, now: Touch) -> bool {
        if touch.epoch < now.epoch || touch.thread == now.thread || (touch.strong && now.strong) {
            return false;
        }
        if touch.warp() == now.warp() {
            touch.lane_clock == now.lane_clock
        } else {
            self.unseen(now.warp(), touch.warp(), touch.clock)
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
        if self.write.epoch >= now.epoch && clocks.races(self.write, now) {
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
        if lanes && (self.many || read.thread != now.thread) {
            Err(race("write", "read", read))
        } else {
            Ok(())
        }
    }
}

#[cold]
fn race(this: &'static str, other: &'static str, touch: Touch) -> Box<What> {
    if touch.epoch == AGENT {
        return Box::new(What::NotAwaited {
            this,
            line: touch.line,
        });
    }
    Box::new(What::SharedRace {
        this,
        other,
        thread: touch.thread.into(),
        line: touch.line,
    })
}
