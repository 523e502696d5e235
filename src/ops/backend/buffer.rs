//! Buffers in the memory of a device.

use std::any::{Any, type_name};
use std::cell::{Ref, RefCell, RefMut};

/// A buffer, or other state, in the memory of a device; only the backend that made it knows its type.
///
/// It is borrowed while an operation uses it, so that no operation writes what it reads.
pub struct Buffer(RefCell<Box<dyn Any>>);

impl Buffer {
    pub fn new<B: 'static>(buffer: B) -> Self {
        Self(RefCell::new(Box::new(buffer)))
    }

    /// The buffer, to read.
    ///
    /// # Panics
    /// If another backend made it, or an operation is writing it: a defect of the caller.
    pub fn read<B: 'static>(&self) -> Ref<'_, B> {
        Ref::map(self.0.borrow(), |buffer| expect(buffer.downcast_ref()))
    }

    /// The buffer, to write.
    ///
    /// # Panics
    /// Those of [`Buffer::read`].
    pub fn write<B: 'static>(&self) -> RefMut<'_, B> {
        RefMut::map(self.0.borrow_mut(), |buffer| expect(buffer.downcast_mut()))
    }

    /// The buffer itself, if it is of type `B`.
    pub fn get_mut<B: 'static>(&mut self) -> Option<&mut B> {
        self.0.get_mut().downcast_mut()
    }
}

fn expect<B>(buffer: Option<B>) -> B {
    buffer.unwrap_or_else(|| unreachable!("another backend's buffer, not a {}", type_name::<B>()))
}
