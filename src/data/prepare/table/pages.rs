//! Pages of a Parquet column, checked against bounds before the parquet crate allocates for them.
//!
//! The crate believes the sizes in a page's header, and the counts in front of delta-encoded lengths. A damaged or
//! hostile file could make it allocate gigabytes for a few bytes. So each header is read here first, in Thrift's compact
//! protocol (<https://github.com/apache/parquet-format>, `parquet.thrift`, `PageHeader`).

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, SerializedPageReader};

/// Largest page, and so largest value, that is read. Writers make pages of about 1 MB unless a value is larger.
pub(super) const LARGEST_PAGE_BYTES: u64 = 256 << 20;
/// Most values of a dictionary; each takes 32 bytes beside its text. Writers keep a dictionary to about 1 MB.
const MOST_DICTIONARY_VALUES: u64 = 1 << 22;
/// Longest header of a page. Its statistics repeat two values of the page.
const LONGEST_HEADER_BYTES: u64 = 1 << 20;
/// Page types of `parquet.thrift`.
const INDEX_PAGE: i64 = 1;
const DICTIONARY_PAGE: i64 = 2;

/// The pages of one column chunk.
pub(super) struct Pages {
    file: Arc<File>,
    inner: SerializedPageReader<File>,
    compression: Compression,
    /// Whether definition levels come before the values.
    nullable: bool,
    /// Place of the next header, and the end of the chunk, in the file.
    at: u64,
    end: u64,
    rows: u64,
}

impl Pages {
    pub(super) fn new(
        file: &Arc<File>,
        chunk: &ColumnChunkMetaData,
        rows: usize,
        nullable: bool,
    ) -> Result<Pages> {
        let start = chunk.dictionary_page_offset();
        let start = u64::try_from(start.unwrap_or(chunk.data_page_offset()));
        let length = u64::try_from(chunk.compressed_size());
        let (Ok(at), Ok(length)) = (start, length) else {
            return Err(damaged("a column chunk has a negative offset or length"));
        };
        Ok(Pages {
            file: Arc::clone(file),
            inner: SerializedPageReader::new(Arc::clone(file), chunk, rows, None)?,
            compression: chunk.compression(),
            nullable,
            at,
            end: at.saturating_add(length),
            rows: rows as u64,
        })
    }

    /// Checks the header of the next page that holds values; returns its number of values.
    fn check_next(&mut self) -> Result<Option<u64>> {
        while self.at < self.end {
            let read = self.file.get_read(self.at)?;
            let mut header = Header::default();
            let mut compact = Compact {
                read: read.take(LONGEST_HEADER_BYTES),
                bytes: 0,
            };
            compact
                .structure(&mut header, 0, 0)
                .map_err(|error| damaged(&format!("a page has no readable header ({error})")))?;
            let start = self.at + compact.bytes;
            self.at = start.saturating_add(header.compressed);
            let largest = header.compressed.max(header.uncompressed);
            if largest > LARGEST_PAGE_BYTES {
                return Err(damaged(&format!(
                    "a page has {largest} bytes; the largest that is read has {LARGEST_PAGE_BYTES}"
                )));
            }
            if self.at > self.end {
                return Err(damaged("a page is longer than its column"));
            }
            if header.kind == INDEX_PAGE {
                continue;
            }
            let most = match header.kind {
                DICTIONARY_PAGE => MOST_DICTIONARY_VALUES,
                _ => self.rows,
            };
            if header.values > most {
                return Err(damaged(&format!(
                    "a page has {} values; expected at most {most}",
                    header.values
                )));
            }
            if matches!(self.compression, Compression::GZIP(_)) {
                self.check_gzip(start, &header)?;
            }
            return Ok(Some(header.values));
        }
        Ok(None)
    }

    /// Unpacks a page to nowhere: the crate unpacks gzip to whatever length it has. Faults are left for it to name.
    fn check_gzip(&self, start: u64, header: &Header) -> Result<()> {
        let packed = self.file.get_read(start.saturating_add(header.levels))?;
        let packed = packed.take(header.compressed.saturating_sub(header.levels));
        let mut unpacked = MultiGzDecoder::new(packed).take(header.uncompressed + 1);
        match io::copy(&mut unpacked, &mut io::sink()) {
            Ok(bytes) if bytes > header.uncompressed => {
                Err(damaged("a page unpacks to more than its header says"))
            }
            _ => Ok(()),
        }
    }

    /// Checks the counts in front of delta-encoded lengths, which the crate allocates for.
    fn check_lengths(&self, page: &Page, values: u64) -> Result<()> {
        let streams = match page.encoding() {
            Encoding::DELTA_LENGTH_BYTE_ARRAY => 1,
            Encoding::DELTA_BYTE_ARRAY => 2,
            _ => return Ok(()),
        };
        let buffer = &page.buffer()[..];
        let levels = match page {
            Page::DataPageV2 {
                def_levels_byte_len,
                rep_levels_byte_len,
                ..
            } => *def_levels_byte_len as usize + *rep_levels_byte_len as usize,
            Page::DataPage { .. } if self.nullable => match buffer.first_chunk() {
                Some(&length) => 4 + u32::from_le_bytes(length) as usize,
                None => 0,
            },
            _ => 0,
        };
        let mut read = buffer.get(levels..).unwrap_or_default();
        for _ in 0..streams {
            pass_deltas(&mut read, values)
                .map_err(|error| damaged(&format!("a page has no readable lengths ({error})")))?;
        }
        Ok(())
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let Some(values) = self.check_next()? else {
            return Ok(None);
        };
        let page = self.inner.get_next_page()?;
        if let Some(page) = &page {
            self.check_lengths(page, values)?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        Err(damaged("pages are read one after the other"))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        Err(damaged("pages are read one after the other"))
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

fn damaged(what: &str) -> ParquetError {
    ParquetError::General(what.to_owned())
}

/// Passes over lengths in DELTA_BINARY_PACKED, of which there are at most `most`.
fn pass_deltas(read: &mut &[u8], most: u64) -> io::Result<()> {
    let mut compact = Compact { read, bytes: 0 };
    let (block, minis) = (compact.unsigned()?, compact.unsigned()?);
    let mut left = compact.unsigned()?;
    compact.unsigned()?;
    if left > most || minis == 0 || minis > block {
        return Err(invalid("their number is wrong"));
    }
    let values_per_mini = block / minis;
    left = left.saturating_sub(1);
    while left > 0 {
        compact.unsigned()?;
        let mut widths = Vec::new();
        (&mut compact.read).take(minis).read_to_end(&mut widths)?;
        if widths.len() as u64 != minis {
            return Err(invalid("they are cut short"));
        }
        for width in widths {
            if left == 0 {
                break;
            }
            let bits = u64::from(width).checked_mul(values_per_mini);
            let bits = bits.ok_or_else(|| invalid("they are too wide"))?;
            compact.pass(bits / 8)?;
            left = left.saturating_sub(values_per_mini);
        }
    }
    Ok(())
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Some fields of a `PageHeader`.
#[derive(Debug, Default, PartialEq)]
struct Header {
    kind: i64,
    uncompressed: u64,
    compressed: u64,
    values: u64,
    /// Bytes of levels that come unpacked before the values (second version of data pages).
    levels: u64,
}

impl Header {
    /// Takes the number in `field` of the header, or of its struct `within`.
    fn take(&mut self, within: i64, field: i64, number: i64) -> io::Result<()> {
        let size = || u64::try_from(number).map_err(|_| invalid("a size is negative"));
        match (within, field) {
            (0, 1) => self.kind = number,
            (0, 2) => self.uncompressed = size()?,
            (0, 3) => self.compressed = size()?,
            (5 | 7 | 8, 1) => self.values = size()?,
            (8, 5 | 6) => self.levels = self.levels.saturating_add(size()?),
            _ => {}
        }
        Ok(())
    }
}

/// Thrift's compact protocol, as far as a header needs it.
struct Compact<R> {
    read: R,
    /// Bytes read so far.
    bytes: u64,
}

/// Deepest struct or list in a header; Parquet has three.
const DEEPEST: u32 = 8;

impl<R: Read> Compact<R> {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.read.read_exact(&mut byte)?;
        self.bytes += 1;
        Ok(byte[0])
    }

    fn unsigned(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(invalid("a number is too long"))
    }

    fn signed(&mut self) -> io::Result<i64> {
        let zigzag = self.unsigned()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    fn pass(&mut self, bytes: u64) -> io::Result<()> {
        let passed = io::copy(&mut (&mut self.read).take(bytes), &mut io::sink())?;
        self.bytes += passed;
        if passed < bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Reads a struct, which is the header itself or its field `within`.
    fn structure(&mut self, header: &mut Header, within: i64, depth: u32) -> io::Result<()> {
        let mut field = 0;
        loop {
            let byte = self.byte()?;
            if byte == 0 {
                return Ok(());
            }
            field = match byte >> 4 {
                0 => self.signed()?,
                step => field + i64::from(step),
            };
            match byte & 0x0F {
                1 | 2 => {}
                4..=6 => {
                    let number = self.signed()?;
                    header.take(within, field, number)?;
                }
                12 if within == 0 => self.structure(header, field, depth + 1)?,
                kind => self.pass_value(kind, depth)?,
            }
        }
    }

    fn pass_value(&mut self, kind: u8, depth: u32) -> io::Result<()> {
        if depth > DEEPEST {
            return Err(invalid("it is nested too deeply"));
        }
        match kind {
            1..=3 => self.byte().map(drop),
            4..=6 => self.unsigned().map(drop),
            7 => self.pass(8),
            8 => {
                let length = self.unsigned()?;
                self.pass(length)
            }
            9 | 10 => {
                let byte = self.byte()?;
                let length = match byte >> 4 {
                    15 => self.unsigned()?,
                    short => short.into(),
                };
                (0..length).try_for_each(|_| self.pass_value(byte & 0x0F, depth + 1))
            }
            // The fields of a struct inside of another are of no interest.
            12 => self.structure(&mut Header::default(), -1, depth + 1),
            _ => Err(invalid("it has a type that no header has")),
        }
    }
}
