//! Buffers in the memory of the host.

use std::fmt;

use crate::memory::{AllocationError, Allocator, Group, Memory, Refused};
use crate::ops::loops::Element;
use crate::terms::Precision;

/// An [`Allocator`] of host memory. `T` stands for every precision: f32, or f64 in tests.
#[derive(Debug)]
pub struct Host<'a, T> {
    memory: &'a mut Memory,
    element: std::marker::PhantomData<T>,
}

impl<'a, T> Host<'a, T> {
    pub fn new(memory: &'a mut Memory) -> Self {
        Self {
            memory,
            element: std::marker::PhantomData,
        }
    }
}

impl<T: Element> Allocator for Host<'_, T> {
    type Compute = Vec<T>;
    type Full = Vec<T>;
    type Ids = Vec<u32>;
    type Error = AllocationError;

    fn precision(&self) -> Precision {
        Precision::Float32
    }

    fn compute(
        &mut self,
        group: Group,
        name: fmt::Arguments,
        len: usize,
    ) -> Result<Vec<T>, AllocationError> {
        buffer(self.memory, group, name, len, T::ZERO)
    }

    fn full(
        &mut self,
        group: Group,
        name: fmt::Arguments,
        len: usize,
    ) -> Result<Vec<T>, AllocationError> {
        buffer(self.memory, group, name, len, T::ZERO)
    }

    fn ids(
        &mut self,
        group: Group,
        name: fmt::Arguments,
        len: usize,
    ) -> Result<Vec<u32>, AllocationError> {
        buffer(self.memory, group, name, len, 0)
    }
}

fn buffer<T: Copy>(
    memory: &mut Memory,
    group: Group,
    name: fmt::Arguments,
    len: usize,
    zero: T,
) -> Result<Vec<T>, AllocationError> {
    memory.buffer::<_, T>(group, name, len, || {
        let mut buffer = Vec::new();
        buffer
            .try_reserve_exact(len)
            .map_err(|_| Refused::OutOfMemory)?;
        // Writing the zeros touches every page now, rather than in the first step.
        buffer.resize(len, zero);
        Ok(buffer)
    })
}
