//! Tables that pyarrow wrote, against the ids of tiktoken.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use indicatif::ProgressBar;
use taper::data::prepare::{PrepareRequest, RequestedFile, prepare};
use taper::tokenizer::{Tokenizer, TokenizerKind};
use tempfile::TempDir;

use crate::python::python;

const END_OF_TEXT: u32 = 50_256;

fn ids(path: &Path) -> Vec<u32> {
    let bytes = fs::read(path).unwrap();
    let pairs = bytes.as_chunks().0.iter();
    pairs.map(|&pair| u16::from_le_bytes(pair).into()).collect()
}

#[test]
#[ignore = "needs Python with pyarrow and tiktoken"]
fn ids_of_pyarrows_tables_are_tiktokens() {
    let folder = TempDir::new().unwrap();
    let place = folder.path();
    // The program makes tiktoken's ranks of its vocabulary.
    Tokenizer::gpt2().unwrap().save(place).unwrap();
    let written = python(
        place,
        "parquet.py",
        &["tokenizer.json", "a.parquet", "b.parquet"],
    );
    let expected: Vec<Vec<u32>> = serde_json::from_value(written).unwrap();
    assert!(expected.len() > 300);
    let files = ["a.parquet", "b.parquet"].map(|name| RequestedFile::from(place.join(name)));
    let out = place.join("out");
    let request = PrepareRequest {
        files: files.to_vec(),
        field: "text".into(),
        tokenizer: TokenizerKind::Gpt2,
        out: out.clone(),
        val_fraction: 0.1,
        expected: None,
        origin: None,
    };
    prepare(&request, &ProgressBar::hidden(), &AtomicBool::new(false)).unwrap();
    let splits = ["train.bin", "val.bin"].map(|name| ids(&out.join(name)));
    let mut documents = splits
        .each_ref()
        .map(|ids| ids.split(|&id| id == END_OF_TEXT).peekable());
    for (n, expected) in expected.iter().enumerate() {
        let next = documents
            .iter_mut()
            .find_map(|split| split.next_if(|document| document == expected));
        assert!(next.is_some(), "document {n} differs");
    }
    // Each split ends with the separator, behind which nothing is.
    for mut split in documents {
        assert_eq!(split.next(), Some(&[][..]));
        assert_eq!(split.next(), None);
    }
}
