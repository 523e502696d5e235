//! llm.c's model files, in and out.
//!
//! A file is a header of 256 little-endian i32 and the parameters without gaps: a tensor of every layer's weights, then
//! the next tensor. Sources: `write_model` in llm.c's `train_gpt2.py`, `gpt2_build_from_checkpoint` in its
//! `train_gpt2.cu`.
//!
//! | integer | meaning |
//! |---|---|
//! | 0 | 20240326 |
//! | 1 | version: 3 for f32, 5 for bf16 |
//! | 2 to 7 | T, V, L, H, C, and the rows of the token embedding, which are V padded |
//!
//! The model has biases everywhere, GELU's tanh approximation, no dropout, and a head that is the token embedding.
//! Matrices are (out, in).

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::ops::RangeInclusive;
use std::path::Path;

use safetensors::Dtype;

use super::encode::{Encoder, WeightsDtype};
use super::foreign::ForeignError;
use super::gpt2_config::{LAYERS, SIZES};
use super::pretrained::{Matrices, Pretrained};
use super::safetensors::Failure;
use super::tensor_file::{StoredTensor, TensorFile};
use crate::checkpoint::CheckpointError;
use crate::model::ParamLayout;
use crate::ops::backend::{Values, chunks, on_host};
use crate::terms::{Gelu, ModelDims};

/// The first integer of a model file.
pub(in crate::checkpoint) const MODEL_MAGIC: i32 = 20_240_326;

const HEADER_INTEGERS: usize = 256;
const HEADER_BYTES: usize = 4 * HEADER_INTEGERS;

/// Multiple that llm.c pads the vocabulary to.
const VOCAB_MULTIPLE: usize = 128;

/// Each version with the type of its numbers.
const VERSIONS: [(i32, WeightsDtype, Dtype); 2] = [
    (3, WeightsDtype::Float32, Dtype::F32),
    (5, WeightsDtype::Bfloat16, Dtype::BF16),
];

const WTE: &str = "transformer.wte.weight";
const WPE: &str = "transformer.wpe.weight";

/// Parameters of a block in the file's order, each with its shape in multiples of C. A vector has no second size.
const OF_BLOCK: [(&str, usize, Option<usize>); 12] = [
    ("ln_1.weight", 1, None),
    ("ln_1.bias", 1, None),
    ("attn.c_attn.weight", 3, Some(1)),
    ("attn.c_attn.bias", 3, None),
    ("attn.c_proj.weight", 1, Some(1)),
    ("attn.c_proj.bias", 1, None),
    ("ln_2.weight", 1, None),
    ("ln_2.bias", 1, None),
    ("mlp.c_fc.weight", 4, Some(1)),
    ("mlp.c_fc.bias", 4, None),
    ("mlp.c_proj.weight", 1, Some(4)),
    ("mlp.c_proj.bias", 1, None),
];

/// Parameters of the last norm, vectors of C.
const LAST: [&str; 2] = ["transformer.ln_f.weight", "transformer.ln_f.bias"];

/// Names and shapes in the order of the file. The token embedding has its rows in the file, padding included.
fn parameters(dims: &ModelDims, padded_vocab: usize) -> Vec<(String, Vec<usize>)> {
    let c = dims.n_embd;
    let mut all = vec![
        (WTE.to_owned(), vec![padded_vocab, c]),
        (WPE.to_owned(), vec![dims.block_size, c]),
    ];
    for (name, rows, cols) in OF_BLOCK {
        let shape = [Some(rows * c), cols.map(|cols| cols * c)];
        let shape: Vec<usize> = shape.into_iter().flatten().collect();
        all.extend(
            (0..dims.n_layer).map(|layer| (format!("transformer.h.{layer}.{name}"), shape.clone())),
        );
    }
    all.extend(LAST.map(|name| (name.to_owned(), vec![c])));
    all
}

/// Opens a model file. Its length is that of the sizes in its header; values are not read yet.
///
/// # Errors
/// `Unreadable` for a file that is cut short, or sizes that are no model's; `Foreign` for another version; `Io`.
pub(in crate::checkpoint) fn open(path: &Path) -> Result<Pretrained, CheckpointError> {
    let read = || CheckpointError::io("read", path);
    let mut file = File::open(path).map_err(read())?;
    let file_bytes = file.metadata().map_err(read())?.len();
    let damaged = |reason: String| CheckpointError::Unreadable {
        path: path.to_owned(),
        reason,
    };
    if file_bytes < HEADER_BYTES as u64 {
        let reason =
            format!("it has {file_bytes} bytes, llm.c's header alone takes {HEADER_BYTES}");
        return Err(damaged(reason));
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header).map_err(read())?;
    let header: Vec<i32> = header
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| i32::from_le_bytes(*bytes))
        .collect();
    let Some((_, dtype, stored_as)) = VERSIONS
        .into_iter()
        .find(|(version, ..)| *version == header[1])
    else {
        return Err(ForeignError::LlmCVersion {
            path: path.to_owned(),
            version: header[1],
        }
        .into());
    };
    let (dims, padded_vocab) = sizes(&header).map_err(damaged)?;
    let expected = HEADER_BYTES as u64 + elements(&dims, padded_vocab) * dtype.bytes() as u64;
    if file_bytes != expected {
        return Err(damaged(format!(
            "it has {file_bytes} bytes, the sizes in its header take {expected}"
        )));
    }
    let mut offset = HEADER_BYTES as u64;
    let mut tensors = BTreeMap::new();
    for (name, mut shape) in parameters(&dims, padded_vocab) {
        let stored_elements: usize = shape.iter().product();
        if name == WTE {
            shape[0] = dims.vocab_size;
        }
        let dtype_bytes = dtype.bytes();
        let tensor = StoredTensor {
            dtype: stored_as,
            shape,
            offset,
        };
        tensors.insert(name, tensor);
        offset += (stored_elements * dtype_bytes) as u64;
    }
    let file = TensorFile::new(path, file, tensors);
    Pretrained::new(path, dims, vec![file], Matrices::OutIn)
}

/// The sizes in a header, and the rows of its token embedding; the error is the first that no model has.
fn sizes(header: &[i32]) -> Result<(ModelDims, usize), String> {
    let size = |at: usize, name: &str, range: RangeInclusive<usize>| {
        let found = usize::try_from(header[at]).ok();
        found.filter(|size| range.contains(size)).ok_or_else(|| {
            let (least, most) = range.into_inner();
            let found = header[at];
            format!(
                "`{name}` in its header is {found}, expected a whole number from {least} to {most}"
            )
        })
    };
    let vocab_size = size(3, "vocab_size", SIZES)?;
    let (n_head, n_embd) = (size(5, "num_heads", SIZES)?, size(6, "channels", SIZES)?);
    if !n_embd.is_multiple_of(n_head) {
        return Err(format!(
            "`num_heads` in its header is {n_head}, expected a divisor of `channels`, which is {n_embd}"
        ));
    }
    let dims = ModelDims {
        n_layer: size(4, "num_layers", LAYERS)?,
        n_head,
        n_embd,
        block_size: size(2, "max_seq_len", SIZES)?,
        vocab_size,
        bias: true,
        dropout: 0.0,
        gelu: Gelu::Tanh,
    };
    let padded = size(7, "padded_vocab_size", vocab_size..=2 * SIZES.end())?;
    Ok((dims, padded))
}

/// Elements in a file: (Vp + T) C + L (12 C^2 + 13 C) + 2 C. No product overflows within the limits on the sizes.
fn elements(dims: &ModelDims, padded_vocab: usize) -> u64 {
    let number = |size: usize| size as u64;
    let (c, layers) = (number(dims.n_embd), number(dims.n_layer));
    let rows = number(padded_vocab) + number(dims.block_size) + 2;
    rows * c + layers * (12 * c * c + 13 * c)
}

/// The rows of the token embedding in a file that is written: `vocab_size` padded as llm.c pads it.
pub(in crate::checkpoint) fn padded_vocab(vocab_size: usize) -> usize {
    vocab_size.next_multiple_of(VOCAB_MULTIPLE)
}

/// Writes a model file. Biases that the model does not have are zeros, as are the rows that pad its vocabulary.
///
/// # Panics
/// When `weights` is not as long as the layout of `dims`: a defect of the caller.
pub(in crate::checkpoint) fn write(
    out: &mut impl Write,
    dims: &ModelDims,
    weights: &dyn Values,
    dtype: WeightsDtype,
) -> Result<(), Failure> {
    let layout = ParamLayout::new(dims);
    assert_eq!(weights.len(), layout.len, "`weights` has another layout");
    let places: HashMap<&str, _> = layout
        .params
        .iter()
        .map(|param| (param.name.as_str(), param.range()))
        .collect();
    let padded_vocab = padded_vocab(dims.vocab_size);
    out.write_all(&header(dims, padded_vocab, dtype)?)?;
    let mut encoder = Encoder::new(dtype);
    let mut copy = Vec::new();
    for (name, shape) in parameters(dims, padded_vocab) {
        let range = places.get(name.as_str()).cloned().unwrap_or_default();
        let padding = shape.iter().product::<usize>() - range.len();
        for range in chunks(range) {
            let chunk = on_host(weights, range, &mut copy).map_err(Failure::Values)?;
            encoder.write(out, chunk)?;
        }
        encoder.write_zeros(out, padding)?;
    }
    Ok(())
}

fn header(dims: &ModelDims, padded_vocab: usize, dtype: WeightsDtype) -> std::io::Result<Vec<u8>> {
    let sizes = [
        dims.block_size,
        dims.vocab_size,
        dims.n_layer,
        dims.n_head,
        dims.n_embd,
        padded_vocab,
    ];
    let version = VERSIONS.into_iter().find(|(_, of, _)| *of == dtype);
    let mut integers = vec![MODEL_MAGIC];
    integers.extend(version.map(|(version, ..)| version));
    for size in sizes {
        integers.push(i32::try_from(size).map_err(std::io::Error::other)?);
    }
    integers.resize(HEADER_INTEGERS, 0);
    Ok(integers.into_iter().flat_map(i32::to_le_bytes).collect())
}
