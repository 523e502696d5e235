//! Tables that are damaged at any place, and pages that claim too much.

use parquet::basic::{Compression, Encoding, GzipLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use tempfile::TempDir;

use super::*;

/// A table with the column `text`, of row groups of `group` rows each.
pub(in crate::data::prepare) fn table(rows: &[Option<String>], group: usize) -> Vec<u8> {
    table_with(rows, group, WriterProperties::builder().build())
}

fn table_with(rows: &[Option<String>], group: usize, properties: WriterProperties) -> Vec<u8> {
    let schema = "message schema { optional binary text (STRING); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    for rows in rows.chunks(group) {
        let mut groups = writer.next_row_group().unwrap();
        let mut column = groups.next_column().unwrap().unwrap();
        let ColumnWriter::ByteArrayColumnWriter(typed) = column.untyped() else {
            panic!("text is bytes");
        };
        let values: Vec<ByteArray> = rows.iter().flatten().map(|text| text[..].into()).collect();
        let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
        typed.write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
        groups.close().unwrap();
    }
    writer.into_inner().unwrap()
}

fn rows_of(bytes: &[u8], first: u64) -> Result<Vec<Option<String>>, PrepareError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.parquet");
    std::fs::write(&path, bytes).unwrap();
    let table = Table::open(&path, "text")?;
    let mut rows = table.rows(&path, first)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next(&path)? {
        found.push(row.map(|row| String::from_utf8_lossy(row.data()).into_owned()));
    }
    Ok(found)
}

fn some_rows() -> Vec<Option<String>> {
    (0..25)
        .map(|n| (n % 7 != 2).then(|| format!("the row of number {}", n % 9)))
        .collect()
}

/// Every way of writing the column.
fn tables() -> Vec<Vec<u8>> {
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::ZSTD(Default::default()),
    ];
    let encodings = [
        None,
        Some(Encoding::PLAIN),
        Some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
        Some(Encoding::DELTA_BYTE_ARRAY),
    ];
    let versions = [
        parquet::file::properties::WriterVersion::PARQUET_1_0,
        parquet::file::properties::WriterVersion::PARQUET_2_0,
    ];
    let mut tables = Vec::new();
    for (codec, encoding) in codecs.into_iter().flat_map(|c| encodings.map(|e| (c, e))) {
        for version in versions {
            let properties = WriterProperties::builder()
                .set_compression(codec)
                .set_writer_version(version)
                .set_dictionary_enabled(encoding.is_none());
            let properties = match encoding {
                Some(encoding) => properties.set_encoding(encoding),
                None => properties,
            };
            tables.push(table_with(&some_rows(), 8, properties.build()));
        }
    }
    tables
}

#[test]
fn rows_are_read_from_any_on_however_they_are_written() {
    for bytes in tables() {
        for first in [0, 1, 7, 8, 9, 24, 25] {
            let found = rows_of(&bytes, first as u64).unwrap();
            assert_eq!(found, some_rows()[first..]);
        }
    }
}

/// With any byte changed a table is read or refused, without a panic and without much memory.
#[test]
fn a_table_with_a_changed_byte_is_read_or_refused() {
    // The crate's panics are caught; printed with backtraces, hundreds of them take minutes.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut refused = 0;
    for bytes in tables() {
        for at in (0..bytes.len()).step_by(3) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xFF;
            refused += u64::from(rows_of(&damaged, 0).is_err());
        }
        for length in (0..bytes.len()).step_by(29) {
            rows_of(&bytes[..length], 0).unwrap_err();
        }
    }
    std::panic::set_hook(hook);
    assert!(refused > 1000, "{refused}");
}

/// The bytes of a table with `from` in its only page's header changed to `to`.
fn patched(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from);
    let at = at.expect("the header has these bytes");
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

#[test]
fn a_page_that_claims_too_much_is_refused_before_it_is_allocated() {
    let plain = WriterProperties::builder().set_dictionary_enabled(false);
    let bytes = table_with(&[Some("x".repeat(90))], 1, plain.build());
    // Type 0; then the unpacked and the packed size, 100 bytes each as zigzag numbers of two bytes.
    let sizes = [0x15, 0x00, 0x15, 0xC8, 0x01, 0x15, 0xC8, 0x01];
    let large = [
        0x15, 0x00, 0x15, 0xFE, 0xFF, 0xFF, 0xFF, 0x0F, 0x15, 0xC8, 0x01,
    ];
    let damaged = patched(&bytes, &sizes, &large);
    // The footer's offsets are of what comes before it, so only this page moves.
    let error = rows_of(&damaged, 0).unwrap_err();
    let shown = error.to_string();
    assert!(
        shown.contains("a page has 2147483647 bytes; the largest that is read has 268435456"),
        "{shown}"
    );
}
