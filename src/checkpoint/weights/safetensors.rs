//! safetensors files: the table of one, and writing one, a chunk at a time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::encode::{Encoder, WeightsDtype};
use super::tensor_file::{StoredTensor, TensorFile};
use crate::checkpoint::CheckpointError;
use crate::ops::backend::{Values, chunks, on_host};

/// Size of the header's length, a little-endian u64 at the start of the file.
const LENGTH_BYTES: u64 = 8;

/// Limit on the header. No real header comes near this; a larger one is damage, not a reason to allocate.
const MAX_HEADER_BYTES: u64 = 100 << 20;

/// The first bytes of the pointer that Git LFS leaves in place of a large file.
const GIT_LFS: &[u8; LENGTH_BYTES as usize] = b"version ";

/// Opens a safetensors file and holds its header against its length.
///
/// # Errors
/// `Io`, and `Unreadable` for a file that is cut short or no safetensors file.
pub(in crate::checkpoint) fn open(path: &Path) -> Result<TensorFile, CheckpointError> {
    let read = || CheckpointError::io("read", path);
    let mut file = File::open(path).map_err(read())?;
    let file_bytes = file.metadata().map_err(read())?.len();
    let damaged = |reason: String| CheckpointError::Unreadable {
        path: path.to_owned(),
        reason,
    };
    let mut length = [0; LENGTH_BYTES as usize];
    if file_bytes < LENGTH_BYTES {
        return Err(damaged("it is too short for a safetensors file".into()));
    }
    file.read_exact(&mut length).map_err(read())?;
    if length == *GIT_LFS {
        return Err(damaged(
            "it is Git LFS's pointer to the file; fetch the file itself with `git lfs pull`".into(),
        ));
    }
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES.min(file_bytes - LENGTH_BYTES) {
        return Err(damaged("it is not a safetensors file".into()));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(read())?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|error| damaged(format!("its header is malformed: {error}")))?;
    let data_start = LENGTH_BYTES + length;
    let expected = data_start + metadata.data_len() as u64;
    if file_bytes != expected {
        return Err(damaged(format!(
            "it has {file_bytes} bytes, its header says {expected}"
        )));
    }
    let tensors = metadata.tensors().into_iter().map(|(name, info)| {
        let stored = StoredTensor {
            dtype: info.dtype,
            shape: info.shape.clone(),
            offset: data_start + info.data_offsets.0 as u64,
        };
        (name, stored)
    });
    Ok(TensorFile::new(path, file, tensors.collect()))
}

/// A tensor to be written.
pub(in crate::checkpoint) struct TensorOut<'a> {
    pub(in crate::checkpoint) name: String,
    /// Shape in the file.
    pub(in crate::checkpoint) shape: Vec<usize>,
    pub(in crate::checkpoint) source: TensorSource<'a>,
}

/// Source of a tensor's elements; a range is that of its values.
pub(in crate::checkpoint) enum TensorSource<'a> {
    /// Values in the order of the file.
    Same(&'a dyn Values, Range<usize>),
    /// A matrix (rows, cols) that the file holds as (cols, rows).
    Transposed(&'a dyn Values, Range<usize>),
    Zeros,
}

/// Failure to write a file.
pub(in crate::checkpoint) enum Failure {
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
pub(in crate::checkpoint) fn write(
    out: &mut impl Write,
    tensors: &[TensorOut],
    dtype: WeightsDtype,
) -> Result<(), Failure> {
    let stored_as = match dtype {
        WeightsDtype::Float32 => Dtype::F32,
        WeightsDtype::Bfloat16 => Dtype::BF16,
    };
    let mut end = 0;
    let infos = tensors.iter().map(|tensor| {
        let start = end;
        end += dtype.bytes() * tensor.shape.iter().product::<usize>();
        let info = TensorInfo {
            dtype: stored_as,
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
    let mut encode = Encoder::new(dtype);
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
            TensorSource::Zeros => encode.write_zeros(out, tensor.shape.iter().product())?,
        }
    }
    Ok(())
}
