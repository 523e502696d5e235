//! Limits that the shell or a batch system sets for a process: `ulimit -v` (address space) and `ulimit -d` (data).
//!
//! Both count what a process maps, whether it touches it or not, so that they bind long before memory is short. An
//! allocation that they refuse ends the process unless it was made to be refused.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::cpu::kib_field;

/// Bytes that this process may still map, by the narrower of the two limits; `None` where neither is set.
pub fn mappable_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let left = |resource, used| {
        let limit = getrlimit(resource).current?;
        Some(limit.saturating_sub(kib_field(&status, used)?))
    };
    let limits = [left(Resource::As, "VmSize"), left(Resource::Data, "VmData")];
    limits.into_iter().flatten().min()
}
