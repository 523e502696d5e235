//! Buffers in the memory of the host.

use std::io;

use crate::memory::{AllocationError, Memory, Refused, has_spare};
use crate::ops::backend::{Buffer, BufferSpec, ElementType, Values, ValuesMut};
use crate::ops::loops::Element;

/// A buffer of zeros. `T` stands for every precision: f32, or f64 in tests.
///
/// # Errors
/// When its memory is refused.
pub fn allocate<T: Element>(
    spec: &BufferSpec,
    memory: &mut Memory,
) -> Result<Buffer, AllocationError> {
    Ok(match spec.element {
        ElementType::Compute | ElementType::Full => Buffer::new(zeros(spec, T::ZERO, memory)?),
        ElementType::Id => Buffer::new(zeros(spec, 0u32, memory)?),
    })
}

pub(super) fn zeros<T: Copy>(
    spec: &BufferSpec,
    zero: T,
    memory: &mut Memory,
) -> Result<Vec<T>, AllocationError> {
    memory.buffer::<_, T>(spec.group, format_args!("{}", spec.name), spec.len, || {
        let mut buffer = Vec::new();
        buffer
            .try_reserve_exact(spec.len)
            .map_err(|_| Refused::OutOfMemory)?;
        if !has_spare() {
            return Err(Refused::OutOfMemory);
        }
        // Writing the zeros touches every page now, rather than in the first step.
        buffer.resize(spec.len, zero);
        Ok(buffer)
    })
}

/// The values of a buffer of `T`.
pub(super) fn values<'a, T: Element>(buffer: &'a mut Buffer) -> Box<dyn ValuesMut + 'a> {
    if buffer.get_mut::<Vec<f32>>().is_some() {
        // Looked up again: a borrow that is returned lasts to the end.
        return match buffer.get_mut::<Vec<f32>>() {
            Some(values) => Box::new(values.as_mut_slice()),
            None => unreachable!("it was just there"),
        };
    }
    match buffer.get_mut::<Vec<T>>() {
        Some(values) => Box::new(Rounded(values)),
        None => unreachable!("values of another backend's buffer"),
    }
}

/// Values of another type than f32.
struct Rounded<'a, T>(&'a mut [T]);

impl<T: Element> Values for Rounded<'_, T> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn read(&self, start: usize, to: &mut [f32]) -> io::Result<()> {
        for (to, value) in to.iter_mut().zip(&self.0[start..]) {
            *to = value.widen() as f32;
        }
        Ok(())
    }
}

impl<T: Element> ValuesMut for Rounded<'_, T> {
    fn write(&mut self, start: usize, from: &[f32]) -> io::Result<()> {
        for (value, &from) in self.0[start..].iter_mut().zip(from) {
            *value = T::of(f64::from(from));
        }
        Ok(())
    }
}
