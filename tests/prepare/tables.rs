//! Parquet tables: the same documents as in JSON lines, however they are written, and what is no table of text.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::slice::from_ref;
use std::sync::Arc;

use parquet::basic::{Compression, Encoding, GzipLevel, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use taper::data::prepare::{Lines, Note, Origin, PrepareError, PrepareRequest, RequestedFile};
use taper::tokenizer::{Tokenizer, TokenizerKind};
use tempfile::TempDir;

use crate::{make, request, sha256, splits, write};

const SCHEMA: &str = "message schema { required int64 id; optional binary text (STRING);
    optional group meta { optional binary url (UTF8); optional group tags (LIST) { repeated group list {
    optional binary element (STRING); } } } optional binary raw; }";

/// Writes the columns of `SCHEMA`, with `rows` as `text` and as `meta.url`, in row groups of `group` rows.
fn table(path: &Path, rows: &[Option<&[u8]>], group: usize, properties: WriterProperties) {
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    for rows in rows.chunks(group) {
        let mut groups = writer.next_row_group().unwrap();
        let texts: Vec<ByteArray> = rows
            .iter()
            .flatten()
            .map(|row| row.to_vec().into())
            .collect();
        let mut index = 0;
        while let Some(mut column) = groups.next_column().unwrap() {
            let level = |row: &Option<&[u8]>, there| if row.is_some() { there } else { 0 };
            match column.untyped() {
                ColumnWriter::Int64ColumnWriter(column) => {
                    let ids: Vec<i64> = (0..rows.len() as i64).collect();
                    column.write_batch(&ids, None, None).unwrap();
                }
                ColumnWriter::ByteArrayColumnWriter(column) => {
                    let empty = vec![0; rows.len()];
                    let there = |most| {
                        rows.iter()
                            .map(|row| level(row, most))
                            .collect::<Vec<i16>>()
                    };
                    match index {
                        1 => column.write_batch(&texts, Some(&there(1)), None),
                        2 => column.write_batch(&texts, Some(&there(2)), None),
                        3 => column.write_batch(&[], Some(&empty), Some(&empty)),
                        _ => column.write_batch(&[], Some(&empty), None),
                    }
                    .unwrap();
                }
                _ => panic!("no such column"),
            }
            index += 1;
            column.close().unwrap();
        }
        groups.close().unwrap();
    }
    writer.close().unwrap();
}

fn plainly() -> WriterProperties {
    WriterProperties::builder().build()
}

/// 300 documents; some are null, one is empty, one is long.
fn documents() -> Vec<Option<String>> {
    let text = |n: usize| match n {
        7 => String::new(),
        8 => "a long document, which has many words; ".repeat(40_000),
        n => format!("document {n}: «日本» it's {}\n", "word ".repeat(n % 9)),
    };
    (0..300).map(|n| (n % 11 != 5).then(|| text(n))).collect()
}

fn bytes(documents: &[Option<String>]) -> Vec<Option<&[u8]>> {
    let bytes = documents.iter().map(Option::as_deref);
    bytes.map(|text| text.map(str::as_bytes)).collect()
}

fn json_lines(documents: &[Option<String>]) -> String {
    let line = |text: &Option<String>| format!("{}\n", serde_json::json!({ "text": text }));
    documents.iter().map(line).collect()
}

#[test]
fn ids_and_split_are_those_of_the_same_documents_in_json_lines() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let documents = documents();
    let lines = write(&folder, "a.jsonl", json_lines(&documents));
    let expected = make(&request(&[lines], TokenizerKind::Gpt2, &out)).unwrap();
    let (train, val) = splits(&out);
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let gzip = Compression::GZIP(GzipLevel::default());
    let ways = [
        (Compression::UNCOMPRESSED, None, WriterVersion::PARQUET_1_0),
        (Compression::SNAPPY, None, WriterVersion::PARQUET_1_0),
        (zstd, Some(Encoding::PLAIN), WriterVersion::PARQUET_2_0),
        (
            gzip,
            Some(Encoding::DELTA_BYTE_ARRAY),
            WriterVersion::PARQUET_2_0,
        ),
        (
            Compression::SNAPPY,
            Some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
            WriterVersion::PARQUET_1_0,
        ),
    ];
    for (compression, encoding, version) in ways {
        let properties = WriterProperties::builder()
            .set_compression(compression)
            .set_writer_version(version)
            .set_dictionary_enabled(encoding.is_none());
        let properties = match encoding {
            Some(encoding) => properties.set_column_encoding("text".into(), encoding),
            None => properties,
        };
        let path = folder.path().join("a.parquet");
        table(&path, &bytes(&documents), 64, properties.build());
        let made = make(&request(from_ref(&path), TokenizerKind::Gpt2, &out)).unwrap();
        assert!(
            splits(&out) == (train.clone(), val.clone()),
            "{compression} {encoding:?}"
        );
        assert_eq!(made.documents, expected.documents);
        let nulls = Note::Nulls {
            lines: Lines {
                count: 27,
                unit: "row",
                first: (path, 6),
            },
            field: "text".into(),
        };
        assert!(made.notes.contains(&nulls), "{:?}", made.notes);
    }
}

/// Several files, a nested column, and a first pass: of characters, or of few documents.
#[test]
fn documents_are_numbered_over_all_files() {
    let folder = TempDir::new().unwrap();
    let documents: Vec<Option<String>> = (0..6).map(|n| Some(format!("the text {n}"))).collect();
    let lines = |rows: &[Option<String>]| json_lines(rows).replace("\"text\"", "\"meta.url\"");
    let all = write(&folder, "all.jsonl", lines(&documents));
    let first = folder.path().join("first.parquet");
    table(&first, &bytes(&documents[..3]), 2, plainly());
    let second = write(&folder, "second.jsonl", lines(&documents[3..5]));
    let third = folder.path().join("third.parquet");
    table(&third, &bytes(&documents[5..]), 2, plainly());
    for tokenizer in [TokenizerKind::Gpt2, TokenizerKind::Char] {
        let made = |files: &[PathBuf], out: &str| {
            let out = folder.path().join(out);
            let request = PrepareRequest {
                field: "meta.url".into(),
                ..request(files, tokenizer, &out)
            };
            make(&request).unwrap();
            splits(&out)
        };
        let expected = made(from_ref(&all), "all");
        let files = [first.clone(), second.clone(), third.clone()];
        assert_eq!(made(&files, "several"), expected);
    }
}

#[test]
fn the_manifest_has_column_checksums_and_sources() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let path = folder.path().join("a.parquet");
    table(&path, &bytes(&documents()), 64, plainly());
    make(&request(from_ref(&path), TokenizerKind::Gpt2, &out)).unwrap();
    let meta = fs::read(out.join("meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
    assert_eq!(meta["format"], 2);
    assert_eq!(meta["field"], "text");
    assert_eq!(meta["train_sha256"], sha256(&out.join("train.bin")));
    assert_eq!(meta["val_sha256"], sha256(&out.join("val.bin")));
    assert_eq!(meta["sources"][0]["sha256"], sha256(&path));
}

/// A checksum that the request has is believed: the file is not read for it.
#[test]
fn the_manifest_has_the_origin_and_the_checksums_that_were_given() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let path = folder.path().join("a.parquet");
    table(&path, &bytes(&documents()), 64, plainly());
    let origin = Origin {
        repository: "someone/texts".into(),
        revision: "0123abcd".into(),
        subset: None,
        split: "train".into(),
    };
    let request = PrepareRequest {
        files: vec![RequestedFile {
            path,
            sha256: Some("of the hub".into()),
        }],
        origin: Some(origin),
        ..request(&[], TokenizerKind::Gpt2, &out)
    };
    make(&request).unwrap();
    let meta = fs::read(out.join("meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_slice(&meta).unwrap();
    assert_eq!(meta["sources"][0]["sha256"], "of the hub");
    let expected = serde_json::json!({
        "repository": "someone/texts", "revision": "0123abcd", "subset": null, "split": "train",
    });
    assert_eq!(meta["origin"], expected);
}

#[test]
fn columns_that_are_no_text_are_refused_with_what_there_is() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.parquet");
    table(&path, &bytes(&documents()), 64, plainly());
    let out = folder.path().join("out");
    let cases = [
        (
            "body",
            "has no column `body`; it has `id`, `text`, `meta.url`, ",
            "--field text",
        ),
        ("id", "the column `id` of ", "--field text"),
        ("id", "is no UTF-8 text but INT64", "--field text"),
        (
            "raw",
            "BYTE_ARRAY (bytes that are not declared to be text)",
            "--field text",
        ),
        (
            "meta.tags.list.element",
            "a list: several values in a row",
            "--field text",
        ),
    ];
    for (field, expected, advice) in cases {
        let request = PrepareRequest {
            field: field.into(),
            ..request(from_ref(&path), TokenizerKind::Gpt2, &out)
        };
        let error = make(&request).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.hint().unwrap().contains(advice), "{:?}", error.hint());
    }
    assert!(!out.exists());
}

#[test]
fn damaged_tables_are_named_and_leave_nothing() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let path = folder.path().join("a.parquet");
    let refused = |expected: &str| {
        let error = make(&request(from_ref(&path), TokenizerKind::Gpt2, &out)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("a.parquet"), "{error}");
        assert!(!out.exists());
    };
    table(&path, &bytes(&documents()), 64, plainly());
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 9]).unwrap();
    refused("its last bytes are not `PAR1`: it is cut short");
    let mut long = whole.clone();
    let footer = long.len() - 8;
    long[footer..footer + 4].copy_from_slice(&0x7000_0000_u32.to_le_bytes());
    fs::write(&path, &long).unwrap();
    refused("its footer has 1879048192 bytes");
    fs::write(&path, "text").unwrap();
    refused("is no Parquet table: it does not begin with `PAR1`");
    let mut rows = vec![Some(&b"good"[..]); 99];
    rows[66] = Some(b"caf\xE9");
    table(&path, &rows, 10, plainly());
    refused("is no UTF-8 text in row 67");
}

/// Without its name, too; and text with these first letters is text.
#[test]
fn a_table_is_known_by_its_contents() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let path = folder.path().join("0000");
    table(&path, &bytes(&documents()), 64, plainly());
    let made = make(&request(&[path], TokenizerKind::Gpt2, &out)).unwrap();
    assert_eq!(made.documents, 273);
    let none = vec![None; 9];
    let path = folder.path().join("none.parquet");
    table(&path, &none, 64, plainly());
    let error = make(&request(&[path], TokenizerKind::Gpt2, &out)).unwrap_err();
    assert!(matches!(error, PrepareError::NoText { .. }), "{error}");
    let tokenizer = Tokenizer::gpt2().unwrap();
    let (train, _) = splits(&out);
    assert!(tokenizer.decode(&train[..20]).starts_with("document "));
}
