//! The shared memory of a block, and who touched it since the last barrier.
//!
//! Each warp has two clocks: one that barriers advance, one that `bar.warp.sync` advances too. An access is ordered before another
//! when the second warp has learned of the first one's clock at a barrier, or, within a warp, when its lanes synchronised between.
//! A write of the value that is there already is no race.

use super::lanes::Lanes;
use super::memory_ops::lanes;
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

impl Who {
    fn warp(self) -> usize {
        self.thread as usize / 32
    }
}

/// A word, its last write, and the reads since.
#[derive(Clone, Copy, Default)]
struct Word {
    value: u32,
    /// Low four bits, bytes written; high four, bytes that `cp.async` still fills.
    state: u8,
    /// More than one lane of the warp that read last has read.
    many: bool,
    /// Warps that read.
    readers: u32,
    write: Touch,
    read: Touch,
}

#[derive(Clone, Copy, Default)]
struct Touch {
    /// Barriers of the whole block before it.
    epoch: u32,
    clock: u32,
    lane_clock: u32,
    line: u32,
    thread: u16,
    /// Which bytes of the word; none: never.
    bytes: u8,
    strong: bool,
}

impl Touch {
    fn warp(self) -> usize {
        usize::from(self.thread) / 32
    }
}

#[derive(Default)]
pub struct Shared {
    words: Vec<Word>,
    size: u64,
    warps: usize,
    /// Barriers that all warps have passed: whatever came before one is ordered.
    epoch: u32,
    clocks: Vec<u32>,
    lane_clocks: Vec<u32>,
    /// `known[a * warps + b]`: the clock of `b` that `a` has seen.
    known: Vec<u32>,
}

impl Shared {
    /// Fresh memory for a block.
    pub fn reset(&mut self, size: u32, warps: usize) {
        let words = (size as usize).div_ceil(4);
        self.size = u64::from(size);
        self.warps = warps;
        self.epoch = 1;
        self.words.clear();
        self.words.resize(words, Word::default());
        for (list, len, value) in [
            (&mut self.clocks, warps, 1),
            (&mut self.lane_clocks, warps, 1),
            (&mut self.known, warps * warps, 0),
        ] {
            list.clear();
            list.resize(len, value);
        }
    }

    #[inline]
    fn check(&self, address: u64, size: usize) -> Result<usize, Box<What>> {
        if address.saturating_add(size as u64) > self.size {
            return Err(Box::new(What::SharedBounds {
                bytes: size as u64,
                size: self.size,
            }));
        }
        if !address.is_multiple_of(size as u64) {
            return Err(Box::new(What::Misaligned { bytes: size as u64 }));
        }
        Ok(address as usize)
    }

    /// `size` bytes (1, 2, 4 or 8).
    #[inline]
    pub fn load(&mut self, address: u64, size: usize, who: Who) -> Result<u64, Box<What>> {
        let now = self.touch(who);
        self.load_as(address, size, now)
    }

    /// One element for each lane of `mask`, at `addresses` plus `plus`; `who` is lane 0. The error names its lane.
    pub fn load_lanes(
        &mut self,
        addresses: &Lanes,
        plus: u64,
        size: usize,
        mask: u32,
        who: Who,
        out: &mut Lanes,
    ) -> Result<(), (usize, Box<What>)> {
        // Lanes that read what the two before them read add nothing to what is known.
        let (mut last, mut times) = (u64::MAX, 0);
        let mut value = 0;
        let now = self.touch(who);
        for lane in lanes(mask) {
            let address = addresses.0[lane].wrapping_add(plus);
            times = if address == last { times + 1 } else { 0 };
            if times < 2 {
                let now = Touch {
                    thread: now.thread + lane as u16,
                    ..now
                };
                value = self
                    .load_as(address, size, now)
                    .map_err(|what| (lane, what))?;
                last = address;
            }
            out.0[lane] = value;
        }
        Ok(())
    }

    #[inline(always)]
    fn load_as(&mut self, address: u64, size: usize, now: Touch) -> Result<u64, Box<What>> {
        let at = self.check(address, size)?;
        if size == 4 {
            return Ok(self.load_word(at / 4, 0xf, now)?.into());
        }
        if size == 8 {
            let low = self.load_word(at / 4, 0xf, now)?;
            return Ok(u64::from(low) | u64::from(self.load_word(at / 4 + 1, 0xf, now)?) << 32);
        }
        let word = self.load_word(at / 4, bytes_of(at, size), now)?;
        Ok(u64::from(word >> (at % 4 * 8)) & ((1 << (size * 8)) - 1))
    }

    #[inline(always)]
    fn load_word(&mut self, at: usize, bytes: u8, now: Touch) -> Result<u32, Box<What>> {
        let word = &self.words[at];
        if word.state & (bytes | bytes << 4) != bytes {
            return Err(self.not_there(at, bytes, "read"));
        }
        if word.write.epoch == now.epoch && self.races(&word.write, bytes, now) {
            return Err(race("read", "written", word.write));
        }
        self.words[at].note_read(Touch { bytes, ..now });
        Ok(self.words[at].value)
    }

    #[cold]
    fn not_there(&self, at: usize, bytes: u8, how: &'static str) -> Box<What> {
        let word = &self.words[at];
        Box::new(match word.state >> 4 & bytes {
            0 => What::NeverWritten { space: "shared" },
            _ => What::StillCopying {
                how,
                line: word.write.line,
            },
        })
    }

    #[inline]
    pub fn store(
        &mut self,
        address: u64,
        size: usize,
        value: u64,
        who: Who,
    ) -> Result<(), Box<What>> {
        let at = self.check(address, size)?;
        if size == 8 {
            self.store_word(at / 4, 0xf, value as u32, who)?;
            return self.store_word(at / 4 + 1, 0xf, (value >> 32) as u32, who);
        }
        self.store_word(
            at / 4,
            bytes_of(at, size),
            (value as u32) << (at % 4 * 8),
            who,
        )
    }

    #[inline]
    fn store_word(
        &mut self,
        word: usize,
        bytes: u8,
        value: u32,
        who: Who,
    ) -> Result<(), Box<What>> {
        let Word {
            value: old, state, ..
        } = self.words[word];
        if state >> 4 & bytes != 0 {
            return Err(self.not_there(word, bytes, "written"));
        }
        let mask = spread(bytes);
        let new = (old & !mask) | (value & mask);
        self.note_write(word, bytes, who, old != new || state & bytes != bytes)?;
        self.words[word].value = new;
        self.words[word].state |= bytes;
        Ok(())
    }

    /// Reads, changes and writes back; what it was.
    pub fn update(
        &mut self,
        address: u64,
        size: usize,
        who: Who,
        new: impl FnOnce(u64) -> u64,
    ) -> Result<u64, Box<What>> {
        let old = self.load(address, size, who)?;
        self.store(address, size, new(old), who)?;
        Ok(old)
    }

    /// `cp.async` starts to fill bytes: nobody may touch them until it is waited for.
    pub fn start_copy(&mut self, address: u64, size: usize, who: Who) -> Result<(), Box<What>> {
        let at = self.check(address, size)?;
        for word in at / 4..(at + size) / 4 {
            if self.words[word].state >> 4 != 0 {
                return Err(self.not_there(word, 0xf, "written"));
            }
            self.note_write(word, 0xf, who, true)?;
            self.words[word].state |= 0xf0;
        }
        Ok(())
    }

    /// `cp.async` is done: the bytes are as if `who` had written them now.
    pub fn end_copy(&mut self, address: u64, bytes: &[u8], who: Who) {
        for (i, chunk) in bytes.chunks_exact(4).enumerate() {
            let write = Touch {
                bytes: 0xf,
                ..self.touch(who)
            };
            let word = &mut self.words[address as usize / 4 + i];
            word.value = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
            word.state = 0x0f;
            word.write = write;
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

    /// An access by `who` now, of no bytes yet.
    #[inline(always)]
    fn touch(&self, who: Who) -> Touch {
        let warp = who.warp();
        Touch {
            epoch: self.epoch,
            clock: self.clocks[warp],
            lane_clock: self.lane_clocks[warp],
            line: who.line,
            thread: who.thread as u16,
            bytes: 0,
            strong: who.strong,
        }
    }

    /// `touch`, since the last barrier of the whole block, was made by another thread on some of these bytes, and nothing
    /// orders `now` after it.
    fn races(&self, touch: &Touch, bytes: u8, now: Touch) -> bool {
        if touch.epoch != self.epoch
            || touch.bytes & bytes == 0
            || touch.thread == now.thread
            || (touch.strong && now.strong)
        {
            return false;
        }
        match touch.warp() == now.warp() {
            true => touch.lane_clock == now.lane_clock,
            false => touch.clock > self.known[now.warp() * self.warps + touch.warp()],
        }
    }

    #[inline]
    fn note_write(
        &mut self,
        at: usize,
        bytes: u8,
        who: Who,
        changes: bool,
    ) -> Result<(), Box<What>> {
        let now = self.touch(who);
        let old = &self.words[at];
        if changes {
            if self.races(&old.write, bytes, now) {
                return Err(race("write", "written", old.write));
            }
            if old.readers != 0 && old.read.epoch == self.epoch {
                self.check_readers(old, bytes, now)?;
            }
        }
        let mut write = Touch { bytes, ..now };
        if old.write.bytes != 0 && old.write.thread == now.thread && old.write.clock == now.clock {
            write.bytes |= old.write.bytes;
        }
        self.words[at].write = write;
        Ok(())
    }

    /// Reads by other warps, and by other lanes of this one.
    fn check_readers(&self, old: &Word, bytes: u8, now: Touch) -> Result<(), Box<What>> {
        let (read, warp) = (old.read, now.warp());
        if read.bytes & bytes == 0 || (read.strong && now.strong) {
            return Ok(());
        }
        let mut others = (0..self.warps).filter(|&r| r != warp && old.readers >> r & 1 == 1);
        let unseen = |&r: &usize| read.clock > self.known[warp * self.warps + r];
        if let Some(other) = others.find(unseen) {
            let thread = if read.warp() == other {
                read.thread
            } else {
                other as u16 * 32
            };
            return Err(race("write", "read", Touch { thread, ..read }));
        }
        let lanes = read.warp() == warp && read.lane_clock == now.lane_clock;
        match lanes && (old.many || read.thread != now.thread) {
            true => Err(race("write", "read", read)),
            false => Ok(()),
        }
    }
}

impl Word {
    #[inline(always)]
    fn note_read(&mut self, mut read: Touch) {
        let mine = 1 << read.warp();
        let old = &self.read;
        if self.readers != 0 && old.epoch == read.epoch && old.clock == read.clock {
            let same_warp = self.readers & mine != 0 && old.lane_clock == read.lane_clock;
            self.many = same_warp && (self.many || old.thread != read.thread);
            read.bytes |= old.bytes;
            read.strong &= old.strong;
            self.readers |= mine;
        } else {
            self.readers = mine;
            self.many = false;
        }
        self.read = read;
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

#[inline]
fn bytes_of(at: usize, size: usize) -> u8 {
    (((1u32 << size) - 1) << (at % 4)) as u8
}

/// Bits of the bytes.
#[inline]
fn spread(bytes: u8) -> u32 {
    if bytes == 0xf {
        return u32::MAX;
    }
    (0..4)
        .filter(|i| bytes >> i & 1 == 1)
        .map(|i| 0xff << (8 * i))
        .sum()
}
