//! An open file of weights: the table of its tensors, and their values, a chunk at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use super::foreign::ForeignError;
use super::transpose::{row_blocks, transpose};
use crate::checkpoint::CheckpointError;
use crate::ops::backend::{CHUNK, ValuesMut, chunks, room};

/// An open file and the table of its tensors, of whatever format. Whoever made the table has held it against the length
/// of the file.
#[derive(Debug)]
pub(in crate::checkpoint) struct TensorFile {
    pub(in crate::checkpoint) path: PathBuf,
    file: File,
    tensors: BTreeMap<String, StoredTensor>,
}

/// Type, shape and place of a tensor in a file. Its elements are little-endian, in row-major order, without gaps.
#[derive(Clone, Debug)]
pub(in crate::checkpoint) struct StoredTensor {
    pub(in crate::checkpoint) dtype: Dtype,
    pub(in crate::checkpoint) shape: Vec<usize>,
    /// Offset of the first element in the file, in bytes.
    pub(in crate::checkpoint) offset: u64,
}

impl TensorFile {
    pub(in crate::checkpoint) fn new(
        path: &Path,
        file: File,
        tensors: BTreeMap<String, StoredTensor>,
    ) -> Self {
        Self {
            path: path.to_owned(),
            file,
            tensors,
        }
    }

    pub(in crate::checkpoint) fn info(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    /// The names of all tensors.
    pub(in crate::checkpoint) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Refuses a tensor that is absent or has another shape.
    pub(in crate::checkpoint) fn expect_shape(
        &self,
        name: &str,
        expected: &[usize],
    ) -> Result<(), CheckpointError> {
        let found = match self.info(name) {
            Some(info) if info.shape == expected => return Ok(()),
            Some(info) => format!("of shape {:?}", info.shape),
            None => "absent".to_owned(),
        };
        Err(CheckpointError::Tensor {
            path: self.path.clone(),
            name: name.to_owned(),
            found,
            expected: format!("shape {expected:?}"),
        })
    }

    /// Fills `range` of `to` with the first elements of a tensor, widened to f32 and none beyond `limit`.
    pub(in crate::checkpoint) fn read(
        &self,
        name: &str,
        to: &mut dyn ValuesMut,
        range: Range<usize>,
        limit: Limit,
    ) -> Result<(), CheckpointError> {
        let mut elements = self.elements(name, limit)?;
        for range in chunks(range) {
            let chunk = elements.next(range.len())?;
            to.write(range.start, chunk).map_err(self.not_loaded())?;
        }
        Ok(())
    }

    /// Fills `range` of `to`, a matrix (cols, rows), with the transpose of a whole tensor (rows, cols), none of whose
    /// elements is beyond `limit`. It goes by way of `copy` where `to` is not in the host's memory.
    pub(in crate::checkpoint) fn read_transposed(
        &self,
        name: &str,
        [rows, cols]: [usize; 2],
        to: &mut dyn ValuesMut,
        range: Range<usize>,
        copy: &mut Vec<f32>,
        limit: Limit,
    ) -> Result<(), CheckpointError> {
        let mut elements = self.elements(name, limit)?;
        if let Some(all) = to.in_host_memory_mut() {
            return elements.transpose([rows, cols], &mut all[range]);
        }
        let matrix = room(copy, range.len()).map_err(self.not_loaded())?;
        elements.transpose([rows, cols], matrix)?;
        for (range, chunk) in chunks(range).zip(matrix.chunks(CHUNK)) {
            to.write(range.start, chunk).map_err(self.not_loaded())?;
        }
        Ok(())
    }

    /// Fills `range` of `to`, for which the file has no elements, with zeros.
    pub(in crate::checkpoint) fn pad(
        &self,
        to: &mut dyn ValuesMut,
        range: Range<usize>,
    ) -> Result<(), CheckpointError> {
        let zeros = vec![0.0; range.len().min(CHUNK)];
        for range in chunks(range) {
            to.write(range.start, &zeros[..range.len()])
                .map_err(self.not_loaded())?;
        }
        Ok(())
    }

    /// The error of a device that does not take the values, for `map_err`.
    fn not_loaded(&self) -> impl FnOnce(io::Error) -> CheckpointError {
        CheckpointError::io("load", &self.path)
    }

    /// The first position at which a tensor and one of the same shape, in this or another file, differ in a bit.
    pub(in crate::checkpoint) fn first_difference(
        &self,
        name: &str,
        (other_file, other): (&TensorFile, &str),
    ) -> Result<Option<Vec<usize>>, CheckpointError> {
        let place = |file: &TensorFile, name| file.info(name).map(|info| (info.offset, info.dtype));
        if std::ptr::eq(self, other_file) && place(self, name) == place(other_file, other) {
            return Ok(None);
        }
        let shape = self.info(name).map(|info| info.shape.clone());
        let shape = shape.unwrap_or_default();
        let mut one = self.elements(name, Limit::NONE)?;
        let mut another = other_file.elements(other, Limit::NONE)?;
        for range in chunks(0..shape.iter().product()) {
            let pairs = one
                .next(range.len())?
                .iter()
                .zip(another.next(range.len())?);
            let differs = |(one, another): (&f32, &f32)| one.to_bits() != another.to_bits();
            if let Some(at) = pairs.map(differs).position(|differs| differs) {
                return Ok(Some(position(range.start + at, &shape)));
            }
        }
        Ok(None)
    }

    fn elements(&self, name: &str, limit: Limit) -> Result<Elements<'_>, CheckpointError> {
        let refuse = |found: String| CheckpointError::Tensor {
            path: self.path.clone(),
            name: name.to_owned(),
            found,
            expected: "F32, F16 or BF16".into(),
        };
        let info = self.info(name).ok_or_else(|| refuse("absent".into()))?;
        let decode: Decode = match info.dtype {
            Dtype::F32 => |bytes, to| decode(bytes, to, f32::from_le_bytes),
            Dtype::F16 => |bytes, to| decode(bytes, to, |b| f16_to_f32(u16::from_le_bytes(b))),
            Dtype::BF16 => |bytes, to| decode(bytes, to, |b| bf16_to_f32(u16::from_le_bytes(b))),
            other => return Err(refuse(other.to_string())),
        };
        Ok(Elements {
            file: self,
            name: name.to_owned(),
            shape: info.shape.clone(),
            start: info.offset,
            read: 0,
            element_bytes: info.dtype.bitsize() / 8,
            decode,
            limit,
            bytes: Vec::new(),
            values: Vec::new(),
        })
    }
}

/// The largest magnitude that elements may have. NaN has none.
#[derive(Clone, Copy)]
pub(in crate::checkpoint) struct Limit(Option<f32>);

impl Limit {
    /// Elements of any kind, NaN and infinities among them.
    pub(in crate::checkpoint) const NONE: Self = Self(None);

    pub(in crate::checkpoint) fn of(largest: f32) -> Self {
        Self(Some(largest))
    }

    /// The first value beyond the limit.
    fn first_beyond(self, values: &[f32]) -> Option<usize> {
        let largest = self.0?;
        let is_beyond = |value: &f32| value.is_nan() || value.abs() > largest;
        // Without a way out of the loop, it runs at the speed of the memory.
        let any = values
            .iter()
            .fold(false, |any, value| any | is_beyond(value));
        values.iter().position(is_beyond).filter(|_| any)
    }
}

type Decode = fn(&[u8], &mut Vec<f32>);

/// The elements of one tensor, in order.
struct Elements<'a> {
    file: &'a TensorFile,
    name: String,
    shape: Vec<usize>,
    /// Offset of the first element in the file.
    start: u64,
    /// Number of elements that were read.
    read: usize,
    element_bytes: usize,
    decode: Decode,
    limit: Limit,
    bytes: Vec<u8>,
    values: Vec<f32>,
}

impl Elements<'_> {
    fn next(&mut self, count: usize) -> Result<&[f32], CheckpointError> {
        let mut file = &self.file.file;
        let offset = self.start + (self.read * self.element_bytes) as u64;
        self.bytes.resize(count * self.element_bytes, 0);
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut self.bytes))
            .map_err(CheckpointError::io("read", &self.file.path))?;
        self.values.clear();
        (self.decode)(&self.bytes, &mut self.values);
        if let Some(at) = self.limit.first_beyond(&self.values) {
            return Err(self.beyond_limit(at));
        }
        self.read += count;
        Ok(&self.values)
    }

    fn beyond_limit(&self, at: usize) -> CheckpointError {
        ForeignError::Value {
            path: self.file.path.clone(),
            name: self.name.clone(),
            at: position(self.read + at, &self.shape),
            value: self.values[at],
            largest: self.limit.0.unwrap_or(f32::MAX),
        }
        .into()
    }

    /// Fills `to`, a matrix (cols, rows), with the transpose of the tensor (rows, cols).
    fn transpose(
        &mut self,
        [rows, cols]: [usize; 2],
        to: &mut [f32],
    ) -> Result<(), CheckpointError> {
        for at in row_blocks(rows, cols) {
            let block = self.next(at.len() * cols)?;
            transpose(block, cols, &mut to[at.start..], rows, [at.len(), cols]);
        }
        Ok(())
    }
}

/// The indices of element number `at` of a tensor.
fn position(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut indices: Vec<usize> = Vec::new();
    for &size in shape.iter().rev() {
        indices.insert(0, at % size.max(1));
        at /= size.max(1);
    }
    indices
}

fn decode<const N: usize>(bytes: &[u8], to: &mut Vec<f32>, one: impl Fn([u8; N]) -> f32) {
    to.extend(bytes.as_chunks::<N>().0.iter().map(|&bytes| one(bytes)));
}

fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// IEEE 754 binary16: 5 exponent bits with bias 15, 10 fraction bits.
fn f16_to_f32(bits: u16) -> f32 {
    let bits = u32::from(bits);
    let (sign, magnitude) = ((bits & 0x8000) << 16, (bits & 0x7fff) << 13);
    let value = match bits & 0x7c00 {
        0x7c00 => f32::from_bits(magnitude | 0x7f80_0000), // infinity and NaN
        // The exponent is short of f32's bias by 127 - 15; multiplying also normalises subnormals.
        _ => f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23),
    };
    f32::from_bits(value.to_bits() | sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_is_widened_as_the_standard_says() {
        for bits in 0..=u16::MAX {
            let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
            let magnitude = match exponent {
                31 if fraction == 0.0 => f64::INFINITY,
                31 => f64::NAN,
                0 => fraction / 1024.0 * 2f64.powi(-14),
                _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
            };
            let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
            let (expected, found) = ((sign * magnitude) as f32, f16_to_f32(bits));
            let same = expected.to_bits() == found.to_bits();
            assert!(
                same || expected.is_nan() && found.is_nan(),
                "{bits:#x}: {found}"
            );
        }
    }
}
