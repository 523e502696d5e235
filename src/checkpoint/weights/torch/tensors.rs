//! The tensors of a saved object: byte ranges of its file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use super::archive::Archive;
use super::error::{TorchError, TorchFlaw};
use super::object::{Pickle, Storage, Tensor, View};
use super::pickle;
use crate::checkpoint::CheckpointError;
use crate::checkpoint::weights::tensor_file::{StoredTensor, TensorFile};
use crate::checkpoint::weights::tensor_names::is_buffer;

/// An open file of `torch.save`, and the object in it.
#[derive(Debug)]
pub(in crate::checkpoint) struct Saved {
    path: PathBuf,
    archive: Archive,
    pickle: Pickle,
}

/// The tensors of a dictionary, and the names of its other values.
pub(in crate::checkpoint) struct Table {
    pub(in crate::checkpoint) tensors: BTreeMap<String, StoredTensor>,
    pub(in crate::checkpoint) left_out: Vec<String>,
}

impl Saved {
    /// Opens a file and reads its object.
    ///
    /// # Errors
    /// `Io`, and `Torch` for a file that is damaged or of another format.
    pub(in crate::checkpoint) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let archive = Archive::open(path)?;
        let pickle =
            pickle::read(&archive.pickle).map_err(|why| TorchFlaw::Pickle(why).of(path))?;
        Ok(Self {
            path: path.to_owned(),
            archive,
            pickle,
        })
    }

    pub(in crate::checkpoint) fn root(&self) -> View<'_> {
        self.pickle.root()
    }

    /// The tensors of a state dictionary, by their names. A causal mask need not be readable.
    ///
    /// # Errors
    /// `Tensor` for one that does not lie in the file as a whole, in row-major order.
    pub(in crate::checkpoint) fn table(&self, state: View) -> Result<Table, TorchError> {
        let mut table = Table {
            tensors: BTreeMap::new(),
            left_out: Vec::new(),
        };
        for (key, value) in state.items() {
            let Some(name) = key.text() else {
                table.left_out.push(key.kind());
                continue;
            };
            if !value.is_tensor() {
                table.left_out.push(name.to_owned());
                continue;
            }
            match self.stored(name, value) {
                Ok(stored) => drop(table.tensors.insert(name.to_owned(), stored)),
                Err(_) if is_buffer(name) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(table)
    }

    /// Type, shape and place of a tensor.
    ///
    /// # Errors
    /// `Tensor`.
    pub(in crate::checkpoint) fn stored(
        &self,
        name: &str,
        value: View,
    ) -> Result<StoredTensor, TorchError> {
        let refuse = |found: String, expected: &str| {
            let (name, expected) = (name.to_owned(), expected.to_owned());
            let flaw = TorchFlaw::Tensor {
                name,
                found,
                expected,
            };
            flaw.of(&self.path)
        };
        let Some((tensor, storage)) = value.tensor() else {
            return Err(refuse(value.kind(), "a tensor"));
        };
        let Some(dtype) = storage.dtype else {
            return Err(refuse(
                "of another type".into(),
                "float32, float16 or bfloat16",
            ));
        };
        if !is_contiguous(tensor) {
            let found = format!(
                "stored with strides {:?} for {:?}",
                tensor.strides, tensor.shape
            );
            return Err(refuse(found, "its rows one after another"));
        }
        self.place(tensor, storage, dtype).ok_or_else(|| {
            let found = format!(
                "{:?} elements of storage `{}` from {} on, which are not all in the file",
                tensor.shape, storage.key, tensor.offset
            );
            refuse(found, "all of them")
        })
    }

    /// The place of a tensor, if all of it lies in the entry of its storage.
    fn place(&self, tensor: &Tensor, storage: &Storage, dtype: Dtype) -> Option<StoredTensor> {
        let entry = self.archive.entries.get(&format!("data/{}", storage.key))?;
        let element_bytes = dtype.bitsize() as u64 / 8;
        let mut count = tensor.shape.iter();
        let count = count.try_fold(1u64, |count, &size| count.checked_mul(size))?;
        let end = tensor.offset.checked_add(count)?;
        let end_bytes = end.checked_mul(element_bytes)?;
        if end > storage.elements || end_bytes > entry.end - entry.start {
            return None;
        }
        let shape = tensor.shape.iter().map(|&size| usize::try_from(size).ok());
        Some(StoredTensor {
            dtype,
            shape: shape.collect::<Option<_>>()?,
            offset: entry.start + tensor.offset * element_bytes,
        })
    }

    /// A number, or a tensor of one number.
    pub(in crate::checkpoint) fn number(&self, value: View) -> Option<f64> {
        if value.float().is_some() {
            return value.float();
        }
        let stored = self.stored("", value).ok()?;
        if stored.shape.iter().product::<usize>() != 1 {
            return None;
        }
        let mut bytes = [0; 8];
        let bytes = &mut bytes[..stored.dtype.bitsize() / 8];
        let mut file = &self.archive.file;
        file.seek(SeekFrom::Start(stored.offset)).ok()?;
        file.read_exact(bytes).ok()?;
        Some(match (stored.dtype, &*bytes) {
            (Dtype::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]).into(),
            (Dtype::F16, &[a, b]) => half::f16::from_le_bytes([a, b]).into(),
            (Dtype::BF16, &[a, b]) => half::bf16::from_le_bytes([a, b]).into(),
            (Dtype::F64, bytes) => f64::from_le_bytes(bytes.try_into().ok()?),
            (Dtype::I64, bytes) => i64::from_le_bytes(bytes.try_into().ok()?) as f64,
            _ => return None,
        })
    }

    /// The same file with tensors that were found in it.
    ///
    /// # Errors
    /// `Io`.
    pub(in crate::checkpoint) fn with(
        &self,
        tensors: BTreeMap<String, StoredTensor>,
    ) -> Result<TensorFile, CheckpointError> {
        let file: File = self
            .archive
            .file
            .try_clone()
            .map_err(CheckpointError::io("read", &self.path))?;
        Ok(TensorFile::new(&self.path, file, tensors))
    }
}

/// Whether the elements lie one after another, in row-major order.
fn is_contiguous(tensor: &Tensor) -> bool {
    let mut distance = Some(1u64);
    let is_empty = tensor.shape.contains(&0);
    let dimensions = tensor.shape.iter().zip(&tensor.strides).rev();
    is_empty
        || dimensions
            .filter(|(size, _)| **size != 1)
            .all(|(&size, &stride)| {
                let fits = distance == Some(stride);
                distance = distance.and_then(|distance| distance.checked_mul(size));
                fits
            })
}

/// Opens transformers' `pytorch_model.bin`: a dictionary of tensors.
///
/// # Errors
/// Those of [`Saved::open`] and [`Saved::table`]; `Object` for another object.
pub(in crate::checkpoint) fn open_state(
    path: &Path,
) -> Result<(TensorFile, Vec<String>), CheckpointError> {
    let saved = Saved::open(path)?;
    let root = saved.root();
    if !root.is_dict() {
        let flaw = TorchFlaw::Object {
            found: root.kind(),
            expected: "a dictionary of tensors",
        };
        return Err(flaw.of(path).into());
    }
    let Table { tensors, left_out } = saved.table(root)?;
    Ok((saved.with(tensors)?, left_out))
}
