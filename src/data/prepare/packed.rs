//! The contents of a file, unpacked where it is compressed, with the checksum of the file itself.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 128 << 10;

/// Compression of a file as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    /// One or several members.
    Gzip,
    /// One or several frames.
    Zstd,
}

impl Packing {
    /// The compression of a file that begins with `head`.
    pub(super) fn of(head: &[u8]) -> Packing {
        match head {
            [0x1F, 0x8B, ..] => Packing::Gzip,
            [0x28, 0xB5, 0x2F, 0xFD, ..] => Packing::Zstd,
            _ => Packing::None,
        }
    }

    /// The name of the compression, which is also that of the command that unpacks.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Packing::None => None,
            Packing::Gzip => Some("gzip"),
            Packing::Zstd => Some("zstd"),
        }
    }
}

/// The unpacked bytes of a file.
pub(super) struct Contents {
    reader: Box<dyn BufRead + Send>,
    counted: Arc<Mutex<Counted>>,
}

/// The bytes of the file that were read.
struct Counted {
    bytes: u64,
    digest: Sha256,
}

impl Contents {
    /// Opens a file at its unpacked byte `start`. Only from 0 on has it a checksum.
    pub(super) fn open(path: &Path, packing: Packing, start: u64) -> io::Result<Contents> {
        let mut file = File::open(path)?;
        let seekable = packing == Packing::None;
        if seekable {
            file.seek(SeekFrom::Start(start))?;
        }
        let counted = Arc::new(Mutex::new(Counted {
            bytes: if seekable { start } else { 0 },
            digest: Sha256::new(),
        }));
        let file = Counting {
            file,
            counted: Arc::clone(&counted),
        };
        let file = BufReader::with_capacity(BUFFER_BYTES, file);
        let mut contents = Contents {
            reader: match packing {
                Packing::None => Box::new(file),
                Packing::Gzip => Box::new(BufReader::new(MultiGzDecoder::new(file))),
                Packing::Zstd => {
                    let decoder = zstd::stream::read::Decoder::with_buffer(file)?;
                    Box::new(BufReader::new(decoder))
                }
            },
            counted,
        };
        if !seekable {
            let passed = io::copy(&mut contents.by_ref().take(start), &mut io::sink())?;
            if passed < start {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(contents)
    }

    /// Whether no byte is left.
    pub(super) fn is_at_end(&mut self) -> io::Result<bool> {
        Ok(self.reader.fill_buf()?.is_empty())
    }

    /// The number of bytes of the file that were read, packed as they are.
    pub(super) fn bytes_read(&self) -> u64 {
        let counted = self.counted.lock();
        counted.unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// The checksum of the bytes of the file that were read.
    pub(super) fn sha256(&self) -> String {
        let counted = self.counted.lock();
        let counted = counted.unwrap_or_else(PoisonError::into_inner);
        hex(&counted.digest.clone().finalize())
    }
}

impl Read for Contents {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

struct Counting {
    file: File,
    counted: Arc<Mutex<Counted>>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.bytes += read as u64;
        counted.digest.update(&buffer[..read]);
        Ok(read)
    }
}

/// The checksum of a file; `None` when `stop` becomes true.
pub(super) fn sha256(path: &Path, stop: impl Fn() -> bool) -> io::Result<Option<String>> {
    let mut file = File::open(path)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(Some(hex(&digest.finalize())));
        }
        if stop() {
            return Ok(None);
        }
        digest.update(&buffer[..read]);
    }
}

pub(super) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
