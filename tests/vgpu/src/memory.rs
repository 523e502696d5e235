//! The card's global memory.

use crate::fault::Fault;

/// The card has not that much left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("out of memory: {needed} bytes needed, {free} free")]
pub struct OutOfMemory {
    pub needed: u64,
    pub free: u64,
}

/// Every allocation of a card.
pub struct Memory {
    total_bytes: u64,
}

impl Memory {
    /// `total_bytes` on the card, of which other processes hold `used_by_others`.
    pub fn new(total_bytes: u64, _used_by_others: u64) -> Self {
        Self { total_bytes }
    }

    /// What other processes hold from now on.
    pub fn set_used_by_others(&self, _bytes: u64) {}

    /// # Errors
    /// The card has not that much left.
    pub fn alloc(&self, bytes: u64) -> Result<u64, OutOfMemory> {
        Err(OutOfMemory {
            needed: bytes,
            free: 0,
        })
    }

    /// # Errors
    /// `address` is not the start of a live allocation.
    pub fn free(&self, _address: u64) -> Result<(), Fault> {
        Ok(())
    }

    pub fn free_bytes(&self) -> u64 {
        self.total_bytes
    }

    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// The live allocation that holds `address`: its start and its bytes.
    pub fn allocation_of(&self, _address: u64) -> Option<(u64, u64)> {
        None
    }

    /// Host to card.
    pub fn copy_in(&self, _address: u64, _bytes: &[u8]) -> Result<(), Fault> {
        Ok(())
    }

    /// Card to host: every byte must have been written.
    pub fn copy_out(&self, _address: u64, _bytes: &mut [u8]) -> Result<(), Fault> {
        Ok(())
    }

    /// `count` times a pattern of 1, 2 or 4 bytes.
    pub fn set(&self, _address: u64, _pattern: &[u8], _count: u64) -> Result<(), Fault> {
        Ok(())
    }

    /// Card to card; bytes never written stay so.
    pub fn copy(&self, _to: u64, _from: u64, _bytes: u64) -> Result<(), Fault> {
        Ok(())
    }
}
