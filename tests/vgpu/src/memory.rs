//! The card's global memory.
//!
//! Device addresses are made up and never used twice. Each allocation starts a span of addresses of its own
//! (256 GiB, or several), so that whatever runs over an end falls into a gap and is caught. Bytes are accounted
//! in granules of 512, as small allocations are on a card. Host memory is taken when a page is first written.

mod page;
mod race;

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::fault::{Fault, What};
use page::{PAGE_BYTES, Page};
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
    launches: AtomicU32,
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
    },
}

struct Allocation {
    bytes: u64,
    pages: Box<[OnceLock<Page>]>,
}

impl Allocation {
    /// The page that holds `offset`, made if nothing was written there yet.
    fn page(&self, offset: u64) -> &Page {
        let index = (offset / PAGE_BYTES) as usize;
        self.pages[index]
            .get_or_init(|| Page::new(PAGE_BYTES.min(self.bytes - index as u64 * PAGE_BYTES)))
    }

    fn written_page(&self, offset: u64) -> Option<&Page> {
        self.pages[(offset / PAGE_BYTES) as usize].get()
    }
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
            Some((Span::Freed { bytes: size }, offset)) if offset < *size => {
                return Err(Box::new(What::Freed { bytes }));
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
            launches: AtomicU32::new(0),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Spans> {
        self.spans.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Spans> {
        self.spans.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What other processes hold from now on.
    pub fn set_used_by_others(&self, bytes: u64) {
        self.used_by_others.store(bytes, Ordering::Relaxed);
    }

    fn free_beside(&self, used: u64) -> u64 {
        self.total_bytes
            .saturating_sub(self.used_by_others.load(Ordering::Relaxed))
            .saturating_sub(used)
    }

    /// The start of `bytes` new bytes, none of them written.
    ///
    /// # Errors
    /// The card has not that much left.
    pub fn alloc(&self, bytes: u64) -> Result<u64, OutOfMemory> {
        let mut spans = self.write();
        let free = self.free_beside(spans.used);
        let needed = bytes.div_ceil(GRANULE).saturating_mul(GRANULE);
        if needed > free {
            return Err(OutOfMemory { needed, free });
        }
        spans.used += needed;
        let address = (spans.list.len() as u64) << SPAN_BITS;
        let pages = (0..bytes.div_ceil(PAGE_BYTES))
            .map(|_| OnceLock::new())
            .collect();
        spans.list.push(Span::Live(Allocation { bytes, pages }));
        spans
            .list
            .extend((1..bytes.div_ceil(SPAN)).map(|_| Span::Reserved));
        Ok(address)
    }

    /// # Errors
    /// `address` is not the start of a live allocation.
    pub fn free(&self, address: u64) -> Result<(), Fault> {
        let mut spans = self.write();
        let starts = address & (SPAN - 1) == 0;
        match spans.list.get_mut((address >> SPAN_BITS) as usize) {
            Some(span @ Span::Live(_)) if starts => {
                let Span::Live(allocation) = std::mem::replace(span, Span::Reserved) else {
                    return Ok(());
                };
                *span = Span::Freed {
                    bytes: allocation.bytes,
                };
                spans.used -= allocation.bytes.div_ceil(GRANULE) * GRANULE;
                Ok(())
            }
            Some(Span::Freed { bytes }) if starts => {
                Err(What::Freed { bytes: *bytes }.by_host(address))
            }
            _ => Err(What::NotAnAllocation.by_host(address)),
        }
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

    /// Host to card.
    ///
    /// # Errors
    /// Bytes outside a live allocation.
    pub fn copy_in(&self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        let spans = self.read();
        let (allocation, start) = spans
            .find(address, bytes.len() as u64)
            .map_err(|w| w.by_host(address))?;
        for (at, offset) in pieces(start, bytes.len() as u64) {
            allocation
                .page(offset)
                .copy_in((offset % PAGE_BYTES) as usize, &bytes[at]);
        }
        Ok(())
    }

    /// Card to host.
    ///
    /// # Errors
    /// Bytes outside a live allocation, or never written.
    pub fn copy_out(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let spans = self.read();
        let (allocation, start) = spans
            .find(address, bytes.len() as u64)
            .map_err(|w| w.by_host(address))?;
        for (at, offset) in pieces(start, bytes.len() as u64) {
            let first = at.start as u64;
            let page = allocation.written_page(offset).ok_or(0);
            let copied =
                page.and_then(|page| page.copy_out((offset % PAGE_BYTES) as usize, &mut bytes[at]));
            if let Err(missing) = copied {
                let what = What::NeverWritten { space: "global" };
                return Err(what.by_host(address + first + missing as u64));
            }
        }
        Ok(())
    }

    /// `count` times a pattern of 1, 2 or 4 bytes.
    ///
    /// # Errors
    /// Bytes outside a live allocation.
    pub fn set(&self, address: u64, pattern: &[u8], count: u64) -> Result<(), Fault> {
        let bytes = count * pattern.len() as u64;
        self.read()
            .find(address, bytes)
            .map_err(|w| w.by_host(address))?;
        let block: Vec<u8> = pattern
            .iter()
            .copied()
            .cycle()
            .take(bytes.min(PAGE_BYTES) as usize)
            .collect();
        let mut done = 0;
        while done < bytes {
            let now = PAGE_BYTES.min(bytes - done);
            self.copy_in(address + done, &block[..now as usize])?;
            done += now;
        }
        Ok(())
    }

    /// Card to card; bytes never written stay so. The two may overlap.
    ///
    /// # Errors
    /// Bytes outside a live allocation.
    pub fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), Fault> {
        let spans = self.read();
        let (source, source_at) = spans.find(from, bytes).map_err(|w| w.by_host(from))?;
        let (target, target_at) = spans.find(to, bytes).map_err(|w| w.by_host(to))?;
        // All of it first, for the two may overlap.
        let mut held = vec![0; bytes as usize];
        let mut written = vec![true; bytes as usize];
        for (at, now) in pieces(source_at, bytes) {
            let (bytes, written) = (&mut held[at.clone()], &mut written[at.clone()]);
            match source.written_page(now) {
                Some(page) => page.copy_known((now % PAGE_BYTES) as usize, bytes, written),
                None => written.fill(false),
            }
        }
        for (at, now) in pieces(target_at, bytes) {
            let (bytes, written) = (&held[at.clone()], &written[at.clone()]);
            if written.iter().any(|&w| w) || target.written_page(now).is_some() {
                target
                    .page(now)
                    .set_known((now % PAGE_BYTES) as usize, bytes, written);
            }
        }
        Ok(())
    }

    /// Holds every allocation in place while a kernel runs.
    pub(crate) fn launch(&self, blocks: u64) -> Launch<'_> {
        let epoch = self.launches.fetch_add(1, Ordering::Relaxed) + 1;
        Launch::new(self.read(), epoch, blocks)
    }
}

/// Parts of `bytes` bytes from offset `start` on that lie in one page each: where they are in the whole, and their offset.
fn pieces(start: u64, bytes: u64) -> impl Iterator<Item = (Range<usize>, u64)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let offset = start + done;
        let now = (PAGE_BYTES - offset % PAGE_BYTES).min(bytes - done);
        done += now;
        (now > 0).then_some(((done - now) as usize..done as usize, offset))
    })
}
