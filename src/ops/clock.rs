//! Clocks of devices.

use std::time::Instant;

use crate::memory::Refused;

/// Measures how long a device takes, in the order in which work is given to it.
pub trait Clock {
    /// Marks the moment at which all work given to the device before is done. Waits for nothing.
    ///
    /// # Errors
    /// The device's failure.
    fn mark(&mut self) -> Result<(), Refused>;
    /// Seconds from each mark with an even number to the one after it, in order. Forgets the marks. Waits for the
    /// device.
    ///
    /// # Errors
    /// The device's failure.
    fn laps(&mut self) -> Result<Vec<f64>, Refused>;
}

/// Clock of the CPU, which has done its work when an operation returns.
#[derive(Default)]
pub struct HostClock {
    marks: Vec<Instant>,
}

impl Clock for HostClock {
    fn mark(&mut self) -> Result<(), Refused> {
        self.marks.push(Instant::now());
        Ok(())
    }

    fn laps(&mut self) -> Result<Vec<f64>, Refused> {
        let laps = self.marks.chunks_exact(2);
        let laps = laps.map(|lap| (lap[1] - lap[0]).as_secs_f64()).collect();
        self.marks.clear();
        Ok(laps)
    }
}
