//! What the card can be given to do, now or when a graph is launched.

use std::ffi::c_void;
use std::sync::Arc;

use super::guard::Outcome;
use super::launch::Launch;
use super::state::Driver;
use crate::fault::Fault;
use crate::memory::Memory;

/// Work in plain code on the card's memory.
pub type Work = Arc<dyn Fn(&Memory) -> Result<(), Fault> + Send + Sync>;

/// Something to do on the card.
#[derive(Clone)]
pub enum Operation {
    Launch(Launch),
    /// What a library was asked for.
    Library(Work),
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
    /// Does it.
    fn run(&self, driver: &Driver, memory: &Memory) -> Result<(), Fault> {
        match self {
            Operation::Launch(launch) => launch.run(memory, &driver.limits),
            Operation::Library(work) => work(memory),
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
                // SAFETY: the caller of the copy promised that these bytes may be read.
                let from = unsafe { std::slice::from_raw_parts(from.0 as *const u8, *bytes) };
                memory.copy_in(*address, from)
            }
            Operation::CopyOut { to, address, bytes } => {
                // SAFETY: the caller of the copy promised that these bytes may be written.
                let to = unsafe { std::slice::from_raw_parts_mut(to.0 as *mut u8, *bytes) };
                memory.copy_out(*address, to)
            }
            Operation::Copy { to, from, bytes } => memory.copy(*to, *from, *bytes),
            Operation::Call { function, argument } => {
                function(argument.0 as *mut c_void);
                Ok(())
            }
        }
    }

    /// Whether a fault in it is the host's own mistake, which the call returns.
    fn is_copy(&self) -> bool {
        !matches!(self, Operation::Launch(_) | Operation::Library(_))
    }
}

impl Driver {
    /// Gives a stream something to do: it is done now, or written down if the stream is captured.
    pub fn submit(&self, stream: usize, operation: Operation) -> Outcome {
        let mut objects = self.objects();
        let key = objects.stream_key(stream)?;
        let now = objects.captures.record(key, operation)?;
        drop(objects);
        now.map_or(Ok(()), |operation| self.perform(&operation))
    }

    /// Does something now.
    pub(super) fn perform(&self, operation: &Operation) -> Outcome {
        match operation.is_copy() {
            true => self.attempt(|memory| operation.run(self, memory)),
            false => self.execute(|memory| operation.run(self, memory)),
        }
    }
}
