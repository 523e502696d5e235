//! Writing a safetensors file, a chunk at a time.

use std::collections::HashMap;
use std::io::{self, Write};
use std::ops::Range;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::transpose::{row_blocks, transpose};
use crate::ops::backend::{CHUNK, Values, chunks, on_host, room};

/// An f32 tensor to be written.
pub(super) struct TensorOut<'a> {
    pub(super) name: String,
    /// Shape in the file.
    pub(super) shape: Vec<usize>,
    pub(super) source: TensorSource<'a>,
}

/// Source of a tensor's elements; a range is that of its values.
pub(super) enum TensorSource<'a> {
    /// Values in the order of the file.
    Same(&'a dyn Values, Range<usize>),
    /// A matrix (rows, cols) that the file holds as (cols, rows).
    Transposed(&'a dyn Values, Range<usize>),
    Zeros,
}

/// Failure to write a file.
pub(super) enum Failure {
    /// Writing to the file failed.
    File(io::Error),
    /// Fetching the values failed.
    Values(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

/// Writes a complete safetensors file, tensors in the order given.
pub(super) fn write(out: &mut impl Write, tensors: &[TensorOut]) -> Result<(), Failure> {
    let mut end = 0;
    let infos = tensors.iter().map(|tensor| {
        let start = end;
        end += 4 * tensor.shape.iter().product::<usize>();
        let info = TensorInfo {
            dtype: Dtype::F32,
            shape: tensor.shape.clone(),
            data_offsets: (start, end),
        };
        (tensor.name.clone(), info)
    });
    // transformers refuses a file that does not say which framework's layout it has.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(format), infos.collect()).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&metadata).map_err(io::Error::from)?;
    // The data must start at a multiple of 8 bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    let mut encode = F32Encoder::default();
    let mut copy = Vec::new();
    for tensor in tensors {
        match &tensor.source {
            TensorSource::Same(values, range) => {
                for range in chunks(range.clone()) {
                    let chunk = on_host(*values, range, &mut copy).map_err(Failure::Values)?;
                    encode.write(out, chunk)?;
                }
            }
            TensorSource::Transposed(values, range) => {
                let matrix = on_host(*values, range.clone(), &mut copy).map_err(Failure::Values)?;
                encode.write_transposed(out, matrix, &tensor.shape)?;
            }
            TensorSource::Zeros => encode.write(out, &vec![0.0; tensor.shape.iter().product()])?,
        }
    }
    Ok(())
}

/// Writes f32 as little-endian bytes, a chunk at a time.
#[derive(Default)]
struct F32Encoder {
    block: Vec<f32>,
    bytes: Vec<u8>,
}

impl F32Encoder {
    fn write(&mut self, out: &mut impl Write, values: &[f32]) -> io::Result<()> {
        for chunk in values.chunks(CHUNK) {
            self.bytes.clear();
            self.bytes
                .extend(chunk.iter().flat_map(|x| x.to_le_bytes()));
            out.write_all(&self.bytes)?;
        }
        Ok(())
    }

    /// `values` is (cols, rows) for a file tensor (rows, cols).
    fn write_transposed(
        &mut self,
        out: &mut impl Write,
        values: &[f32],
        file_shape: &[usize],
    ) -> io::Result<()> {
        let &[rows, cols] = file_shape else {
            return Err(io::Error::other("only a matrix has a transpose"));
        };
        let mut buffer = std::mem::take(&mut self.block);
        for at in row_blocks(rows, cols) {
            let block = room(&mut buffer, at.len() * cols)?;
            transpose(&values[at.start..], rows, block, cols, [cols, at.len()]);
            self.write(out, block)?;
        }
        self.block = buffer;
        Ok(())
    }
}
