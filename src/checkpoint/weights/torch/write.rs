//! Writing a file of `torch.save`, a chunk at a time; one that `torch.load(weights_only=True)` opens.

use std::io::{self, Seek, Write};
use std::ops::Range;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::checkpoint::weights::safetensors::Failure;
use crate::ops::backend::{CHUNK, Values, chunks, on_host};

/// Alignment of the entries, PyTorch's own: a file can be mapped into memory.
const ALIGNMENT: u16 = 64;

/// Size from which an entry needs the fields of zip64.
const ZIP64_BYTES: u64 = u32::MAX as u64;

/// Version of the format, that of PyTorch's `kMinProducedFileFormatVersion`.
const VERSION: &[u8] = b"3\n";

/// An object to be pickled.
#[derive(Clone, Debug)]
pub(in crate::checkpoint) enum Object {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Tuple(Vec<Object>),
    List(Vec<Object>),
    Dict(Vec<(Object, Object)>),
    /// All of the storage of this number, in row-major order.
    Tensor(usize, Vec<usize>),
}

impl Object {
    pub(in crate::checkpoint) fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    /// A dictionary with texts for keys.
    pub(in crate::checkpoint) fn dict<K: Into<String>>(
        items: impl IntoIterator<Item = (K, Object)>,
    ) -> Self {
        let items = items.into_iter();
        Self::Dict(
            items
                .map(|(key, value)| (Self::Text(key.into()), value))
                .collect(),
        )
    }
}

/// The float32 elements of a storage.
pub(in crate::checkpoint) enum StorageOut<'a> {
    Values(&'a dyn Values, Range<usize>),
    One(f32),
}

impl StorageOut<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Values(_, range) => range.len(),
            Self::One(_) => 1,
        }
    }
}

/// Writes the archive of an object, whose entries lie in `folder`.
pub(in crate::checkpoint) fn write<W: Write + Seek>(
    out: W,
    folder: &str,
    object: &Object,
    storages: &[StorageOut],
) -> Result<W, Failure> {
    let mut zip = ZipWriter::new(out);
    let mut pickle = b"\x80\x02".to_vec();
    put(&mut pickle, object, storages);
    pickle.push(b'.');
    for (name, bytes) in [("data.pkl", &pickle[..]), ("byteorder", b"little")] {
        start(&mut zip, folder, name, bytes.len() as u64)?;
        zip.write_all(bytes)?;
    }
    let (mut copy, mut bytes) = (Vec::new(), Vec::with_capacity(4 * CHUNK));
    for (key, storage) in storages.iter().enumerate() {
        let name = format!("data/{key}");
        start(&mut zip, folder, &name, 4 * storage.len() as u64)?;
        match storage {
            StorageOut::One(value) => zip.write_all(&value.to_le_bytes())?,
            StorageOut::Values(values, range) => {
                for range in chunks(range.clone()) {
                    let chunk = on_host(*values, range, &mut copy).map_err(Failure::Values)?;
                    bytes.clear();
                    bytes.extend(chunk.iter().flat_map(|x| x.to_le_bytes()));
                    zip.write_all(&bytes)?;
                }
            }
        }
    }
    start(&mut zip, folder, "version", VERSION.len() as u64)?;
    zip.write_all(VERSION)?;
    Ok(zip.finish().map_err(io::Error::from)?)
}

fn start<W: Write + Seek>(
    zip: &mut ZipWriter<W>,
    folder: &str,
    name: &str,
    bytes: u64,
) -> io::Result<()> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .with_alignment(ALIGNMENT)
        .large_file(bytes >= ZIP64_BYTES);
    Ok(zip.start_file(format!("{folder}/{name}"), options)?)
}

/// Appends an object in pickle's protocol 2. Nothing is memoized: an object that is there twice is written twice.
fn put(out: &mut Vec<u8>, object: &Object, storages: &[StorageOut]) {
    match object {
        Object::None => out.push(b'N'),
        Object::Bool(switch) => out.push(if *switch { 0x88 } else { 0x89 }),
        Object::Int(number) => put_int(out, *number),
        Object::Float(number) => {
            out.push(b'G');
            out.extend(number.to_be_bytes());
        }
        Object::Text(text) => put_text(out, text),
        Object::Tuple(items) => {
            out.push(b'(');
            items.iter().for_each(|item| put(out, item, storages));
            out.push(b't');
        }
        Object::List(items) => {
            out.extend(b"](");
            items.iter().for_each(|item| put(out, item, storages));
            out.push(b'e');
        }
        Object::Dict(items) => {
            out.extend(b"}(");
            for (key, value) in items {
                put(out, key, storages);
                put(out, value, storages);
            }
            out.push(b'u');
        }
        Object::Tensor(storage, shape) => put_tensor(out, *storage, shape, storages),
    }
}

/// `_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`.
fn put_tensor(out: &mut Vec<u8>, storage: usize, shape: &[usize], storages: &[StorageOut]) {
    let mut strides = vec![1; shape.len()];
    for at in (1..shape.len()).rev() {
        strides[at - 1] = strides[at] * shape[at];
    }
    let tuple = |sizes: &[usize]| {
        let sizes = sizes.iter().map(|&size| Object::Int(size as i64));
        Object::Tuple(sizes.collect())
    };
    out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    put_text(out, "storage");
    out.extend(b"ctorch\nFloatStorage\n");
    put_text(out, &storage.to_string());
    put_text(out, "cpu");
    put_int(out, storages[storage].len() as i64);
    out.extend(b"tQ");
    put_int(out, 0);
    put(out, &tuple(shape), storages);
    put(out, &tuple(&strides), storages);
    out.push(0x89);
    out.extend(b"ccollections\nOrderedDict\n)RtR");
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_int(out: &mut Vec<u8>, number: i64) {
    match i32::try_from(number) {
        Ok(small) => {
            out.push(b'J');
            out.extend(small.to_le_bytes());
        }
        // LONG1 of eight bytes.
        Err(_) => {
            out.extend([0x8a, 8]);
            out.extend(number.to_le_bytes());
        }
    }
}
