//! What tells how long a device takes.

use std::time::Instant;

use crate::memory::Refused;

/// Tells when a device gets where, in the order in which work is given to it.
pub trait Clock {
    /// When all that was given to the device before is done.
    type Mark;

    /// Waits for nothing.
    fn mark(&self) -> Self::Mark;
    /// From the first mark to the second, which are not needed any more. Waits for the device.
    ///
    /// # Errors
    /// What the device says.
    fn seconds(&self, marks: [Self::Mark; 2]) -> Result<f64, Refused>;
}

/// That of the CPU, which has done its work when an operation returns.
pub struct HostClock;

impl Clock for HostClock {
    type Mark = Instant;

    fn mark(&self) -> Instant {
        Instant::now()
    }

    fn seconds(&self, [start, end]: [Instant; 2]) -> Result<f64, Refused> {
        Ok((end - start).as_secs_f64())
    }
}
