//! What the card can be given to do.

use std::borrow::Cow;
use std::ffi::c_void;
use std::sync::Arc;

use super::host_side::HostSide;
use super::launch::Launch;
use super::state::Driver;
use crate::fault::{Fault, What};
use crate::memory::ForOperation;

/// Work in plain code on the card's memory.
pub type Work = Arc<dyn Fn(&ForOperation) -> Result<(), Fault> + Send + Sync>;

/// Something to do on the card.
#[derive(Clone)]
pub enum Operation {
    Launch(Launch),
    /// What a library was asked for.
    Library {
        /// The entry point.
        name: &'static str,
        work: Work,
    },
    Set {
        address: u64,
        /// 1, 2 or 4 bytes.
        pattern: Vec<u8>,
        count: u64,
    },
    /// Host to card.
    CopyIn {
        address: u64,
        from: HostAddress,
        bytes: usize,
    },
    /// Card to host.
    CopyOut {
        to: HostAddress,
        address: u64,
        bytes: usize,
    },
    /// Card to card.
    Copy {
        to: u64,
        from: u64,
        bytes: u64,
    },
    /// A function of the program's.
    Call {
        function: extern "C" fn(*mut c_void),
        argument: HostAddress,
    },
}

/// An address in the program that called, which promised that it may be used until the work is done.
#[derive(Clone, Copy)]
pub struct HostAddress(pub usize);

impl Operation {
    /// Does it. `side`: the host's side of a copy that was queued, and the copy's name.
    pub(super) fn run(
        &self,
        driver: &Driver,
        memory: ForOperation,
        side: Option<(&str, &HostSide)>,
    ) -> Result<(), Fault> {
        match self {
            Operation::Launch(launch) => launch.run(memory, &driver.limits),
            Operation::Library { work, .. } => work(&memory),
            Operation::Set {
                address,
                pattern,
                count,
            } => memory.set(*address, pattern, *count),
            Operation::CopyIn {
                address,
                from,
                bytes,
            } => {
                let from = match side {
                    Some((copy, side)) => side.read(copy).map_err(What::alone)?,
                    // SAFETY: the caller of the copy, which is done at once, promised that these bytes may be read.
                    None => unsafe { std::slice::from_raw_parts(from.0 as *const u8, *bytes) },
                };
                memory.copy_in(*address, from)
            }
            Operation::CopyOut { to, address, bytes } => {
                if let Some((copy, side)) = side {
                    side.check(copy).map_err(What::alone)?;
                }
                // SAFETY: the caller of the copy promised that these bytes may be written until it is done; memory that was
                // unmapped or changed since was found above.
                let to = unsafe { std::slice::from_raw_parts_mut(to.0 as *mut u8, *bytes) };
                memory.copy_out(*address, to)
            }
            Operation::Copy { to, from, bytes } => memory.copy(*to, *from, *bytes),
            // The program's own code, which memory is not held for.
            Operation::Call { .. } => Ok(()),
        }
    }

    /// What it is, for reports.
    pub(super) fn what(&self) -> Cow<'static, str> {
        match self {
            Operation::Launch(launch) => format!("kernel `{}`", launch.name()).into(),
            Operation::Library { name, .. } => format!("`{name}`").into(),
            Operation::Set { .. } => "a fill".into(),
            Operation::CopyIn { .. } => "a copy from the host".into(),
            Operation::CopyOut { .. } => "a copy to the host".into(),
            Operation::Copy { .. } => "a copy on the card".into(),
            Operation::Call { .. } => "a function of the host's".into(),
        }
    }

    /// Whether code runs on the card; a fault in everything else is the host's own mistake.
    pub(super) fn runs_code(&self) -> bool {
        matches!(self, Operation::Launch(_) | Operation::Library { .. })
    }

    /// Whether it brings bytes of the host's.
    pub(super) fn comes_in(&self) -> bool {
        matches!(self, Operation::CopyIn { .. })
    }

    /// The host memory of a copy: its start and its bytes.
    pub(super) fn host_side(&self) -> Option<(HostAddress, usize)> {
        match self {
            Operation::CopyIn { from, bytes, .. } => Some((*from, *bytes)),
            Operation::CopyOut { to, bytes, .. } => Some((*to, *bytes)),
            _ => None,
        }
    }

    /// Host memory that it may write: its start and its bytes. A function may write all there is.
    pub(super) fn writes_host(&self) -> Option<(usize, usize)> {
        match self {
            Operation::CopyOut { to, bytes, .. } => Some((to.0, *bytes)),
            Operation::Call { .. } => Some((0, usize::MAX)),
            _ => None,
        }
    }

    /// The card's memory of a copy or a fill: starts and bytes.
    pub(super) fn ranges(&self) -> Vec<(u64, u64)> {
        match self {
            Operation::Set {
                address,
                pattern,
                count,
            } => vec![(*address, pattern.len() as u64 * count)],
            Operation::CopyIn { address, bytes, .. }
            | Operation::CopyOut { address, bytes, .. } => vec![(*address, *bytes as u64)],
            Operation::Copy { to, from, bytes } => vec![(*to, *bytes), (*from, *bytes)],
            _ => Vec::new(),
        }
    }
}
