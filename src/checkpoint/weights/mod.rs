//! The weights of a model, in the formats of every program that taper exchanges them with.
//!
//! A format is read by listing its tensors: [`TensorFile`](tensor_file::TensorFile) is an open file and the name, type,
//! shape and offset of each. [`Pretrained`](pretrained::Pretrained) is a model whose files are listed and whose sizes are known; it alone turns
//! what a file holds into taper's layout.

pub(in crate::checkpoint) mod encode;
pub(in crate::checkpoint) mod foreign;
pub(in crate::checkpoint) mod gpt2_config;
pub(in crate::checkpoint) mod hub;
pub(in crate::checkpoint) mod huggingface;
pub(in crate::checkpoint) mod llmc;
pub(in crate::checkpoint) mod pretrained;
pub(in crate::checkpoint) mod safetensors;
pub(in crate::checkpoint) mod stored_values;
pub(in crate::checkpoint) mod tensor_file;
mod tensor_names;
mod transpose;
