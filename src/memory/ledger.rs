//! The account of a run's buffers, and the limit on it.

use std::fmt::{self, Debug};
use std::io;

use super::{AllocationError, Group, OutOfMemory, Row, total_bytes};
use crate::faults::{Fault, Faults, Site};

/// Memory of a device that keeps freed buffers until it is trimmed.
pub trait Pool: Debug + Send + Sync {
    /// Waits for work under way, and gives back memory that no buffer uses. A failure shows in the next
    /// allocation.
    fn trim(&self);
}

/// Buffers that a run holds on its device, and the limit on their bytes.
#[derive(Debug, Default)]
pub struct Memory {
    rows: Vec<Row>,
    /// Bytes held beside the rows: the process itself and its libraries.
    reserve_bytes: u64,
    limit_bytes: Option<u64>,
    faults: Faults,
    pool: Option<Box<dyn Pool>>,
}

impl Memory {
    /// An account that refuses a buffer which would bring the rows and the reserve above the limit.
    pub fn limited(limit_bytes: Option<u64>, reserve_bytes: u64, faults: Faults) -> Self {
        Self {
            rows: Vec::new(),
            reserve_bytes,
            limit_bytes,
            faults,
            pool: None,
        }
    }

    /// The same account, kept for memory of this pool.
    pub fn in_pool(self, pool: impl Pool + 'static) -> Self {
        Self {
            pool: Some(Box::new(pool)),
            ..self
        }
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub fn held_bytes(&self) -> u64 {
        self.reserve_bytes.saturating_add(total_bytes(&self.rows))
    }

    /// Bytes left below the limit; `None` without a limit.
    pub fn room_bytes(&self) -> Option<u64> {
        Some(self.limit_bytes?.saturating_sub(self.held_bytes()))
    }

    /// Passes `site`, before work that takes memory of its own from a device. On the CPU no work does, and
    /// only an injected fault refuses.
    pub fn enter(&mut self, site: Site) -> Result<(), AllocationError> {
        self.check(site, format_args!("{site}"), 0)
    }

    /// Forgets the rows after the first `count`, whose buffers were dropped.
    pub(crate) fn release_to(&mut self, count: usize) {
        self.rows.truncate(count);
        if let Some(pool) = &self.pool {
            pool.trim();
        }
    }

    /// The error for the device's refusal at `site`.
    pub fn refusal(&self, site: Site, refused: Refused) -> AllocationError {
        self.explain(site, site.to_string(), 0, refused)
    }

    fn explain(&self, site: Site, name: String, bytes: u64, refused: Refused) -> AllocationError {
        match refused {
            Refused::OutOfMemory => AllocationError::from(OutOfMemory {
                site,
                name,
                bytes,
                held: self.held_bytes(),
                limit: None,
            }),
            Refused::Device(reason) => AllocationError::Device { site, reason },
            Refused::Interrupted => AllocationError::Interrupted,
        }
    }

    fn check(
        &mut self,
        site: Site,
        name: fmt::Arguments,
        bytes: u64,
    ) -> Result<(), AllocationError> {
        let refused = |held, limit| OutOfMemory {
            site,
            name: name.to_string(),
            bytes,
            held,
            limit,
        };
        match self.faults.at(site) {
            Some(Fault::OutOfMemory) => return Err(refused(self.held_bytes(), None).into()),
            Some(Fault::Device) => {
                let reason = "a fault was injected".into();
                return Err(AllocationError::Device { site, reason });
            }
            None => {}
        }
        // Summed only where it can matter: a step passes here several times and must not be slowed.
        match self.limit_bytes {
            Some(limit) if bytes > 0 && self.held_bytes().saturating_add(bytes) > limit => {
                Err(refused(self.held_bytes(), Some(limit)).into())
            }
            _ => Ok(()),
        }
    }

    /// Makes a buffer of `len` elements with `make` and enters it in the account, if no fault and no limit
    /// refuses it.
    pub(crate) fn buffer<T, E>(
        &mut self,
        group: Group,
        name: fmt::Arguments,
        len: usize,
        make: impl FnOnce() -> Result<T, Refused>,
    ) -> Result<T, AllocationError> {
        let bytes = (len as u64).saturating_mul(size_of::<E>() as u64);
        self.check(Site::Launch, name, bytes)?;
        let buffer = make()
            .map_err(|refused| self.explain(Site::Launch, name.to_string(), bytes, refused))?;
        self.rows.push(Row {
            group,
            name: name.to_string(),
            bytes,
        });
        Ok(buffer)
    }
}

/// A device's refusal to make a buffer or to do some work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    OutOfMemory,
    /// Somebody asked to stop; nothing is wrong with the device.
    Interrupted,
    /// Any other failure, in words.
    Device(String),
}

/// Tells a failure to move values by its kind, never by its text.
impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::OutOfMemory => Self::OutOfMemory,
            _ => Self::Device(error.to_string()),
        }
    }
}
