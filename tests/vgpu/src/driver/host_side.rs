//! Host memory that a queued copy still has to read or to write: what the host does to it in between is found out.
//!
//! CUDA says that a copy between the card and pageable memory may be synchronous, not that it is, so that both kinds of
//! host memory are read and written when the copy is done. The bytes are kept when the copy is given to the card, and
//! compared then. What a copy will write is filled with ones until it does, so that whoever reads too early
//! reads no plausible number; and since the memory may be gone by then, it is looked at through the
//! kernel (`/proc/self/mem`), which answers with an error where a load would end the process.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use super::operation::{HostAddress, Operation};
use crate::fault::What;

/// Every byte of memory that a copy will write: not a number as a float of any size.
const NOT_YET: u8 = 0xff;

/// The host's side of a queued copy.
pub struct HostSide {
    at: HostAddress,
    /// What lies there until the copy is done.
    kept: Vec<u8>,
    role: Role,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The copy reads the memory when it is done.
    Read,
    /// The copy reads what was kept: the driver took the bytes away at once.
    Staged,
    Written,
}

impl HostSide {
    /// Of an operation that uses host memory and is not done at once. `staged`: the bytes are taken now.
    /// `used`: other copies use the memory, too, so that it is left as it is.
    ///
    /// # Safety
    /// The memory of the operation may be read, and written if it is written to.
    pub unsafe fn of(operation: &Operation, staged: bool, used: bool) -> Option<Self> {
        let (at, bytes, role) = match operation {
            Operation::CopyIn { from, bytes, .. } if staged => (*from, *bytes, Role::Staged),
            Operation::CopyIn { from, bytes, .. } => (*from, *bytes, Role::Read),
            Operation::CopyOut { to, bytes, .. } => (*to, *bytes, Role::Written),
            _ => return None,
        };
        if role == Role::Written && !used {
            // SAFETY: the caller promises that it may be written.
            unsafe { std::ptr::write_bytes(at.0 as *mut u8, NOT_YET, bytes) };
        }
        // SAFETY: the caller promises that it may be read.
        let kept = unsafe { std::slice::from_raw_parts(at.0 as *const u8, bytes) };
        Some(Self {
            at,
            kept: kept.to_vec(),
            role,
        })
    }

    /// Whether it lies in these bytes, at least partly, and is still looked at.
    pub fn uses(&self, start: usize, bytes: usize) -> bool {
        let (from, to) = (self.at.0, self.at.0 + self.kept.len());
        self.role != Role::Staged && from < start + bytes && start < to
    }

    /// Something else on the card was allowed to write here.
    pub fn look_again(&mut self) {
        if self.role != Role::Staged {
            // Memory that is gone stays what it was, and is missed when the copy is done.
            let bytes = self.kept.len();
            let kept = &mut self.kept;
            let _ = look(self.at.0, bytes, |at, now| {
                kept[at..at + now.len()].copy_from_slice(now);
            });
        }
    }

    /// The bytes to copy to the card, if the host left them alone.
    pub fn read(&self, copy: &str) -> Result<&[u8], What> {
        self.check(copy)?;
        Ok(&self.kept)
    }

    /// Checks that the host left alone what `copy` reads or writes.
    pub fn check(&self, copy: &str) -> Result<(), What> {
        if self.role == Role::Staged {
            return Ok(());
        }
        let mut same = true;
        let looked = look(self.at.0, self.kept.len(), |at, now| {
            same &= *now == self.kept[at..at + now.len()];
        });
        let how = match (looked, same) {
            (Some(()), true) => return Ok(()),
            (Some(()), false) => "changed",
            (None, _) => "freed",
        };
        Err(self.trouble(copy, how))
    }

    /// What the host did to the memory of `copy`.
    pub fn trouble(&self, copy: &str, how: &'static str) -> What {
        let copy = copy.to_owned();
        match self.role {
            Role::Written => What::HostUsed { copy, how },
            _ => What::HostChanged { copy, how },
        }
    }
}

/// Bytes that are looked at together: few, so that the room for them is not made where memory has just gone.
const PIECE: usize = 32 << 10;

/// What lies at an address of this process, piece by piece, with its offset; nothing where nothing lies.
fn look(address: usize, bytes: usize, mut see: impl FnMut(usize, &[u8])) -> Option<()> {
    static SELF: OnceLock<Option<File>> = OnceLock::new();
    // Where it cannot be looked at, it is taken to be as it was.
    let file = SELF.get_or_init(|| File::open("/proc/self/mem").ok());
    let Some(file) = file else { return Some(()) };
    let mut piece = [0; PIECE];
    for at in (0..bytes).step_by(PIECE) {
        let piece = &mut piece[..PIECE.min(bytes - at)];
        file.read_exact_at(piece, (address + at) as u64).ok()?;
        see(at, piece);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy_in(bytes: &[u8]) -> Operation {
        Operation::CopyIn {
            address: 0,
            from: HostAddress(bytes.as_ptr() as usize),
            bytes: bytes.len(),
        }
    }

    #[test]
    fn memory_that_is_gone_is_told_from_memory_that_changed() {
        // So large that it is a mapping of its own, which freeing removes.
        let mut bytes = vec![1u8; 64 << 20];
        let side = unsafe { HostSide::of(&copy_in(&bytes), false, false) }.unwrap();
        let staged = unsafe { HostSide::of(&copy_in(&bytes), true, false) }.unwrap();
        assert_eq!(side.read("a copy").unwrap().len(), bytes.len());
        bytes[12_345] = 2;
        let changed = side.check("a copy").unwrap_err().to_string();
        assert!(
            changed.contains("a copy") && changed.contains("changed"),
            "{changed}"
        );
        drop(bytes);
        let freed = side.check("a copy").unwrap_err().to_string();
        assert!(freed.contains("freed"), "{freed}");
        assert!(staged.read("a copy").unwrap().iter().all(|&byte| byte == 1));
    }
}
