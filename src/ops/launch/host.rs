//! Copies between the host's memory and a GPU's.
//!
//! CUDA leaves open whether an asynchronous copy from or to pageable memory has ended when the call returns ("might
//! be synchronous", CUDA Driver API, "API synchronization behavior"). Therefore [`upload`] and [`download`] wait for
//! the stream, and copies that must not wait are made from [`Pinned`] memory, which knows its last copy. These are
//! the only copies between host and GPU: clippy.toml disallows those of cudarc and candle elsewhere.
#![allow(clippy::disallowed_methods)]

use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::sys::CUresult;
use cudarc::driver::{
    CudaContext, CudaEvent, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr,
    DriverError, ValidAsZeroBits, result,
};

/// Copies `from` to the GPU in the order of `stream`, and waits until it is there.
///
/// # Errors
/// The driver's.
///
/// # Panics
/// When `to` is shorter than `from`.
pub fn upload<T: DeviceRepr>(
    stream: &Arc<CudaStream>,
    from: &[T],
    to: &mut impl DevicePtrMut<T>,
) -> Result<(), DriverError> {
    stream.memcpy_htod(from, to)?;
    stream.synchronize()
}

/// Allocates memory on the GPU and uploads `from` to it, as [`upload`] does.
///
/// # Errors
/// The driver's, also when there is no memory.
pub fn upload_new<T: DeviceRepr>(
    stream: &Arc<CudaStream>,
    from: &[T],
) -> Result<CudaSlice<T>, DriverError> {
    let to = stream.clone_htod(from)?;
    stream.synchronize()?;
    Ok(to)
}

/// Copies `from` to the host in the order of `stream`, and waits for it.
///
/// # Errors
/// The driver's.
pub fn download<T: DeviceRepr>(
    stream: &Arc<CudaStream>,
    from: &impl DevicePtr<T>,
) -> Result<Vec<T>, DriverError> {
    let to = stream.clone_dtoh(from)?;
    stream.synchronize()?;
    Ok(to)
}

/// Page-locked memory of the host that is written there and copied to a GPU while the host goes on.
pub struct Pinned<T> {
    memory: NonNull<T>,
    len: usize,
    /// Event recorded behind every copy.
    copied: CudaEvent,
    /// Whether the last copy has not been waited for yet.
    is_sent: bool,
}

impl<T: DeviceRepr + ValidAsZeroBits> Pinned<T> {
    /// `len` zeros.
    ///
    /// # Errors
    /// The driver's; `CUDA_ERROR_OUT_OF_MEMORY` when the host has no memory that can be pinned.
    pub fn new(context: &Arc<CudaContext>, len: usize) -> Result<Self, DriverError> {
        let none_left = DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        let copied = context.new_event(None)?;
        let bytes = size_of::<T>().checked_mul(len).ok_or(none_left)?;
        // SAFETY: the context is this thread's since its event was made; the memory is freed in `drop`.
        let memory = unsafe { result::malloc_host(bytes, 0) }?.cast::<T>();
        let memory = NonNull::new(memory).ok_or(none_left)?;
        // SAFETY: `len` elements were allocated, aligned to a page, and zeros are values of T.
        unsafe { memory.write_bytes(0, len) };
        Ok(Self {
            memory,
            len,
            copied,
            is_sent: false,
        })
    }

    /// The memory, to be written. Waits until the last copy has read it.
    ///
    /// # Errors
    /// The driver's.
    pub fn write(&mut self) -> Result<&mut [T], DriverError> {
        if self.is_sent {
            self.copied.synchronize()?;
            self.is_sent = false;
        }
        // SAFETY: `len` values lie there, and no copy reads them.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) })
    }

    /// Copies all of the memory to the GPU in the order of `stream`, and waits for nothing.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Panics
    /// When `to` is shorter.
    pub fn send(
        &mut self,
        stream: &Arc<CudaStream>,
        to: &mut impl DevicePtrMut<T>,
    ) -> Result<(), DriverError> {
        // SAFETY: `len` values lie there, which nobody writes or frees before `copied` is reached.
        let from = unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) };
        stream.memcpy_htod(from, to)?;
        if let Err(error) = self.copied.record(stream) {
            // The copy is under way, and no event says when it has ended.
            let _ = stream.synchronize();
            return Err(error);
        }
        self.is_sent = true;
        Ok(())
    }

    /// Event that is reached when the last [`Pinned::send`] has been done.
    pub fn copied(&self) -> &CudaEvent {
        &self.copied
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        let context = self.copied.context();
        context.record_err(context.bind_to_thread());
        if self.is_sent {
            context.record_err(self.copied.synchronize());
        }
        // SAFETY: allocated in `new`, and no copy reads it any more.
        context.record_err(unsafe { result::free_host(self.memory.as_ptr().cast()) });
    }
}
