//! fp32 values that checkpoints are made from and read into, in the host's memory or in a device's.
//!
//! A device's values pass through the host a [`CHUNK`] at a time. Only a matrix that Hugging Face
//! stores transposed is held there whole, one at a time, and memory for it may be refused.

use std::io;
use std::ops::Range;

/// The most values that are handed over at once; 256 KiB stay in L2.
pub const CHUNK: usize = 64 * 1024;

/// Values in a row that a checkpoint is made from, wherever they lie.
pub trait Values: Sync {
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `to`, of at most [`CHUNK`] values, with those from `start` on. Comes from any thread, and
    /// while another reads.
    ///
    /// # Errors
    /// Those of the device; `OutOfMemory` is a refusal that a smaller launch may help.
    fn read(&self, start: usize, to: &mut [f32]) -> io::Result<()>;

    /// All of them, where the host has them: saves the copies.
    fn in_host_memory(&self) -> Option<&[f32]> {
        None
    }
}

/// Values in a row that a checkpoint is read into, too.
pub trait ValuesMut: Values {
    /// Replaces the values from `start` on by `from`, which are at most [`CHUNK`].
    ///
    /// # Errors
    /// Those of [`Values::read`].
    fn write(&mut self, start: usize, from: &[f32]) -> io::Result<()>;

    /// All of them, to change, where the host has them.
    fn in_host_memory_mut(&mut self) -> Option<&mut [f32]> {
        None
    }
}

impl Values for &[f32] {
    fn len(&self) -> usize {
        <[f32]>::len(self)
    }

    fn read(&self, start: usize, to: &mut [f32]) -> io::Result<()> {
        to.copy_from_slice(&self[start..][..to.len()]);
        Ok(())
    }

    fn in_host_memory(&self) -> Option<&[f32]> {
        Some(self)
    }
}

impl Values for Vec<f32> {
    fn len(&self) -> usize {
        Values::len(&self.as_slice())
    }

    fn read(&self, start: usize, to: &mut [f32]) -> io::Result<()> {
        self.as_slice().read(start, to)
    }

    fn in_host_memory(&self) -> Option<&[f32]> {
        Some(self)
    }
}

impl Values for &mut [f32] {
    fn len(&self) -> usize {
        <[f32]>::len(self)
    }

    fn read(&self, start: usize, to: &mut [f32]) -> io::Result<()> {
        (&**self).read(start, to)
    }

    fn in_host_memory(&self) -> Option<&[f32]> {
        Some(self)
    }
}

impl ValuesMut for &mut [f32] {
    fn write(&mut self, start: usize, from: &[f32]) -> io::Result<()> {
        self[start..][..from.len()].copy_from_slice(from);
        Ok(())
    }

    fn in_host_memory_mut(&mut self) -> Option<&mut [f32]> {
        Some(self)
    }
}

impl ValuesMut for Vec<f32> {
    fn write(&mut self, start: usize, from: &[f32]) -> io::Result<()> {
        self.as_mut_slice().write(start, from)
    }

    fn in_host_memory_mut(&mut self) -> Option<&mut [f32]> {
        Some(self)
    }
}

/// `range`, a [`CHUNK`] at a time.
pub(crate) fn chunks(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range
        .step_by(CHUNK)
        .map(move |start| start..(start + CHUNK).min(end))
}

/// The values in `range`: the host's own, or a copy of them in `copy`.
pub(crate) fn on_host<'a>(
    values: &'a dyn Values,
    range: Range<usize>,
    copy: &'a mut Vec<f32>,
) -> io::Result<&'a [f32]> {
    if let Some(all) = values.in_host_memory() {
        return Ok(&all[range]);
    }
    let copy = room(copy, range.len())?;
    for (range, to) in chunks(range).zip(copy.chunks_mut(CHUNK)) {
        values.read(range.start, to)?;
    }
    Ok(copy)
}

/// The first `len` values of `buffer`, which is made as long as that. Memory for it may be refused, and
/// the old values are never held beside the new.
pub(crate) fn room(buffer: &mut Vec<f32>, len: usize) -> io::Result<&mut [f32]> {
    if buffer.len() < len {
        *buffer = Vec::new();
        buffer.try_reserve_exact(len)?;
        buffer.resize(len, 0.0);
    }
    Ok(&mut buffer[..len])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_the_host_does_not_have_is_refused_with_a_type() {
        for len in [1 << 58, usize::MAX] {
            let refusal = room(&mut vec![1.0], len).unwrap_err();
            assert_eq!(refusal.kind(), io::ErrorKind::OutOfMemory);
        }
    }

    #[test]
    fn chunks_follow_one_another_to_the_end() {
        for len in [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let mut at = 5;
            for chunk in chunks(5..5 + len) {
                assert_eq!(chunk.start, at);
                assert!((1..=CHUNK).contains(&chunk.len()));
                at = chunk.end;
            }
            assert_eq!(at, 5 + len);
        }
    }
}
