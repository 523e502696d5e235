//! Events: a place in a stream, with the time when the card got there, or a place in a capture.

use std::ffi::c_uint;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::capture::Mark;
use super::counts::Wait;
use super::guard::{Outcome, with_context, write};
use super::queue::{Point, Task};
use super::result::CuResult;
use super::state::{Driver, Objects, new_handle};

/// `CU_EVENT_DISABLE_TIMING`.
const DISABLE_TIMING: c_uint = 2;
/// `CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS`.
const FLAGS: c_uint = 7;

/// An event that the program made.
pub struct Event {
    flags: c_uint,
    pub recorded: Recorded,
}

/// Where the event was recorded last.
pub enum Recorded {
    Never,
    At {
        point: Point,
        /// Nothing before it is reached.
        time: Arc<OnceLock<Instant>>,
    },
    Captured(Mark),
}

impl Objects {
    fn event(&mut self, handle: usize) -> Outcome<&mut Event> {
        let event = self.events.get_mut(&handle);
        event.ok_or(CuResult::ERROR_INVALID_HANDLE)
    }
}

/// # Safety
/// `event` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut usize, flags: c_uint) -> CuResult {
    with_context(|driver| {
        if flags & !FLAGS != 0 {
            return Err(CuResult::ERROR_INVALID_VALUE);
        }
        let handle = new_handle();
        // SAFETY: as the caller promises.
        unsafe { write(event, handle) }?;
        let recorded = Recorded::Never;
        driver
            .objects()
            .events
            .insert(handle, Event { flags, recorded });
        Ok(())
    })
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventDestroy_v2(event: usize) -> CuResult {
    with_context(|driver| {
        let removed = driver.objects().events.remove(&event);
        removed.map(|_| ()).ok_or(CuResult::ERROR_INVALID_HANDLE)
    })
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventRecord(event: usize, stream: usize) -> CuResult {
    with_context(|driver| {
        let mut objects = driver.objects();
        let into = objects.stream_ref(stream)?;
        objects.event(event)?;
        let mark = objects.captures.mark(into.key)?;
        drop(objects);
        let recorded = match mark {
            Some(mark) => Recorded::Captured(mark),
            None => {
                let time = Arc::default();
                let point = driver.mark(&into, &[], Task::Record(Arc::clone(&time)));
                Recorded::At { point, time }
            }
        };
        driver.objects().event(event)?.recorded = recorded;
        Ok(())
    })
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventQuery(event: usize) -> CuResult {
    with_context(|driver| {
        let point = match &driver.objects().event(event)?.recorded {
            Recorded::Captured(_) => return Err(CuResult::ERROR_CAPTURED_EVENT),
            Recorded::Never => return Ok(()),
            Recorded::At { point, .. } => point.clone(),
        };
        driver.reached(event, &point)
    })
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventSynchronize(event: usize) -> CuResult {
    with_context(|driver| {
        let point = match &driver.objects().event(event)?.recorded {
            Recorded::Captured(_) => return Err(CuResult::ERROR_CAPTURED_EVENT),
            Recorded::Never => return Err(driver.never_recorded("the host")),
            Recorded::At { point, .. } => point.clone(),
        };
        driver.wait_for(&point, Wait::Event)?;
        driver.settle();
        Ok(())
    })
}

/// Milliseconds from one event to another.
///
/// # Safety
/// `milliseconds` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime_v2(
    milliseconds: *mut f32,
    start: usize,
    end: usize,
) -> CuResult {
    with_context(|driver| {
        let (start, end) = (time_of(driver, start)?, time_of(driver, end)?);
        let elapsed = match end.checked_duration_since(start) {
            Some(elapsed) => elapsed.as_secs_f64(),
            None => -(start - end).as_secs_f64(),
        };
        // SAFETY: as the caller promises.
        unsafe { write(milliseconds, (elapsed * 1e3) as f32) }
    })
}

/// When the card got to an event.
fn time_of(driver: &Driver, handle: usize) -> Outcome<Instant> {
    let (point, time) = match driver.objects().event(handle)? {
        Event {
            recorded: Recorded::Captured(_),
            ..
        } => return Err(CuResult::ERROR_CAPTURED_EVENT),
        Event {
            recorded: Recorded::At { point, time },
            flags,
        } if *flags & DISABLE_TIMING == 0 => (point.clone(), Arc::clone(time)),
        _ => return Err(CuResult::ERROR_INVALID_HANDLE),
    };
    driver.reached(handle, &point)?;
    time.get().copied().ok_or(CuResult::ERROR_NOT_READY)
}

/// # Safety
/// As `cuEventElapsedTime_v2`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime(
    milliseconds: *mut f32,
    start: usize,
    end: usize,
) -> CuResult {
    // SAFETY: as the caller promises.
    unsafe { cuEventElapsedTime_v2(milliseconds, start, end) }
}
