//! Buffers of the host for a short time.

use std::collections::TryReserveError;

/// Larger allocations always go back to the system when they are freed. glibc keeps smaller ones once one
/// of their size was freed (mallopt(3), M_MMAP_THRESHOLD; DEFAULT_MMAP_THRESHOLD_MAX).
const KEPT_BYTES: usize = 32 << 20;

/// An empty buffer with room for `len` elements that are needed for a short time at launch: nothing of it
/// stays with the process, where it would come on top of the plan. What is not written takes no memory.
///
/// # Errors
/// When the system refuses.
pub(crate) fn passing_buffer<T>(len: usize) -> Result<Vec<T>, TryReserveError> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(len.max(1 + 2 * KEPT_BYTES / size_of::<T>()))?;
    Ok(buffer)
}
