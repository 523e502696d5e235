//! Buffers on a GPU as the values that checkpoints read and write.

use std::io;
use std::sync::Arc;

use cudarc::driver::{CudaSlice, CudaStream, DriverError};

use super::{OnGpu, cast};
use crate::memory::Refused;
use crate::ops::backend::{StoredBackend, Values, ValuesMut};
use crate::ops::launch::host::{download, upload};
use crate::ops::launch::{GpuElement, is_out_of_memory};

/// Values of type `T` in a GPU's memory, to read. Copies wait for the work before them.
struct OnDevice<'a, T> {
    stream: &'a Arc<CudaStream>,
    values: &'a CudaSlice<T>,
}

/// Values of type `T` in a GPU's memory, to write. Copies wait for the work before them.
struct OnDeviceMut<'a, T> {
    stream: &'a Arc<CudaStream>,
    values: &'a mut CudaSlice<T>,
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

impl<T: GpuElement> ValuesMut for OnDeviceMut<'_, T> {
    fn len(&self) -> usize {
        self.values.len()
    }

    fn write(&mut self, start: usize, from: &[f32]) -> io::Result<()> {
        let host: Vec<T> = from.iter().map(|&value| T::from_full(value)).collect();
        let mut part = self.values.slice_mut(start..start + from.len());
        upload(self.stream, &host, &mut part).map_err(failed)
    }
}

impl<T: GpuElement> StoredBackend for OnGpu<T> {
    fn values<'a>(&'a self, buffer: &'a CudaSlice<f32>) -> Box<dyn Values + 'a> {
        Box::new(OnDevice {
            stream: self.gpu().stream(),
            values: buffer,
        })
    }

    fn values_mut<'a>(&'a self, buffer: &'a mut CudaSlice<f32>) -> Box<dyn ValuesMut + 'a> {
        Box::new(OnDeviceMut {
            stream: self.gpu().stream(),
            values: buffer,
        })
    }

    fn weights<'a>(&'a self, weights: &'a CudaSlice<T>) -> Box<dyn Values + 'a> {
        Box::new(OnDevice {
            stream: self.gpu().stream(),
            values: weights,
        })
    }

    fn weights_mut<'a>(&'a self, weights: &'a mut CudaSlice<T>) -> Box<dyn ValuesMut + 'a> {
        Box::new(OnDeviceMut {
            stream: self.gpu().stream(),
            values: weights,
        })
    }

    fn round(&self, master: &CudaSlice<f32>, weights: &mut CudaSlice<T>) -> Result<(), Refused> {
        let (master, mut weights) = (master.as_view(), weights.as_view_mut());
        Ok(cast::cast(self.gpu(), &master, &mut weights)?)
    }
}
