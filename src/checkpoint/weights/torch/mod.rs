//! Files of PyTorch's `torch.save`: a zip archive with a pickle of the object and an entry for each storage.
//!
//! | entry | contents |
//! |---|---|
//! | `NAME/data.pkl` | the object, a pickle that refers to storages by their keys |
//! | `NAME/data/KEY` | the elements of a storage, uncompressed |
//! | `NAME/byteorder` | `little` or `big`; absent before PyTorch 2.1, when it was `little` |
//!
//! [`Saved`](tensors::Saved) is an open file; its tensors are byte ranges of it. Nothing of the pickle is executed: an
//! object of a class that a checkpoint does not need is known by the name of its class alone. Format: PyTorch's
//! `torch/serialization.py` and `caffe2/serialize/inline_container.h`.

mod archive;
mod error;
mod object;
mod pickle;
pub(in crate::checkpoint) mod tensors;
pub(in crate::checkpoint) mod write;

pub use error::{TorchError, TorchFlaw};
pub(in crate::checkpoint) use object::View;
