//! Clock of a GPU: events in the stream of its work.

use std::cell::RefCell;
use std::sync::Arc;

use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaEvent, CudaStream, DriverError};

use super::Clock;
use crate::memory::Refused;

/// Clock of one stream. It keeps events that were read for the next marks.
pub struct EventClock {
    stream: Arc<CudaStream>,
    free: RefCell<Vec<CudaEvent>>,
}

impl EventClock {
    pub fn new(stream: &Arc<CudaStream>) -> Self {
        Self {
            stream: stream.clone(),
            free: RefCell::default(),
        }
    }
}

impl Clock for EventClock {
    /// An event, or a failure that shows when the mark is read.
    type Mark = Result<CudaEvent, DriverError>;

    fn mark(&self) -> Self::Mark {
        let free = self.free.borrow_mut().pop();
        let event = match free {
            Some(event) => event,
            None => {
                let flags = Some(CUevent_flags::CU_EVENT_DEFAULT);
                self.stream.context().new_event(flags)?
            }
        };
        event.record(&self.stream)?;
        Ok(event)
    }

    fn seconds(&self, [start, end]: [Self::Mark; 2]) -> Result<f64, Refused> {
        let (start, end) = (start?, end?);
        let milliseconds = start.elapsed_ms(&end)?;
        self.free.borrow_mut().extend([start, end]);
        Ok(f64::from(milliseconds) / 1e3)
    }
}
