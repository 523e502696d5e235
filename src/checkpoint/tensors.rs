//! Writing a safetensors file, a chunk at a time.

use std::collections::HashMap;
use std::io::{self, Write};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::transpose::{row_blocks, transpose};

/// Elements per chunk; 256 KiB of f32 stay in L2.
pub(super) const CHUNK: usize = 64 * 1024;

/// An f32 tensor to be written.
pub(super) struct TensorOut<'a> {
    pub(super) name: String,
    /// As in the file.
    pub(super) shape: Vec<usize>,
    pub(super) values: Values<'a>,
}

pub(super) enum Values<'a> {
    Same(&'a [f32]),
    /// A matrix (rows, cols) that the file holds as (cols, rows).
    Transposed(&'a [f32]),
    Zeros,
}

/// Writes a complete safetensors file, tensors in the order given.
pub(super) fn write(out: &mut impl Write, tensors: &[TensorOut]) -> io::Result<()> {
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
    let mut header = serde_json::to_vec(&metadata)?;
    // The data must start at a multiple of 8 bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    let mut encode = Encoder::default();
    for tensor in tensors {
        match tensor.values {
            Values::Same(values) => encode.write(out, values)?,
            Values::Transposed(values) => encode.write_transposed(out, values, &tensor.shape)?,
            Values::Zeros => encode.write(out, &vec![0.0; tensor.shape.iter().product()])?,
        }
    }
    Ok(())
}

/// Turns f32 into bytes, a chunk at a time.
#[derive(Default)]
struct Encoder {
    block: Vec<f32>,
    bytes: Vec<u8>,
}

impl Encoder {
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
        let mut block = std::mem::take(&mut self.block);
        for at in row_blocks(rows, cols) {
            block.resize(at.len() * cols, 0.0);
            transpose(
                &values[at.start..],
                rows,
                &mut block,
                cols,
                [cols, at.len()],
            );
            self.write(out, &block)?;
        }
        self.block = block;
        Ok(())
    }
}
