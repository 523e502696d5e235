//! Clocks of devices.

use std::time::Instant;

use crate::memory::Refused;

/// Measures how long a device takes, in the order in which work is given to it.
pub trait Clock {
    /// The moment at which all work given to the device before is done.
    type Mark;

    /// Marks this moment. Waits for nothing.
    fn mark(&self) -> Self::Mark;
    /// Seconds from the first mark to the second; both are used up. Waits for the device.
    ///
    /// # Errors
    /// The device's failure.
    fn seconds(&self, marks: [Self::Mark; 2]) -> Result<f64, Refused>;
}

/// Clock of the CPU, which has done its work when an operation returns.
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
