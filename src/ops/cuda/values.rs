//! Buffers on a GPU as the values that checkpoints read and write.

use std::io;
use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DriverError};

use crate::ops::backend::{Buffer, Values, ValuesMut};
use crate::ops::launch::host::{download, upload};
use crate::ops::launch::{GpuElement, is_out_of_memory};

/// Values of type `T` in a GPU's memory. Copies wait for the work before them.
struct OnDevice<'a, T> {
    stream: &'a Arc<CudaStream>,
    values: &'a mut CudaSlice<T>,
}

/// The values of a buffer of fp32 or `T`.
pub(super) fn values<'a, T: GpuElement>(
    stream: &'a Arc<CudaStream>,
    buffer: &'a mut Buffer,
) -> Box<dyn ValuesMut + 'a> {
    if buffer.get_mut::<CudaSlice<f32>>().is_some() {
        return on_device::<f32>(stream, buffer);
    }
    on_device::<T>(stream, buffer)
}

fn on_device<'a, T: GpuElement>(
    stream: &'a Arc<CudaStream>,
    buffer: &'a mut Buffer,
) -> Box<dyn ValuesMut + 'a> {
    match buffer.get_mut::<CudaSlice<T>>() {
        Some(values) => Box::new(OnDevice { stream, values }),
        None => unreachable!("not a buffer of numbers on a GPU"),
    }
}

fn failed(error: DriverError) -> io::Error {
    if is_out_of_memory(&error) {
        io::Error::new(io::ErrorKind::OutOfMemory, error.to_string())
    } else {
        io::Error::other(error.to_string())
    }
}

impl<T: GpuElement> Values for OnDevice<'_, T> {
    fn len(&self) -> usize {
        self.values.len()
    }

    fn read(&self, start: usize, to: &mut [f32]) -> io::Result<()> {
        let part = self.values.slice(start..start + to.len());
        let host = download(self.stream, &part).map_err(failed)?;
        for (to, value) in to.iter_mut().zip(host) {
            *to = value.to_full();
        }
        Ok(())
    }
}

impl<T: GpuElement> ValuesMut for OnDevice<'_, T> {
    fn write(&mut self, start: usize, from: &[f32]) -> io::Result<()> {
        let host: Vec<T> = from.iter().map(|&value| T::from_full(value)).collect();
        let mut part = self.values.slice_mut(start..start + from.len());
        upload(self.stream, &host, &mut part).map_err(failed)
    }
}
