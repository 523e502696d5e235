//! Buffers in the memory of a GPU.

use std::fmt;

use candle_core::CudaDevice;
use cudarc::driver::{CudaContext, CudaSlice, DeviceRepr, DriverError, ValidAsZeroBits, result};

use crate::memory::{AllocationError, Allocator, Group, Memory, Pool, Refused};
use crate::ops::launch::{GpuElement, is_out_of_memory};
use crate::terms::Precision;

/// An [`Allocator`] of a GPU's memory. `T` is the type that the model computes in.
#[derive(Debug)]
pub struct GpuMemory<'a, T> {
    device: &'a CudaDevice,
    memory: &'a mut Memory,
    element: std::marker::PhantomData<T>,
}

impl<'a, T> GpuMemory<'a, T> {
    pub fn new(device: &'a CudaDevice, memory: &'a mut Memory) -> Self {
        Self {
            device,
            memory,
            element: std::marker::PhantomData,
        }
    }

    fn buffer<E: DeviceRepr + ValidAsZeroBits>(
        &mut self,
        group: Group,
        name: fmt::Arguments,
        len: usize,
    ) -> Result<CudaSlice<E>, AllocationError> {
        let stream = self.device.cuda_stream();
        self.memory.buffer::<_, E>(group, name, len, || {
            stream.alloc_zeros(len).map_err(Refused::from)
        })
    }
}

impl<T: GpuElement> Allocator for GpuMemory<'_, T> {
    type Compute = CudaSlice<T>;
    type Full = CudaSlice<f32>;
    type Ids = CudaSlice<u32>;
    type Error = AllocationError;

    fn precision(&self) -> Precision {
        T::PRECISION
    }

    fn compute(
        &mut self,
        group: Group,
        name: fmt::Arguments,
        len: usize,
    ) -> Result<CudaSlice<T>, AllocationError> {
        self.buffer(group, name, len)
    }

    fn full(
        &mut self,
        group: Group,
        name: fmt::Arguments,
        len: usize,
    ) -> Result<CudaSlice<f32>, AllocationError> {
        self.buffer(group, name, len)
    }

    fn ids(
        &mut self,
        group: Group,
        name: fmt::Arguments,
        len: usize,
    ) -> Result<CudaSlice<u32>, AllocationError> {
        self.buffer(group, name, len)
    }
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
