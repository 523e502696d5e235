//! What copies, fills, frees and libraries do to memory, as the operations that they are.

use std::ops::Range;

use super::allocation::Allocation;
use super::operations::Doing;
use super::page::PAGE_BYTES;
use super::race::{Access, Launch};
use super::{GRANULE, Memory, SPAN, SPAN_BITS, Span, Spans};
use crate::fault::{Fault, What};

/// The card's memory as one operation uses it: every access is checked against those of others.
pub struct ForOperation<'a> {
    pub(super) memory: &'a Memory,
    pub(super) doing: Doing<'a>,
}

impl<'a> ForOperation<'a> {
    /// The allocation that holds these bytes, noted as used by this operation, and their offset there.
    fn find<'s>(
        &self,
        spans: &'s Spans,
        address: u64,
        bytes: u64,
    ) -> Result<(&'s Allocation, u64), Fault> {
        let found = spans.find(address, bytes);
        let (allocation, offset) = found.map_err(|what| what.by_host(address))?;
        allocation.used_by(&self.doing);
        Ok((allocation, offset))
    }

    /// Host to card.
    ///
    /// # Errors
    /// Bytes outside a live allocation.
    pub fn copy_in(&self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        let spans = self.memory.read();
        let (allocation, start) = self.find(&spans, address, bytes.len() as u64)?;
        for (at, offset) in pieces(start, bytes.len() as u64) {
            let (page, offset) = (allocation.page(offset), (offset % PAGE_BYTES) as usize);
            page.note(&self.doing, offset, at.len(), Access::Write)
                .map_err(|what| what.by_host(address + at.start as u64))?;
            page.copy_in(offset, &bytes[at]);
        }
        Ok(())
    }

    /// Card to host.
    ///
    /// # Errors
    /// Bytes outside a live allocation, or never written.
    pub fn copy_out(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let spans = self.memory.read();
        let (allocation, start) = self.find(&spans, address, bytes.len() as u64)?;
        for (at, offset) in pieces(start, bytes.len() as u64) {
            let (first, in_page) = (address + at.start as u64, (offset % PAGE_BYTES) as usize);
            let never = |missing| {
                let what = What::NeverWritten { space: "global" };
                what.by_host(first + missing as u64)
            };
            let page = allocation.written_page(offset).ok_or_else(|| never(0))?;
            page.note(&self.doing, in_page, at.len(), Access::Read)
                .map_err(|what| what.by_host(first))?;
            page.copy_out(in_page, &mut bytes[at]).map_err(never)?;
        }
        Ok(())
    }

    /// `count` times a pattern of 1, 2 or 4 bytes.
    ///
    /// # Errors
    /// Bytes outside a live allocation.
    pub fn set(&self, address: u64, pattern: &[u8], count: u64) -> Result<(), Fault> {
        let bytes = count * pattern.len() as u64;
        self.memory
            .read()
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
        let spans = self.memory.read();
        let (source, source_at) = self.find(&spans, from, bytes)?;
        let (target, target_at) = self.find(&spans, to, bytes)?;
        // All of it first, for the two may overlap.
        let mut held = vec![0; bytes as usize];
        let mut written = vec![true; bytes as usize];
        for (at, now) in pieces(source_at, bytes) {
            let (bytes, written) = (&mut held[at.clone()], &mut written[at.clone()]);
            let (page, offset) = (source.page(now), (now % PAGE_BYTES) as usize);
            page.note(&self.doing, offset, bytes.len(), Access::Read)
                .map_err(|what| what.by_host(from + at.start as u64))?;
            page.copy_known(offset, bytes, written);
        }
        for (at, now) in pieces(target_at, bytes) {
            let (bytes, written) = (&held[at.clone()], &written[at.clone()]);
            let (page, offset) = (target.page(now), (now % PAGE_BYTES) as usize);
            page.note(&self.doing, offset, bytes.len(), Access::Write)
                .map_err(|what| what.by_host(to + at.start as u64))?;
            page.set_known(offset, bytes, written);
        }
        Ok(())
    }

    /// # Errors
    /// `address` is not the start of a live allocation, or nothing orders the end of its last use before this.
    pub fn free(&self, address: u64) -> Result<(), Fault> {
        let mut spans = self.memory.write();
        let starts = address & (SPAN - 1) == 0;
        let span = match spans.list.get_mut((address >> SPAN_BITS) as usize) {
            Some(span) if starts => span,
            _ => return Err(What::NotAnAllocation.by_host(address)),
        };
        let bytes = match span {
            Span::Live(allocation) => {
                let checked = allocation.check_free(&self.doing);
                checked.map_err(|what| what.by_host(address))?;
                allocation.bytes
            }
            Span::Freed { bytes, by } => {
                let (bytes, by) = (*bytes, by.clone());
                return Err(What::Freed { bytes, by }.by_host(address));
            }
            Span::Reserved => return Err(What::NotAnAllocation.by_host(address)),
        };
        *span = Span::Freed {
            bytes,
            by: self.doing.name(self.doing.stamp),
        };
        spans.used -= bytes.div_ceil(GRANULE) * GRANULE;
        Ok(())
    }

    /// Holds every allocation in place while a kernel runs.
    pub(crate) fn launch(self, blocks: u64) -> Launch<'a> {
        Launch::new(self.memory.read(), self.doing, blocks)
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
