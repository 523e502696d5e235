//! What a kernel, or a copy, did wrong: where, and what to look at.

use std::fmt;

/// A wrong act on the card. A kernel that faults is stopped, like a sticky error on a real one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The instruction at fault; `None` for copies, sets and frees that the host asked for.
    pub place: Option<Place>,
    /// The address it used, if it used one.
    pub address: Option<u64>,
    pub what: What,
}

/// Where in a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub kernel: String,
    /// Line of the PTX text, from 1; 0 for the launch itself.
    pub line: u32,
    pub block: [u32; 3],
    pub thread: [u32; 3],
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum What {
    #[error("no kernel `{0}` in the module")]
    NoSuchKernel(String),
    #[error("launch refused: {0}")]
    Launch(String),
    #[error("{bytes} bytes lie outside every allocation")]
    Unmapped { bytes: u64 },
    #[error("{bytes} bytes at offset {offset} of an allocation of {size} bytes")]
    OutOfBounds { bytes: u64, offset: i64, size: u64 },
    #[error("{bytes} bytes of an allocation that was freed by {by}")]
    Freed { bytes: u64, by: String },
    #[error("no order between operations: {this} what {other}")]
    Unordered { this: String, other: String },
    #[error("{copy} still reads host memory that the host has {how}")]
    HostChanged { copy: String, how: &'static str },
    #[error("{copy} has still to write host memory that the host has {how}")]
    HostUsed { copy: String, how: &'static str },
    #[error("{waiter} waits for an event that was never recorded")]
    NeverRecorded { waiter: String },
    #[error("free of an address that no allocation starts at")]
    NotAnAllocation,
    #[error("{bytes} bytes outside the block's {size} bytes of shared memory")]
    SharedBounds { bytes: u64, size: u64 },
    #[error("{bytes} bytes outside the thread's {size} bytes of {space} memory")]
    OwnBounds {
        bytes: u64,
        size: u64,
        space: &'static str,
    },
    #[error("misaligned access of {bytes} bytes")]
    Misaligned { bytes: u64 },
    #[error("read of {space} memory that was never written")]
    NeverWritten { space: &'static str },
    #[error("write to {0} memory, which is read-only")]
    ReadOnly(&'static str),
    #[error(
        "race in shared memory: {this} here, {other} by thread {thread} at PTX line {line}, no barrier between"
    )]
    SharedRace {
        this: &'static str,
        other: &'static str,
        thread: u32,
        line: u32,
    },
    #[error(
        "race in global memory: {this} here, {other} by block {block} in the same launch, without atomics"
    )]
    GlobalRace {
        this: &'static str,
        other: &'static str,
        block: u32,
    },
    #[error("shared memory that `cp.async` still fills (issued at PTX line {line}) is {how}")]
    StillCopying { how: &'static str, line: u32 },
    #[error(
        "{this} of shared memory that the bulk copy of PTX line {line} wrote, its mbarrier not waited for"
    )]
    NotAwaited { this: &'static str, line: u32 },
    #[error("shared memory that {reader} (PTX line {line}) still reads is written")]
    StillRead { reader: &'static str, line: u32 },
    #[error(
        "the async proxy does not see what thread {thread} wrote at PTX line {line}: no proxy fence between"
    )]
    NoProxyFence { thread: u32, line: u32 },
    #[error("{how} of the mbarrier that lies here, as if it were data")]
    OfBarrier { how: &'static str },
    #[error("deadlock: nobody in the block can go on; {0}")]
    Deadlock(String),
    #[error("`wgmma`: {0}")]
    Wgmma(String),
    #[error("barrier divergence: {0}")]
    BarrierDivergence(String),
    #[error("{0}: not every lane of its mask takes part")]
    WarpDivergence(String),
    #[error("the source lane {0} does not take part")]
    InactiveLane(u32),
    #[error("trap")]
    Trap,
    #[error("device assertion failed: {0}")]
    Assert(String),
    #[error("device function `{0}` is not executed here")]
    DeviceFunction(String),
    #[error("the warp does not end: {0} instructions")]
    Endless(u64),
    #[error("{0}")]
    Undefined(String),
}

impl What {
    /// What to look at first.
    pub fn hint(&self) -> &'static str {
        match self {
            What::Unmapped { .. } => {
                "is the pointer null, a host pointer, or built from a wrong stride?"
            }
            What::OutOfBounds { .. } | What::SharedBounds { .. } | What::OwnBounds { .. } => {
                "compare the index with the size: an off-by-one, or a missing `if (i < n)`"
            }
            What::Freed { .. } => {
                "the buffer was dropped before the work that uses it was given to the card"
            }
            What::Unordered { .. } => {
                "record an event behind the one that comes first, and let the other's stream wait for it"
            }
            What::HostChanged { .. } => {
                "wait on the host for an event behind the copy before the memory is written or freed"
            }
            What::HostUsed { .. } => {
                "synchronise with the copy's stream before the memory is read, used again or freed"
            }
            What::NeverRecorded { .. } => {
                "the wait returns at once, whatever it was meant to wait for: record the event first"
            }
            What::Misaligned { .. } => {
                "vector accesses need addresses that are multiples of their size"
            }
            What::NeverWritten { .. } => {
                "an earlier kernel left this output unwritten, or nothing was copied here"
            }
            What::SharedRace { .. } => {
                "put `__syncthreads()` (or `__syncwarp()` within a warp) between the two"
            }
            What::GlobalRace { .. } => "use atomics, or a second launch",
            What::StillCopying { .. } => {
                "`cp.async.wait_group`, then `__syncthreads()`, before using it"
            }
            What::NotAwaited { .. } => {
                "wait for the phase of the very mbarrier that the copy completes, before using it"
            }
            What::StillRead { .. } => {
                "`wgmma.wait_group` or `cp.async.bulk.wait_group.read` first, then tell the writer"
            }
            What::NoProxyFence { .. } => {
                "`fence.proxy.async` in each thread that writes (`fence.mbarrier_init` after an init), then a barrier"
            }
            What::OfBarrier { .. } => "use the `mbarrier` instructions, and `inval` it at its end",
            What::Deadlock(_) => {
                "compare arrivals, `expect_tx` and the bytes copied; is the phase's parity right?"
            }
            What::Wgmma(_) => {
                "`wgmma.fence` before the first product, `wgmma.wait_group` before using what it gives"
            }
            What::BarrierDivergence(_) => {
                "every thread of the block must reach the same `__syncthreads()`"
            }
            What::WarpDivergence(_) | What::InactiveLane(_) => {
                "the mask must name exactly the lanes that get here"
            }
            What::Endless(_) => {
                "a loop whose condition never becomes false, or a wait for another block"
            }
            _ => "",
        }
    }

    /// As a fault that no address says more about.
    pub(crate) fn alone(self) -> Fault {
        Fault {
            place: None,
            address: None,
            what: self,
        }
    }

    /// As a fault of the host's own doing.
    pub(crate) fn by_host(self, address: u64) -> Fault {
        Fault {
            place: None,
            address: Some(address),
            what: self,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if let Some(address) = self.address {
            write!(f, " (address {address:#x})")?;
        }
        if let Some(Place {
            kernel,
            line,
            block,
            thread,
        }) = &self.place
        {
            let ([bx, by, bz], [tx, ty, tz]) = (block, thread);
            write!(
                f,
                ", kernel `{kernel}` PTX line {line} block ({bx},{by},{bz}) thread ({tx},{ty},{tz})"
            )?;
        }
        match self.what.hint() {
            "" => Ok(()),
            hint => write!(f, "; hint: {hint}"),
        }
    }
}

impl std::error::Error for Fault {}
