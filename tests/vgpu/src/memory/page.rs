//! Pages: words that several threads may touch, one "written" bit per byte, and the memory of who touched what.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::operations::{Doing, Stamp};
use super::race::{Access, Mark, Touched};
use crate::fault::What;

pub(super) const PAGE_BYTES: u64 = 64 << 10;

/// Relaxed atomic words: plain moves on the machines we run on, and no undefined behaviour when a kernel races.
pub(super) struct Page {
    words: Box<[AtomicU32]>,
    /// One bit per byte.
    written: Box<[AtomicU32]>,
    /// Who touched all of it at once.
    whole: Touched,
    touched: OnceLock<Box<[Touched]>>,
}

impl Page {
    /// A page of an allocation that `born` made.
    pub fn new(bytes: u64, born: Stamp) -> Self {
        let words = bytes.div_ceil(4) as usize;
        Self {
            words: (0..words).map(|_| AtomicU32::new(0)).collect(),
            written: (0..words.div_ceil(8)).map(|_| AtomicU32::new(0)).collect(),
            whole: Touched::born(born),
            touched: OnceLock::new(),
        }
    }

    /// Forgets who touched it.
    pub fn forget(&mut self) {
        self.whole = Touched::default();
        self.touched.take();
    }

    /// Checks an access of a kernel's against those of other operations to the page as a whole.
    #[inline]
    pub fn check_whole(&self, doing: &Doing, access: Access) -> Result<(), Box<What>> {
        self.whole.check(doing, access, 15)
    }

    /// Notes that an operation reads or writes `bytes` bytes, other than by a kernel.
    pub fn note(
        &self,
        doing: &Doing,
        offset: usize,
        bytes: usize,
        access: Access,
    ) -> Result<(), Box<What>> {
        self.whole.check(doing, access, 15)?;
        let (first, last) = (offset / 4, (offset + bytes).div_ceil(4));
        if first == 0 && last == self.words.len() && offset == 0 {
            let mut touched = self.touched.get().into_iter().flatten();
            touched.try_for_each(|word| word.check(doing, access, 15))?;
            self.whole.set(access, Mark::of_operation(doing, 15));
            return Ok(());
        }
        for word in first..last {
            let from = offset.max(word * 4) - word * 4;
            let to = (offset + bytes).min(word * 4 + 4) - word * 4;
            let touched = self.touched(word * 4);
            let these = (15 << from & !(!0 << to)) as u64;
            touched.check(doing, access, these)?;
            touched.set(access, Mark::of_operation(doing, these));
        }
        Ok(())
    }

    /// Who touched the word at `offset` last.
    #[inline]
    pub fn touched(&self, offset: usize) -> &Touched {
        &self
            .touched
            .get_or_init(|| self.words.iter().map(|_| Touched::default()).collect())[offset / 4]
    }

    /// `size` (1, 2, 4 or 8) aligned bytes.
    #[inline]
    pub fn load(&self, offset: usize, size: usize) -> u64 {
        let word = u64::from(self.words[offset / 4].load(Relaxed));
        match size {
            4 => word,
            8 => word | u64::from(self.words[offset / 4 + 1].load(Relaxed)) << 32,
            _ => word >> (offset % 4 * 8) & ((1 << (size * 8)) - 1),
        }
    }

    #[inline]
    pub fn store(&self, offset: usize, size: usize, value: u64) {
        let word = &self.words[offset / 4];
        match size {
            4 => word.store(value as u32, Relaxed),
            8 => {
                word.store(value as u32, Relaxed);
                self.words[offset / 4 + 1].store((value >> 32) as u32, Relaxed);
            }
            _ => {
                self.update(offset, size, |_| value);
            }
        }
        self.mark(offset, size);
    }

    /// Replaces `size` (1, 2 or 4) aligned bytes atomically; what they were.
    pub fn update(&self, offset: usize, size: usize, mut new: impl FnMut(u64) -> u64) -> u64 {
        let shift = offset % 4 * 8;
        let mask = (((1u64 << (size * 8)) - 1) << shift) as u32;
        let part = |word: u32| u64::from((word & mask) >> shift);
        let word = &self.words[offset / 4];
        let mut old = word.load(Relaxed);
        loop {
            let wanted = (old & !mask) | (((new(part(old)) << shift) as u32) & mask);
            match word.compare_exchange_weak(old, wanted, Relaxed, Relaxed) {
                Ok(_) => return part(old),
                Err(now) => old = now,
            }
        }
    }

    #[inline]
    pub fn is_written(&self, offset: usize, size: usize) -> bool {
        let mask = ((1u64 << size) - 1) as u32;
        self.written[offset / 32].load(Relaxed) >> (offset % 32) & mask == mask
    }

    #[inline]
    fn mark(&self, offset: usize, size: usize) {
        if !self.is_written(offset, size) {
            let mask = ((1u64 << size) - 1) as u32;
            self.written[offset / 32].fetch_or(mask << (offset % 32), Relaxed);
        }
    }

    pub fn byte(&self, offset: usize) -> Option<u8> {
        self.is_written(offset, 1)
            .then(|| self.load(offset, 1) as u8)
    }

    /// `None`: never written.
    pub fn set_byte(&self, offset: usize, byte: Option<u8>) {
        match byte {
            Some(byte) => self.store(offset, 1, u64::from(byte)),
            None => {
                self.written[offset / 32].fetch_and(!(1 << (offset % 32)), Relaxed);
            }
        }
    }

    pub fn copy_in(&self, mut offset: usize, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            match bytes.first_chunk::<4>() {
                Some(chunk) if offset.is_multiple_of(4) => {
                    self.store(offset, 4, u64::from(u32::from_le_bytes(*chunk)));
                    (offset, bytes) = (offset + 4, &bytes[4..]);
                }
                _ => {
                    self.store(offset, 1, u64::from(first));
                    (offset, bytes) = (offset + 1, rest);
                }
            }
        }
    }

    /// The offset in `bytes` of the first byte that was never written is the error.
    pub fn copy_out(&self, offset: usize, bytes: &mut [u8]) -> Result<(), usize> {
        let mut i = 0;
        while i < bytes.len() {
            let at = offset + i;
            if at.is_multiple_of(4) && bytes.len() - i >= 4 && self.is_written(at, 4) {
                bytes[i..i + 4].copy_from_slice(&(self.load(at, 4) as u32).to_le_bytes());
                i += 4;
            } else {
                bytes[i] = self.byte(at).ok_or(i)?;
                i += 1;
            }
        }
        Ok(())
    }

    /// Bytes, and which of them were written.
    pub fn copy_known(&self, offset: usize, bytes: &mut [u8], written: &mut [bool]) {
        let mut done = 0;
        while let Err(missing) = self.copy_out(offset + done, &mut bytes[done..]) {
            written[done + missing] = false;
            done += missing + 1;
        }
    }

    /// The opposite of `copy_known`.
    pub fn set_known(&self, offset: usize, bytes: &[u8], written: &[bool]) {
        if written.iter().all(|&w| w) {
            return self.copy_in(offset, bytes);
        }
        for (i, (&byte, &written)) in bytes.iter().zip(written).enumerate() {
            self.set_byte(offset + i, written.then_some(byte));
        }
    }
}
