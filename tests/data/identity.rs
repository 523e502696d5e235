//! The identity of a dataset: its tokens and its vocabulary, and neither names nor places.

use taper::data::DatasetIdentity;

use crate::{open, raw, shard};

fn pickle(characters: &str) -> Vec<u8> {
    let items: String = (0..)
        .zip(characters.chars())
        .map(|(id, c)| format!("I{id}\nV{c}\ns"))
        .collect();
    let size = characters.chars().count();
    format!("(dVvocab_size\nI{size}\nsVitos\n(d{items}s.").into_bytes()
}

/// Of a dataset of characters, with these train files.
fn identity(characters: &str, files: &[(&str, Vec<u8>)]) -> DatasetIdentity {
    let files = [files, &[("meta.pkl", pickle(characters))]].concat();
    open(&files).unwrap().identity
}

#[test]
fn names_and_headers_of_files_do_not_matter() {
    let here = identity("abc", &[("train.bin", raw([0, 1, 2, 1]))]);
    let there = identity(
        "abc",
        &[("train_x.bin", shard([20_240_520, 1, 4], [0, 1, 2, 1]))],
    );
    assert_eq!(here, there);
    assert!(there.differences_from(&here).is_empty());
}

#[test]
fn tokens_and_the_borders_of_files_matter() {
    let before = identity("abc", &[("train.bin", raw([0, 1, 2, 1]))]);
    let says = |files: &[(&str, Vec<u8>)]| identity("abc", files).differences_from(&before);
    let other = says(&[("train.bin", raw([0, 1, 2, 2]))]);
    assert_eq!(
        other,
        ["the train split: other tokens, as many as then (4)"]
    );
    let longer = says(&[("train.bin", raw([0, 1, 2, 1, 0]))]);
    assert_eq!(longer, ["the train split: 5 tokens now, 4 then"]);
    // No window crosses from one file to the next.
    let cut = says(&[("train_1.bin", raw([0, 1])), ("train_2.bin", raw([2, 1]))]);
    assert_eq!(cut, ["the train split: other tokens, as many as then (4)"]);
}

#[test]
fn the_same_ids_of_other_characters_are_other_data() {
    let files = [("train.bin", raw([0, 1, 2, 1]))];
    let (abc, xyz) = (identity("abc", &files), identity("xyz", &files));
    assert_eq!(
        xyz.differences_from(&abc),
        ["the tokenizer: its ids stand for other text now"]
    );
    // A tokenizer may become known, and must not get lost.
    let unknown = DatasetIdentity {
        tokenizer: None,
        ..abc.clone()
    };
    assert!(abc.differences_from(&unknown).is_empty());
    assert_eq!(
        unknown.differences_from(&abc),
        ["the tokenizer: there is none now"]
    );
}

/// Longer files are sampled; the sample has their ends, and whatever moves the tokens moves those in it.
#[test]
fn a_long_file_is_told_from_one_that_is_shifted_or_ends_otherwise() {
    let token = |i: u32| (i.wrapping_mul(40_503) >> 7) as u16 & 1;
    let long = |first: u32| raw((first..first + (9 << 20)).map(token));
    let of = |bytes: Vec<u8>| identity("ab", &[("train.bin", bytes)]).train;
    let before = of(long(0));
    assert_ne!(of(long(1)), before);
    let mut other_end = long(0);
    let last = other_end.len() - 2;
    other_end[last] ^= 1;
    assert_ne!(of(other_end), before);
}
