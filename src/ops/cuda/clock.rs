//! Clock of a GPU: events in the stream of its work.

use std::sync::Arc;

use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaEvent, CudaStream, DriverError};

use crate::memory::Refused;
use crate::ops::backend::Done;
use crate::ops::clock::Clock;

/// Clock of one stream. It keeps events that were read for the next marks.
pub(super) struct EventClock {
    stream: Arc<CudaStream>,
    marks: Vec<CudaEvent>,
    free: Vec<CudaEvent>,
}

impl EventClock {
    pub fn new(stream: &Arc<CudaStream>) -> Self {
        Self {
            stream: stream.clone(),
            marks: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl Clock for EventClock {
    fn mark(&mut self) -> Done {
        let event = match self.free.pop() {
            Some(event) => event,
            None => {
                let flags = Some(CUevent_flags::CU_EVENT_DEFAULT);
                self.stream.context().new_event(flags)?
            }
        };
        event.record(&self.stream)?;
        self.marks.push(event);
        Ok(())
    }

    fn laps(&mut self) -> Result<Vec<f64>, Refused> {
        let laps = self.marks.chunks_exact(2).map(|lap| {
            let milliseconds = lap[0].elapsed_ms(&lap[1])?;
            Ok(f64::from(milliseconds) / 1e3)
        });
        let laps: Result<_, DriverError> = laps.collect();
        self.free.append(&mut self.marks);
        Ok(laps?)
    }
}
