//! The card's global memory.
//!
//! Device addresses are made up and never used twice. Each allocation starts a span of addresses of its own
//! (256 GiB, or several), so that whatever runs over an end falls into a gap and is caught. Bytes are accounted
//! in granules of 512, as small allocations are on a card. Host memory is taken when a page is first written.

mod allocation;
mod for_operation;
mod operations;
mod page;
mod race;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::fault::{Fault, What};
use allocation::Allocation;
pub use for_operation::ForOperation;
pub use operations::{Clock, Entry, Stamp};
use operations::{Doing, Log};
pub(crate) use race::{Actor, Launch};

/// Addresses that one allocation has for itself, as a power of two.
const SPAN_BITS: u32 = 38;
const SPAN: u64 = 1 << SPAN_BITS;
/// What allocations are rounded up to when they are counted.
const GRANULE: u64 = 512;

/// Generic addresses of a block's shared memory.
pub(crate) const SHARED_WINDOW: u64 = SPAN;
/// Generic addresses of a thread's local memory.
pub(crate) const LOCAL_WINDOW: u64 = 2 * SPAN;
/// Generic addresses of a kernel's parameters.
pub(crate) const PARAM_WINDOW: u64 = 3 * SPAN;
/// The window of a generic address, or the span of a global one.
pub(crate) const fn window(address: u64) -> u64 {
    address & !(SPAN - 1)
}
const FIRST_SPAN: usize = 4;

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
    used_by_others: AtomicU64,
    spans: RwLock<Spans>,
    log: RwLock<Log>,
}

/// What the spans of addresses hold, by number.
struct Spans {
    list: Vec<Span>,
    /// Bytes of live allocations, in granules.
    used: u64,
}

enum Span {
    /// Kept for the windows, or a later part of an allocation larger than a span.
    Reserved,
    Live(Allocation),
    Freed {
        bytes: u64,
        /// Who freed it.
        by: String,
    },
}

impl Spans {
    /// The allocation that holds all of `bytes` at `address`, and the offset there.
    fn find(&self, address: u64, bytes: u64) -> Result<(&Allocation, u64), Box<What>> {
        let offset = address & (SPAN - 1);
        match self.list.get((address >> SPAN_BITS) as usize) {
            Some(Span::Live(allocation)) if offset + bytes <= allocation.bytes => {
                Ok((allocation, offset))
            }
            _ => self.find_slowly(address, bytes),
        }
    }

    /// Allocations larger than a span, and why an address is wrong.
    #[cold]
    fn find_slowly(&self, address: u64, bytes: u64) -> Result<(&Allocation, u64), Box<What>> {
        let at = (address >> SPAN_BITS) as usize;
        if at + 1 < FIRST_SPAN || at > self.list.len() {
            return Err(Box::new(What::Unmapped { bytes }));
        }
        let start = (FIRST_SPAN..=at.min(self.list.len() - 1))
            .rev()
            .find(|&i| !matches!(self.list[i], Span::Reserved));
        let here = start.map(|i| (&self.list[i], address.wrapping_sub((i as u64) << SPAN_BITS)));
        let size = match here {
            Some((Span::Live(allocation), offset)) if offset + bytes <= allocation.bytes => {
                return Ok((allocation, offset));
            }
            Some((Span::Freed { bytes: size, by }, offset)) if offset < *size => {
                return Err(Box::new(What::Freed {
                    bytes,
                    by: by.clone(),
                }));
            }
            Some((Span::Live(allocation), offset)) if offset < allocation.bytes + SPAN / 2 => {
                return Err(Box::new(What::OutOfBounds {
                    bytes,
                    offset: offset as i64,
                    size: allocation.bytes,
                }));
            }
            _ => self.list.get(at + 1),
        };
        // Closer to the start of the next one: an index below zero.
        match size {
            Some(Span::Live(next)) => {
                let offset = address.wrapping_sub((at as u64 + 1) << SPAN_BITS) as i64;
                Err(Box::new(What::OutOfBounds {
                    bytes,
                    offset,
                    size: next.bytes,
                }))
            }
            _ => Err(Box::new(What::Unmapped { bytes })),
        }
    }
}

impl Memory {
    /// `total_bytes` on the card, of which other processes hold `used_by_others`.
    pub fn new(total_bytes: u64, used_by_others: u64) -> Self {
        let list = (0..FIRST_SPAN).map(|_| Span::Reserved).collect();
        Self {
            total_bytes,
            used_by_others: AtomicU64::new(used_by_others),
            spans: RwLock::new(Spans { list, used: 0 }),
            log: RwLock::default(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Spans> {
        self.spans.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Spans> {
        self.spans.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is not there for allocations: other processes hold it, or pools keep it.
    pub fn set_used_by_others(&self, bytes: u64) {
        self.used_by_others.store(bytes, Ordering::Relaxed);
    }

    fn free_beside(&self, used: u64) -> u64 {
        self.total_bytes
            .saturating_sub(self.used_by_others.load(Ordering::Relaxed))
            .saturating_sub(used)
    }

    /// The start of `bytes` new bytes, none of them written, for everybody.
    ///
    /// # Errors
    /// The card has not that much left.
    pub fn alloc(&self, bytes: u64) -> Result<u64, OutOfMemory> {
        self.alloc_by(Stamp::default(), bytes)
    }

    /// As [`Memory::alloc`], for operations that this one happens before.
    ///
    /// # Errors
    /// The card has not that much left.
    pub fn alloc_by(&self, born: Stamp, bytes: u64) -> Result<u64, OutOfMemory> {
        let mut spans = self.write();
        let free = self.free_beside(spans.used);
        let needed = bytes.div_ceil(GRANULE).saturating_mul(GRANULE);
        if needed > free {
            return Err(OutOfMemory { needed, free });
        }
        spans.used += needed;
        let address = (spans.list.len() as u64) << SPAN_BITS;
        spans.list.push(Span::Live(Allocation::new(bytes, born)));
        spans
            .list
            .extend((1..bytes.div_ceil(SPAN)).map(|_| Span::Reserved));
        Ok(address)
    }

    /// # Errors
    /// `address` is not the start of a live allocation.
    pub fn free(&self, address: u64) -> Result<(), Fault> {
        self.by_host().free(address)
    }

    pub fn free_bytes(&self) -> u64 {
        self.free_beside(self.read().used)
    }

    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// The live allocation that holds `address`: its start and its bytes.
    pub fn allocation_of(&self, address: u64) -> Option<(u64, u64)> {
        let spans = self.read();
        let (allocation, offset) = spans.find(address, 1).ok()?;
        Some((address - offset, allocation.bytes))
    }

    /// Notes an operation, and what happens before it.
    pub fn begin(&self, entry: Entry) -> Stamp {
        self.log().begin(entry)
    }

    fn log(&self) -> RwLockWriteGuard<'_, Log> {
        self.log.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets operations that everything still to be done comes after, as this clock says.
    pub fn forget_done(&self, known: &Clock) {
        self.log().forget(known);
    }

    /// Whether so many operations were noted that they should be forgotten when nothing is left to do.
    pub fn is_full(&self) -> bool {
        self.log().is_full()
    }

    /// Forgets all operations: stamps begin again, so that none of the old ones may be left.
    pub fn forget_operations(&self) {
        *self.log() = Log::default();
        for span in &mut self.write().list {
            if let Span::Live(allocation) = span {
                allocation.forget();
            }
        }
    }

    /// The memory as an operation that was noted uses it.
    pub fn by(&self, stamp: Stamp) -> ForOperation<'_> {
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        ForOperation {
            memory: self,
            doing: Doing::new(log, stamp),
        }
    }

    /// The memory as the host uses it, when everything else is done.
    pub fn by_host(&self) -> ForOperation<'_> {
        let stamp = self.log().begin_by_host();
        self.by(stamp)
    }

    /// Checks that these bytes lie in one live allocation.
    ///
    /// # Errors
    /// Bytes outside a live allocation.
    pub fn check(&self, address: u64, bytes: u64) -> Result<(), Fault> {
        let found = self.read().find(address, bytes).map(|_| ());
        found.map_err(|what| what.by_host(address))
    }

    /// Host to card, see [`ForOperation::copy_in`].
    ///
    /// # Errors
    /// Bytes outside a live allocation.
    pub fn copy_in(&self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.by_host().copy_in(address, bytes)
    }

    /// Card to host, see [`ForOperation::copy_out`].
    ///
    /// # Errors
    /// Bytes outside a live allocation, or never written.
    pub fn copy_out(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        self.by_host().copy_out(address, bytes)
    }

    /// A pattern over and over, see [`ForOperation::set`].
    ///
    /// # Errors
    /// Bytes outside a live allocation.
    pub fn set(&self, address: u64, pattern: &[u8], count: u64) -> Result<(), Fault> {
        self.by_host().set(address, pattern, count)
    }

    /// Card to card, see [`ForOperation::copy`].
    ///
    /// # Errors
    /// Bytes outside a live allocation.
    pub fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), Fault> {
        self.by_host().copy(to, from, bytes)
    }
}
