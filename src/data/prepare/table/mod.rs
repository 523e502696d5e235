//! Parquet tables: the rows of one column of text, row group after row group.

mod pages;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, ConvertedType, LogicalType, Type};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::schema::types::ColumnDescPtr;

use self::pages::Pages;
use super::PrepareError;

/// First and last bytes of a table.
pub(super) const MAGIC: &[u8] = b"PAR1";
/// Longest footer that is read. It has some hundred bytes for each column of each row group.
const LONGEST_FOOTER_BYTES: u64 = 64 << 20;

/// A table, with the column that holds the text.
#[derive(Clone, Debug)]
pub(super) struct Table {
    metadata: Arc<ParquetMetaData>,
    column: usize,
    /// Rows of all row groups.
    pub rows: u64,
}

impl Table {
    /// Reads the footer of a table, and finds the column `field`; `a.b` is the field `b` of a struct `a`.
    pub(super) fn open(path: &Path, field: &str) -> Result<Table, PrepareError> {
        let mut file = File::open(path).map_err(PrepareError::io("open", path))?;
        check_ends(&mut file, path)?;
        let metadata = guarded(path, || {
            ParquetMetaDataReader::new().parse_and_finish(&file)
        })?;
        let rows = metadata
            .row_groups()
            .iter()
            .try_fold(0_u64, |rows, group| {
                rows.checked_add(u64::try_from(group.num_rows()).ok()?)
            })
            .ok_or_else(|| damaged(path, "its number of rows makes no sense".into()))?;
        let column = column(&metadata, path, field)?;
        check_compression(&metadata, path, column)?;
        Ok(Table {
            metadata: Arc::new(metadata),
            column,
            rows,
        })
    }

    fn description(&self) -> ColumnDescPtr {
        self.metadata
            .file_metadata()
            .schema_descr()
            .column(self.column)
    }

    /// The rows from number `first` on, which counts from 0.
    pub(super) fn rows(&self, path: &Path, first: u64) -> Result<Rows, PrepareError> {
        let file = File::open(path).map_err(PrepareError::io("open", path))?;
        let mut rows = Rows {
            table: self.clone(),
            file: Arc::new(file),
            group: 0,
            left: 0,
            reader: None,
            values: Vec::new(),
            levels: Vec::new(),
        };
        let mut before = first;
        while let Some(group) = self.metadata.row_groups().get(rows.group) {
            let in_group = u64::try_from(group.num_rows()).unwrap_or(0);
            if before < in_group {
                break;
            }
            before -= in_group;
            rows.group += 1;
        }
        for _ in 0..before {
            rows.next(path)?;
        }
        Ok(rows)
    }
}

/// The length of the footer is checked before anything is read of it: the crate reads all of it at once.
fn check_ends(file: &mut File, path: &Path) -> Result<(), PrepareError> {
    let mut end = [0; 8];
    let length = file.seek(SeekFrom::End(0));
    let length = length.map_err(PrepareError::io("read", path))?;
    let tail = file.seek(SeekFrom::Start(length.saturating_sub(8)));
    let tail = tail.and_then(|_| file.read_exact(&mut end));
    if length < 12 || tail.is_err() || &end[4..] != MAGIC {
        let what = "its last bytes are not `PAR1`: it is cut short, or still being written";
        return Err(damaged(path, what.into()));
    }
    let footer = u64::from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
    if footer + 12 > length || footer > LONGEST_FOOTER_BYTES {
        let what = format!(
            "its footer has {footer} bytes; expected at most {}",
            LONGEST_FOOTER_BYTES.min(length - 12)
        );
        return Err(damaged(path, what));
    }
    Ok(())
}

/// Refuses compressions that are rare in tables of text, and that the crate is built without.
fn check_compression(
    metadata: &ParquetMetaData,
    path: &Path,
    column: usize,
) -> Result<(), PrepareError> {
    use Compression::{GZIP, SNAPPY, UNCOMPRESSED, ZSTD};
    let groups = metadata.row_groups().iter();
    let chunks = groups.filter_map(|group| group.columns().get(column));
    let mut compressions = chunks.map(|chunk| chunk.compression());
    let is_read = |one: &Compression| matches!(one, UNCOMPRESSED | SNAPPY | GZIP(_) | ZSTD(_));
    match compressions.find(|one| !is_read(one)) {
        None => Ok(()),
        Some(other) => {
            let what = format!("{other} compresses it; expected SNAPPY, GZIP, ZSTD or nothing");
            Err(damaged(path, what))
        }
    }
}

/// The place of the column `field` among the leaves of the schema.
fn column(metadata: &ParquetMetaData, path: &Path, field: &str) -> Result<usize, PrepareError> {
    let columns = metadata.file_metadata().schema_descr().columns();
    let found = columns
        .iter()
        .position(|column| column.path().string() == field);
    let is_text =
        |column: &ColumnDescPtr| text_fault(column).is_none() && column.max_rep_level() == 0;
    let Some(found) = found else {
        let names = columns.iter().map(|column| column.path().string());
        return Err(PrepareError::MissingColumn {
            path: path.to_owned(),
            field: field.to_owned(),
            columns: names.collect(),
            text: columns
                .iter()
                .find(|column| is_text(column))
                .map(|column| column.path().string()),
        });
    };
    let fault = text_fault(&columns[found]).or_else(|| {
        (columns[found].max_rep_level() > 0).then(|| "a list: several values in a row".into())
    });
    match fault {
        None => Ok(found),
        Some(found) => Err(PrepareError::NotTextColumn {
            path: path.to_owned(),
            field: field.to_owned(),
            found,
            text: columns
                .iter()
                .find(|column| is_text(column))
                .map(|column| column.path().string()),
        }),
    }
}

/// The type of a column that is not UTF-8 text, in words.
fn text_fault(column: &ColumnDescPtr) -> Option<String> {
    let logical = column.logical_type_ref();
    match (column.physical_type(), logical, column.converted_type()) {
        (
            Type::BYTE_ARRAY,
            Some(LogicalType::String | LogicalType::Json | LogicalType::Enum),
            _,
        )
        | (
            Type::BYTE_ARRAY,
            None,
            ConvertedType::UTF8 | ConvertedType::JSON | ConvertedType::ENUM,
        ) => None,
        (Type::BYTE_ARRAY, None, ConvertedType::NONE) => {
            Some("BYTE_ARRAY (bytes that are not declared to be text)".into())
        }
        (physical, Some(logical), _) => Some(format!("{physical} ({logical:?})")),
        (physical, None, ConvertedType::NONE) => Some(physical.to_string()),
        (physical, None, converted) => Some(format!("{physical} ({converted})")),
    }
}

/// Rows of a table's column, one after the other.
pub(super) struct Rows {
    table: Table,
    file: Arc<File>,
    /// The next row group.
    group: usize,
    /// Rows left in the row group that is open.
    left: u64,
    reader: Option<ColumnReaderImpl<ByteArrayType>>,
    values: Vec<ByteArray>,
    levels: Vec<i16>,
}

impl Rows {
    /// The bytes of the next row, `None` in it for a null; `None` after the last row.
    ///
    /// One row is decoded at a time: of values that share a prefix, each takes its whole length.
    pub(super) fn next(&mut self, path: &Path) -> Result<Option<Option<ByteArray>>, PrepareError> {
        while self.left == 0 {
            let Some(group) = self.table.metadata.row_groups().get(self.group) else {
                return Ok(None);
            };
            let rows = usize::try_from(group.num_rows()).unwrap_or(0);
            let description = self.table.description();
            let nullable = description.max_def_level() > 0;
            let chunk = group.columns().get(self.table.column);
            let chunk =
                chunk.ok_or_else(|| damaged(path, "a row group lacks the column".into()))?;
            let pages = guarded(path, || Pages::new(&self.file, chunk, rows, nullable))?;
            self.reader = Some(ColumnReaderImpl::new(description, Box::new(pages)));
            self.left = rows as u64;
            self.group += 1;
        }
        let (values, levels) = (&mut self.values, &mut self.levels);
        values.clear();
        levels.clear();
        let Some(reader) = &mut self.reader else {
            return Ok(None);
        };
        let read = guarded(path, || reader.read_records(1, Some(levels), None, values))?;
        if read.0 != 1 {
            let what = "a row group has fewer rows than the footer says";
            return Err(damaged(path, what.into()));
        }
        self.left -= 1;
        Ok(Some(self.values.pop()))
    }
}

/// Calls the parquet crate, which panics on some damaged files.
fn guarded<T>(
    path: &Path,
    call: impl FnOnce() -> Result<T, ParquetError>,
) -> Result<T, PrepareError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(ParquetError::External(source))) if source.is::<std::io::Error>() => {
            let source = source.downcast::<std::io::Error>();
            let source = source.map_or_else(|_| std::io::ErrorKind::Other.into(), |source| *source);
            Err(PrepareError::io("read", path)(source))
        }
        Ok(Err(
            ParquetError::General(what) | ParquetError::EOF(what) | ParquetError::NYI(what),
        )) => Err(damaged(path, what)),
        Ok(Err(error)) => Err(damaged(path, error.to_string())),
        Err(_) => Err(damaged(path, "it cannot be decoded".into())),
    }
}

fn damaged(path: &Path, what: String) -> PrepareError {
    PrepareError::BadTable {
        path: path.to_owned(),
        what,
    }
}

#[cfg(test)]
pub(super) mod tests;
