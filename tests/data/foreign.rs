//! Files of other numbers and other formats, which would train as tokens without an error.

use taper::data::{DataError, DataWarning};

use crate::{open, open_train, raw, shard};

/// Ids of GPT-2's vocabulary that do not repeat soon.
fn ids() -> impl Iterator<Item = u32> {
    (0..3000).map(|i| i * 40_503 % 50_257)
}

#[track_caller]
fn assert_not_tokens(bytes: Vec<u8>, name: &str, advice: &str) {
    let error = match open_train(bytes) {
        Err(error) => error,
        Ok(mut data) => data.require(8, 50_257).unwrap_err(),
    };
    assert!(matches!(error, DataError::NotTokens { .. }), "{error}");
    assert!(
        error.to_string().contains("train.bin` holds no u16 tokens"),
        "{error}"
    );
    assert!(
        error.to_string().contains(name),
        "{error}\nexpected: {name}"
    );
    assert!(error.hint().unwrap().contains(advice), "{:?}", error.hint());
}

#[test]
fn ids_of_other_widths_and_orders_are_named_with_their_conversion() {
    assert_not_tokens(
        ids().flat_map(u32::to_le_bytes).collect(),
        "4 bytes",
        "train.bin', '<u4').astype('<u2').tofile(",
    );
    let wide = |id| u64::from(id).to_le_bytes();
    assert_not_tokens(ids().flat_map(wide).collect(), "8 bytes", "'<u8'");
    let big = |id: u32| (id as u16).to_be_bytes();
    assert_not_tokens(ids().flat_map(big).collect(), "big-endian", "'>u2'");
    assert_not_tokens(
        ids().flat_map(u32::to_be_bytes).collect(),
        "big-endian",
        "'>u4'",
    );
    // Llama 3's.
    let large = ids().map(|id| id + 70_000);
    assert_not_tokens(
        large.flat_map(u32::to_le_bytes).collect(),
        "4 bytes",
        "taper prepare",
    );
}

#[test]
fn characters_in_other_widths_are_refused_or_said() {
    let characters = || ids().map(|id| id % 65);
    let pickle = include_bytes!("../fixtures/meta.pkl").to_vec();
    let with_vocabulary = |bytes| open(&[("train.bin", bytes), ("meta.pkl", pickle.clone())]);
    let wide = characters().flat_map(u32::to_le_bytes).collect();
    let data = with_vocabulary(wide).unwrap();
    let [DataWarning::HalfZeros { convert, .. }] = &data.warnings[..] else {
        panic!("{:?}", data.warnings);
    };
    assert!(convert.contains("'<u4'"), "{convert}");
    // Bytes: every token is outside of the vocabulary.
    let bytes = characters().map(|id| id as u8).collect();
    let error = with_vocabulary(bytes).unwrap_err();
    assert!(error.to_string().contains("one byte each"), "{error}");
}

#[test]
fn other_formats_are_named() {
    let rest: Vec<u8> = raw((0..500).map(|i| i * 97));
    let after = |head: &[u8]| [head, &rest[..]].concat();
    for (head, name, advice) in [
        (&b"\x93NUMPY\x01\x00v\x00"[..], "NumPy", "numpy.load"),
        (b"\x1f\x8b\x08\x08abcd\x00\x03", "gzip", "gunzip"),
        (b"\x28\xb5\x2f\xfd", "Zstandard", "zstd -d"),
        (b"PK\x03\x04\x00\x00", "zip", "array"),
        (
            b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00]",
            "pickle",
            "array",
        ),
        (b"PAR1", "Parquet", "taper prepare"),
        (b"\xff\xff\xff\xff\x00\x01", "Arrow", "taper prepare"),
    ] {
        assert_not_tokens(after(head), name, advice);
    }
    let text = "First Citizen:\nBefore we proceed any further, hear me speak. Wir h\u{f6}ren.\n";
    assert_not_tokens(text.repeat(20).into_bytes(), "text", "taper prepare");
    assert_not_tokens(format!("{text}x").into_bytes(), "text", "taper prepare");
}

#[test]
fn a_shard_of_wider_tokens_says_so() {
    let bytes = [
        shard([20_240_520, 1, 3000], []),
        ids().flat_map(u32::to_le_bytes).collect(),
    ];
    let error = open_train(bytes.concat()).unwrap_err();
    assert!(matches!(error, DataError::WrongCount { .. }), "{error}");
    assert!(error.hint().unwrap().contains("u32"), "{:?}", error.hint());
}

#[test]
fn tokens_are_not_taken_for_anything_else() {
    let files: [Vec<u16>; 7] = [
        vec![0; 4000],
        vec![8224; 4000],
        (0..4000).map(|i| [5, 0][i % 2]).collect(),
        (0..4000).collect(),
        (0..4000).map(|i| i % 65).collect(),
        ids().map(|id| id as u16).collect(),
        vec![256, 512],
    ];
    for file in files {
        let data = open_train(raw(file.iter().copied())).unwrap();
        assert_eq!(data.warnings, [], "{:?}", &file[..2]);
    }
}
