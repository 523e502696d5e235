//! Questions to the CUDA driver that need no context, and settings of a context.

use candle_core::CudaDevice;
use cudarc::driver::{CudaContext, sys};

/// Most bytes of text that bind.c keeps.
const REASONS_BYTES: usize = 2048;

unsafe extern "C" {
    // SAFETY: bind.c writes no more than `capacity` bytes to `text`, and returns how many.
    safe fn taper_cuda_missing(text: &mut [u8; REASONS_BYTES], capacity: usize) -> usize;
}

/// CUDA's libraries and functions that were called but not found so far: one line each, with the reason. They
/// are looked for when they are first called; see build/cuda_imports.rs.
pub fn missing() -> Option<String> {
    let mut text = [0; REASONS_BYTES];
    let length = taper_cuda_missing(&mut text, REASONS_BYTES);
    (length > 0).then(|| String::from_utf8_lossy(&text[..length]).into_owned())
}

/// GPUs that the driver counts; none where there is no driver.
pub fn device_count() -> u32 {
    CudaContext::device_count().map_or(0, i32::unsigned_abs)
}

/// The newest CUDA version that the driver supports, (major, minor).
pub fn supported_version() -> Option<(u32, u32)> {
    let mut version = 0;
    // SAFETY: writes one int, and needs no context.
    let status = unsafe { sys::cuDriverGetVersion(&mut version) };
    let version = u32::try_from(version).ok()?;
    // 13000 is 13.0.
    status.result().ok()?;
    Some((version / 1000, version % 1000 / 10))
}

/// Stops launches from recording events for their arrays, which would take time and cannot be captured.
pub fn without_event_tracking(device: &CudaDevice) {
    // SAFETY: a run puts all work in the device's one stream and waits for copies with the host. Copies in its other
    // stream are ordered by events that the run records itself (docs/streams.md).
    unsafe { device.disable_event_tracking() }
}
