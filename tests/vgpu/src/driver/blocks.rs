//! The memory that a pool holds: a range of addresses under which there are blocks of 2 MiB where something lies.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What a pool takes from the card, and gives back to it: a page of the card's.
pub const BLOCK_BYTES: u64 = 2 << 20;

/// The blocks of a pool, and what lies where in its range. Sizes in bytes.
#[derive(Default)]
pub struct Blocks {
    /// Length by start.
    used: BTreeMap<u64, u64>,
    /// Numbers of the blocks that are there.
    there: BTreeSet<u64>,
}

impl Blocks {
    pub fn bytes(&self) -> u64 {
        self.there.len() as u64 * BLOCK_BYTES
    }

    /// The first gap of this size.
    fn gap(&self, bytes: u64) -> u64 {
        let mut start = 0;
        for (&next, &length) in &self.used {
            if next - start >= bytes {
                break;
            }
            start = next + length;
        }
        start
    }

    fn under(start: u64, bytes: u64) -> Range<u64> {
        start / BLOCK_BYTES..(start + bytes).div_ceil(BLOCK_BYTES)
    }

    /// What an allocation would take from the card.
    pub fn missing(&self, bytes: u64) -> u64 {
        let under = Self::under(self.gap(bytes), bytes);
        let missing = under.filter(|block| !self.there.contains(block));
        missing.count() as u64 * BLOCK_BYTES
    }

    /// Takes room, with blocks under it; where it lies.
    pub fn take(&mut self, bytes: u64) -> u64 {
        let start = self.gap(bytes);
        self.used.insert(start, bytes);
        self.there.extend(Self::under(start, bytes));
        start
    }

    /// Gives room back; its blocks stay.
    pub fn give_back(&mut self, start: u64) {
        self.used.remove(&start);
    }

    /// Gives blocks in which nothing lies back to the card, but keeps at least `keep` bytes.
    pub fn shrink(&mut self, keep: u64) {
        let mut in_use = BTreeSet::new();
        for (&start, &length) in &self.used {
            in_use.extend(Self::under(start, length));
        }
        let spare = self.bytes().saturating_sub(keep) / BLOCK_BYTES;
        let free = self
            .there
            .iter()
            .rev()
            .filter(|block| !in_use.contains(block));
        let gone: Vec<u64> = free.take(spare as usize).copied().collect();
        gone.iter().for_each(|block| {
            self.there.remove(block);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn allocations_share_blocks_and_only_free_blocks_go() {
        let mut blocks = Blocks::default();
        assert_eq!(blocks.missing(512), 2 * MIB);
        let small = blocks.take(512);
        // The large one begins where the small one ends.
        assert_eq!(blocks.missing(3 * MIB), 2 * MIB);
        let large = blocks.take(3 * MIB);
        assert_eq!((blocks.bytes(), blocks.missing(MIB - 512)), (4 * MIB, 0));
        let last = blocks.take(MIB - 512);
        blocks.give_back(small);
        blocks.give_back(large);
        blocks.shrink(4 * MIB);
        assert_eq!(blocks.bytes(), 4 * MIB);
        blocks.shrink(0);
        assert_eq!(blocks.bytes(), 2 * MIB);
        assert_eq!(blocks.missing(3 * MIB), 2 * MIB);
        blocks.give_back(last);
        blocks.shrink(0);
        assert_eq!(blocks.bytes(), 0);
    }
}
