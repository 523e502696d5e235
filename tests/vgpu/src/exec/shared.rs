//! The shared memory of a block: its values, and that every access to it is in bounds, written before and in order.

use std::ops::Range;

use super::lanes::Lanes;
use super::memory_ops::lanes;
use super::order::{Clocks, History, Touch, Who};
use crate::fault::What;

#[derive(Clone, Copy, Default)]
struct Word {
    value: u32,
    /// Low four bits, bytes written; high four, bytes that `cp.async` still fills.
    state: u8,
    /// Asynchronous operations that still read it.
    held: u16,
    /// Of the whole word, while nobody touches less of it.
    history: History,
    /// Which of `Shared::parts` has the histories of its bytes, counted from one; zero for none.
    parts: u32,
}

#[derive(Default)]
pub struct Shared {
    words: Vec<Word>,
    parts: Vec<[History; 4]>,
    size: u64,
    pub clocks: Clocks,
    /// Addresses of mbarriers: their words are as if a copy without end filled them.
    barriers: Vec<u64>,
    /// What holds words: first byte, end, who and line.
    holders: Vec<Holder>,
}

/// An asynchronous read under way.
struct Holder {
    bytes: Range<u64>,
    reader: &'static str,
    line: u32,
}

impl Shared {
    /// Fresh memory for a block.
    pub fn reset(&mut self, size: u32, warps: usize) {
        let words = (size as usize).div_ceil(4);
        self.size = u64::from(size);
        self.words.clear();
        self.words.resize(words, Word::default());
        self.parts.clear();
        self.barriers.clear();
        self.holders.clear();
        self.clocks.reset(warps);
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
        let now = self.clocks.touch(who);
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
        let now = self.clocks.touch(who);
        for lane in lanes(mask) {
            let address = addresses.0[lane].wrapping_add(plus);
            times = if address == last { times + 1 } else { 0 };
            if times < 2 {
                value = self
                    .load_as(address, size, now.by_lane(lane))
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
        let value = word.value;
        self.each_history(at, bytes, |history, clocks| history.note_read(now, clocks))?;
        Ok(value)
    }

    /// The histories that these bytes of a word have.
    #[inline(always)]
    fn each_history(
        &mut self,
        at: usize,
        bytes: u8,
        mut visit: impl FnMut(&mut History, &Clocks) -> Result<(), Box<What>>,
    ) -> Result<(), Box<What>> {
        let word = &mut self.words[at];
        if word.parts == 0 {
            if bytes == 0xf {
                return visit(&mut word.history, &self.clocks);
            }
            self.parts.push([word.history; 4]);
            word.parts = self.parts.len() as u32;
        }
        let parts = &mut self.parts[word.parts as usize - 1];
        for (byte, history) in parts.iter_mut().enumerate() {
            if bytes >> byte & 1 == 1 {
                visit(history, &self.clocks)?;
            }
        }
        Ok(())
    }

    #[cold]
    fn not_there(&self, at: usize, bytes: u8, how: &'static str) -> Box<What> {
        let word = &self.words[at];
        if self.barriers.contains(&((at as u64 * 4) & !7)) {
            return Box::new(What::OfBarrier { how });
        }
        Box::new(match word.state >> 4 & bytes {
            0 => What::NeverWritten { space: "shared" },
            _ => What::StillCopying {
                how,
                line: self.last_write(word).line,
            },
        })
    }

    fn last_write(&self, word: &Word) -> Touch {
        match word.parts {
            0 => word.history.write,
            parts => self.parts[parts as usize - 1][0].write,
        }
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
            value: old,
            state,
            held,
            ..
        } = self.words[word];
        if held != 0 {
            return Err(self.still_read(word));
        }
        if state >> 4 & bytes != 0 {
            return Err(self.not_there(word, bytes, "written"));
        }
        let mask = spread(bytes);
        let new = (old & !mask) | (value & mask);
        let changes = old != new || state & bytes != bytes;
        let now = self.clocks.touch(who);
        self.each_history(word, bytes, |history, clocks| {
            history.note_write(now, changes, clocks)
        })?;
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
        let now = self.clocks.touch(who);
        for word in at / 4..(at + size) / 4 {
            if self.words[word].state >> 4 != 0 {
                return Err(self.not_there(word, 0xf, "written"));
            }
            if self.words[word].held != 0 {
                return Err(self.still_read(word));
            }
            self.each_history(word, 0xf, |history, clocks| {
                history.note_write(now, true, clocks)
            })?;
            self.words[word].state |= 0xf0;
        }
        Ok(())
    }

    /// `cp.async` is done: the bytes are as if `who` had written them now.
    pub fn end_copy(&mut self, address: u64, bytes: &[u8], who: Who) {
        self.end_copy_as(address, bytes, self.clocks.touch(who));
    }

    /// The same for a copy that nobody but the waiters of an mbarrier know of.
    pub fn end_copy_as(&mut self, address: u64, bytes: &[u8], write: Touch) {
        for (i, chunk) in bytes.chunks_exact(4).enumerate() {
            let word = &mut self.words[address as usize / 4 + i];
            word.value = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
            word.state = 0x0f;
            word.history.write = write;
            if word.parts != 0 {
                let parts = &mut self.parts[word.parts as usize - 1];
                parts.iter_mut().for_each(|part| part.write = write);
            }
        }
    }

    /// As `start_copy`, by the async proxy: it must not overtake what threads wrote there.
    pub fn start_bulk_copy(
        &mut self,
        address: u64,
        size: usize,
        who: Who,
    ) -> Result<(), Box<What>> {
        if address.saturating_add(size as u64) > self.size {
            return Err(Box::new(What::SharedBounds {
                bytes: size as u64,
                size: self.size,
            }));
        }
        for at in (address..address + size as u64).step_by(4) {
            self.seen_by_proxy(at as usize / 4, who)?;
            self.start_copy(at, 4, who)?;
        }
        Ok(())
    }

    fn seen_by_proxy(&self, word: usize, who: Who) -> Result<(), Box<What>> {
        let write = self.last_write(&self.words[word]);
        if !self.clocks.hidden(write, who.thread as usize / 32) {
            Ok(())
        } else {
            Err(Box::new(What::NoProxyFence {
                thread: write.thread(),
                line: write.line,
            }))
        }
    }

    /// Four bytes, read by the async proxy on behalf of `who`.
    pub fn load_by_proxy(&mut self, address: u64, who: Who) -> Result<u32, Box<What>> {
        let now = self.clocks.touch(who);
        let at = self.check(address, 4)?;
        let value = self.load_word(at / 4, 0xf, now)?;
        self.seen_by_proxy(at / 4, who)?;
        Ok(value)
    }

    /// Nobody may write these words until they are let go.
    pub fn hold(&mut self, words: &[u32], reader: &'static str, line: u32) {
        let (mut first, mut last) = (u32::MAX, 0);
        for &word in words {
            self.words[word as usize].held += 1;
            (first, last) = (first.min(word), last.max(word));
        }
        self.holders.push(Holder {
            bytes: u64::from(first) * 4..u64::from(last) * 4 + 4,
            reader,
            line,
        });
    }

    /// The read is done, as if `who` had made it now.
    pub fn let_go(&mut self, words: &[u32], who: Who) {
        let now = self.clocks.touch(who);
        for &word in words {
            let at = word as usize;
            self.words[at].held = self.words[at].held.saturating_sub(1);
            // It was in order when it began, and nobody has written since.
            let _ = self.each_history(at, 0xf, |history, clocks| history.note_read(now, clocks));
        }
        let held = self
            .holders
            .iter()
            .position(|holder| holder.line == who.line);
        held.map(|at| self.holders.swap_remove(at));
    }

    #[cold]
    fn still_read(&self, word: usize) -> Box<What> {
        let byte = word as u64 * 4;
        let holder = self.holders.iter().find(|h| h.bytes.contains(&byte));
        let (reader, line) = holder.map_or(("an asynchronous read", 0), |h| (h.reader, h.line));
        Box::new(What::StillRead { reader, line })
    }

    /// An mbarrier starts or, not `exists`, ends to be at this address.
    pub fn set_barrier(&mut self, address: u64, who: Who, exists: bool) -> Result<(), Box<What>> {
        let at = self.check(address, 8)? / 4;
        let now = self.clocks.touch(who);
        for word in [at, at + 1] {
            if self.words[word].held != 0 {
                return Err(self.still_read(word));
            }
            if exists && self.words[word].state >> 4 != 0 {
                return Err(self.not_there(word, 0xf, "initialisation"));
            }
            self.each_history(word, 0xf, |history, clocks| {
                history.note_write(now, true, clocks)
            })?;
            self.words[word].state = if exists { 0xf0 } else { 0 };
        }
        if exists {
            self.barriers.push(address)
        } else {
            self.barriers.retain(|&other| other != address)
        }
        Ok(())
    }

    /// An operation on the mbarrier at this address: ordered after its initialisation.
    pub fn touch_barrier(&mut self, address: u64, who: Who) -> Result<(), Box<What>> {
        let at = self.check(address, 8)? / 4;
        let now = self.clocks.touch(who);
        self.each_history(at, 0xf, |history, clocks| history.note_read(now, clocks))
    }

    /// The lanes of a warp have synchronised.
    pub fn sync_lanes(&mut self, warp: usize) {
        self.clocks.sync_lanes(warp);
    }

    /// A barrier of these warps is complete.
    pub fn sync_warps(&mut self, warps: impl Iterator<Item = usize> + Clone) {
        self.clocks.sync_warps(warps);
    }
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
