//! The heap of glibc, which keeps more than a plan may count on.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use super::mappable_bytes;

/// Lets every thread allocate from one heap where address space is limited. glibc would map 64 MiB for each thread,
/// of which a run uses little. Call it before there are threads.
pub fn share_one_heap_where_limited() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if mappable_bytes().is_some() {
        // SAFETY: sets a number of glibc's allocator, which takes its own lock for it.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}

/// Returns what the allocator keeps of freed memory to the system. glibc keeps up to 64 MiB for each thread
/// (malloc_trim(3)), such as what the search for GEMMs packed in blocks of every size.
pub fn return_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes no pointer, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0)
    };
}
