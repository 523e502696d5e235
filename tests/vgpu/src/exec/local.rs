//! Local memory of the 32 threads of a warp: a stack of frames, words of the lanes side by side.

use super::lanes::WARP;
use crate::fault::What;

#[derive(Default)]
pub struct Local {
    words: Vec<u32>,
    /// Bytes written, per word.
    written: Vec<u8>,
}

impl Local {
    /// Bytes of a thread.
    pub fn size(&self) -> u32 {
        (self.words.len() / WARP * 4) as u32
    }

    /// More or fewer bytes for each thread; new ones are unwritten.
    pub fn resize(&mut self, bytes: u32) {
        let words = bytes.div_ceil(4) as usize * WARP;
        self.words.resize(words, 0);
        self.written.resize(words, 0);
    }

    fn check(&self, address: u64, size: usize) -> Result<usize, Box<What>> {
        let bytes = u64::from(self.size());
        if address.saturating_add(size as u64) > bytes {
            return Err(Box::new(What::OwnBounds {
                bytes: size as u64,
                size: bytes,
                space: "local",
            }));
        }
        if !address.is_multiple_of(size as u64) {
            return Err(Box::new(What::Misaligned { bytes: size as u64 }));
        }
        Ok(address as usize)
    }

    pub fn load(&self, lane: usize, address: u64, size: usize) -> Result<u64, Box<What>> {
        let at = self.check(address, size)?;
        if size == 8 {
            return Ok(self.load(lane, address, 4)? | self.load(lane, address + 4, 4)? << 32);
        }
        let (index, shift) = (at / 4 * WARP + lane, at % 4);
        let bytes = ((1u32 << size) - 1) as u8;
        if self.written[index] >> shift & bytes != bytes {
            return Err(Box::new(What::NeverWritten { space: "local" }));
        }
        Ok(u64::from(self.words[index] >> (8 * shift)) & ((1 << (8 * size)) - 1))
    }

    pub fn store(
        &mut self,
        lane: usize,
        address: u64,
        size: usize,
        value: u64,
    ) -> Result<(), Box<What>> {
        let at = self.check(address, size)?;
        if size == 8 {
            self.store(lane, address, 4, value)?;
            return self.store(lane, address + 4, 4, value >> 32);
        }
        let (index, shift) = (at / 4 * WARP + lane, at % 4);
        let mask = (((1u64 << (8 * size)) - 1) as u32) << (8 * shift);
        self.words[index] = (self.words[index] & !mask) | ((value as u32) << (8 * shift) & mask);
        self.written[index] |= (((1u32 << size) - 1) << shift) as u8;
        Ok(())
    }

    /// Words from one place to another, written or not, for the lanes of `mask`.
    pub fn copy(&mut self, mask: u32, to: u32, from: u32, bytes: u32) {
        for word in 0..bytes.div_ceil(4) {
            for lane in (0..WARP).filter(|lane| mask >> lane & 1 == 1) {
                let [to, from] = [to, from].map(|start| (start / 4 + word) as usize * WARP + lane);
                self.words[to] = self.words[from];
                self.written[to] = self.written[from];
            }
        }
    }
}
