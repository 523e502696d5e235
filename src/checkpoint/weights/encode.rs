//! Numbers on their way into a file: f32 or bf16, a chunk at a time.

use std::io::{self, Write};

use half::bf16;

use super::transpose::{row_blocks, transpose};
use crate::ops::backend::{CHUNK, room};
use crate::terms::Precision;

/// The type of the numbers in a file of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum WeightsDtype {
    /// Every bit of the weights
    #[default]
    Float32,
    /// Half the size: each weight rounded to the nearest bfloat16, of two as near to the even one
    Bfloat16,
}

impl WeightsDtype {
    pub(in crate::checkpoint) fn bytes(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Bfloat16 => 2,
        }
    }

    /// The largest finite number.
    pub(in crate::checkpoint) fn largest(self) -> f32 {
        match self {
            Self::Float32 => Precision::Float32.largest(),
            Self::Bfloat16 => Precision::Bfloat16.largest(),
        }
    }

    /// The name that PyTorch and Hugging Face's `config.json` have for it.
    pub(in crate::checkpoint) fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
        }
    }
}

/// Writes f32 values as little-endian numbers of a type, a chunk at a time.
pub(in crate::checkpoint) struct Encoder {
    dtype: WeightsDtype,
    block: Vec<f32>,
    bytes: Vec<u8>,
}

impl Encoder {
    pub(in crate::checkpoint) fn new(dtype: WeightsDtype) -> Self {
        Self {
            dtype,
            block: Vec::new(),
            bytes: Vec::new(),
        }
    }

    pub(in crate::checkpoint) fn write(
        &mut self,
        out: &mut impl Write,
        values: &[f32],
    ) -> io::Result<()> {
        for chunk in values.chunks(CHUNK) {
            self.bytes.clear();
            let values = chunk.iter();
            match self.dtype {
                WeightsDtype::Float32 => self.bytes.extend(values.flat_map(|x| x.to_le_bytes())),
                WeightsDtype::Bfloat16 => {
                    let rounded = values.flat_map(|x| bf16::from_f32(*x).to_le_bytes());
                    self.bytes.extend(rounded);
                }
            }
            out.write_all(&self.bytes)?;
        }
        Ok(())
    }

    pub(in crate::checkpoint) fn write_zeros(
        &mut self,
        out: &mut impl Write,
        count: usize,
    ) -> io::Result<()> {
        let zeros = vec![0.0; count.min(CHUNK)];
        for start in (0..count).step_by(CHUNK) {
            self.write(out, &zeros[..CHUNK.min(count - start)])?;
        }
        Ok(())
    }

    /// Writes the transpose of `values`, which is (cols, rows) for a file tensor (rows, cols).
    pub(in crate::checkpoint) fn write_transposed(
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
