//! Short-lived buffers of the host, and room for what cannot be refused.

use std::collections::TryReserveError;

use rustix::process::{Resource, getrlimit};

/// Bytes above which a freed allocation always goes back to the system. glibc keeps smaller ones once one
/// of their size was freed (mallopt(3), M_MMAP_THRESHOLD; DEFAULT_MMAP_THRESHOLD_MAX).
const KEPT_BYTES: usize = 32 << 20;

/// An empty buffer with room for `len` elements, for a short time at launch. Nothing of it stays with the
/// process, where it would come on top of the plan. Pages that are never written take no memory.
///
/// # Errors
/// When the system refuses.
pub(crate) fn passing_buffer<T>(len: usize) -> Result<Vec<T>, TryReserveError> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(len.max(1 + 2 * KEPT_BYTES / size_of::<T>()))?;
    Ok(buffer)
}

/// Room that a buffer of the host must leave: for stacks, for packed operands and for all the small allocations whose
/// refusal would end the process. More than [`KEPT_BYTES`], so that looking for it leaves nothing behind.
pub(crate) const SPARE_BYTES: usize = KEPT_BYTES + (64 << 10);

/// Whether the system would still give [`SPARE_BYTES`], where it limits what a process maps. Pages that are never written
/// take no memory.
pub(crate) fn has_spare() -> bool {
    let is_limited = |resource| getrlimit(resource).current.is_some();
    !(is_limited(Resource::As) || is_limited(Resource::Data))
        || Vec::<u8>::new().try_reserve_exact(SPARE_BYTES).is_ok()
}
