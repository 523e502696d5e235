//! Short-lived buffers of the host.

use std::collections::TryReserveError;

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
