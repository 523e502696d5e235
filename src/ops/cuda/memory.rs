//! Buffers in the memory of a GPU.

use candle_core::CudaDevice;
use cudarc::driver::{CudaContext, CudaSlice, DeviceRepr, DriverError, ValidAsZeroBits, result};

use crate::memory::{AllocationError, Memory, Pool, Refused};
use crate::ops::backend::{Buffer, BufferSpec, ElementType};
use crate::ops::launch::{GpuElement, is_out_of_memory};

/// A buffer of zeros in the memory of `device`. `T` is the type that the model computes in.
///
/// # Errors
/// When its memory is refused.
pub fn allocate<T: GpuElement>(
    device: &CudaDevice,
    spec: &BufferSpec,
    memory: &mut Memory,
) -> Result<Buffer, AllocationError> {
    Ok(match spec.element {
        ElementType::Compute => Buffer::new(slice::<T>(device, spec, memory)?),
        ElementType::Full => Buffer::new(slice::<f32>(device, spec, memory)?),
        ElementType::Id => Buffer::new(slice::<u32>(device, spec, memory)?),
    })
}

/// A buffer of zeros of type `E`.
pub(super) fn slice<E: DeviceRepr + ValidAsZeroBits>(
    device: &CudaDevice,
    spec: &BufferSpec,
    memory: &mut Memory,
) -> Result<CudaSlice<E>, AllocationError> {
    let (stream, name) = (device.cuda_stream(), &spec.name);
    memory.buffer::<_, E>(spec.group, format_args!("{name}"), spec.len, || {
        stream.alloc_zeros(spec.len).map_err(Refused::from)
    })
}

impl From<DriverError> for Refused {
    fn from(error: DriverError) -> Self {
        if is_out_of_memory(&error) {
            Refused::OutOfMemory
        } else {
            Refused::Device(error.to_string())
        }
    }
}

impl Pool for CudaDevice {
    fn trim(&self) {
        // A failure here shows again, and is reported, at the next allocation.
        let _ = trim_pool(self.cuda_stream().context());
    }
}

/// Waits for the work of this context, then gives back the memory of its pool that no buffer uses.
pub fn trim_pool(context: &CudaContext) -> Result<(), DriverError> {
    context.synchronize()?;
    // SAFETY: the pool belongs to the context's device, which exists as long as the context; only
    // memory that was freed before the wait is given back.
    unsafe {
        let pool = result::device::get_mem_pool(context.cu_device())?;
        result::mem_pool::trim_to(pool, 0)
    }
}
