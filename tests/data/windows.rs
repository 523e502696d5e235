//! Windows of tokens: slices of one file, in order, for any number of threads.

use std::sync::Barrier;

use proptest::prelude::*;
use taper::data::{Dataset, SplitTokens};

use crate::{open, open_train, raw, shard, window};

#[test]
fn a_nanogpt_file_has_a_window_at_each_of_its_starts() {
    let data = open_train(raw(0..1000)).unwrap();
    assert_eq!(data.train.len(), 1000);
    assert_eq!(data.train.window_count(8), 992);
    assert_eq!(window(&data.train, 0, 3), (vec![0, 1, 2], vec![1, 2, 3]));
    // The last target is the last token.
    assert_eq!(
        window(&data.train, 996, 3),
        (vec![996, 997, 998], vec![997, 998, 999])
    );
}

#[test]
fn an_llmc_shard_is_read_behind_its_header() {
    let data = open_train(shard([20_240_520, 1, 500], 7..507)).unwrap();
    assert_eq!(data.train.len(), 500);
    assert_eq!(window(&data.train, 0, 2), (vec![7, 8], vec![8, 9]));
}

#[test]
fn shards_are_joined_by_name_and_both_formats_mix() {
    let data = open(&[
        ("train_2.bin", raw(200..210)),
        ("train_1.bin", shard([20_240_520, 1, 10], 100..110)),
    ])
    .unwrap();
    assert_eq!(data.train.len(), 20);
    assert_eq!(data.train.window_count(4), 12);
    assert_eq!(window(&data.train, 5, 4).1, [106, 107, 108, 109]);
    assert_eq!(window(&data.train, 6, 4).0, [200, 201, 202, 203]);
}

proptest! {
    /// Tokens whose value is their position, so that a window shows where it was cut.
    #[test]
    fn a_window_never_crosses_from_one_file_to_the_next(
        lengths in prop::collection::vec(1usize..40, 1..6), block_size in 1usize..12,
    ) {
        let files: Vec<(String, Vec<u8>)> = lengths.iter().enumerate()
            .map(|(n, &len)| {
                let first = n as u16 * 1000;
                (format!("train_{n}.bin"), raw(first..first + len as u16))
            })
            .collect();
        let named: Vec<(&str, Vec<u8>)> = files.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
        // A vocabulary at hand, so that GPT-2's is not made for every case.
        let named = [named, vec![("meta.pkl", include_bytes!("../fixtures/meta.pkl").to_vec())]].concat();
        let data = open(&named).unwrap();
        let mut seen = Vec::new();
        for index in 0..data.train.window_count(block_size) {
            let (inputs, targets) = window(&data.train, index, block_size);
            for (offset, (&input, &target)) in inputs.iter().zip(&targets).enumerate() {
                prop_assert_eq!(input, inputs[0] + offset as u32);
                prop_assert_eq!(target, input + 1);
            }
            seen.push(inputs[0]);
        }
        let expected: Vec<u32> = lengths.iter().enumerate()
            .flat_map(|(n, &len)| (0..len.saturating_sub(block_size)).map(move |i| (n * 1000 + i) as u32))
            .collect();
        prop_assert_eq!(seen, expected);
    }
}

/// Ids below 50,257 that do not repeat soon.
fn scattered(first: usize, len: usize) -> Vec<u16> {
    let id = |i| (i * 40_503 % 50_257) as u16;
    (first..first + len).map(id).collect()
}

/// Files of scattered ids, with an llm.c header or without, and the ids of each.
fn scattered_files(files: &[(usize, bool)]) -> (Dataset, Vec<Vec<u16>>) {
    let mut named = vec![("meta.pkl", include_bytes!("../fixtures/meta.pkl").to_vec())];
    let names: Vec<String> = (0..files.len()).map(|n| format!("train_{n}.bin")).collect();
    let mut ids = Vec::new();
    for (n, &(len, header)) in files.iter().enumerate() {
        ids.push(scattered(n * 10_007, len));
        let tokens = ids[n].iter().copied();
        let bytes = if header {
            shard([20_240_520, 1, len as i32], tokens)
        } else {
            raw(tokens)
        };
        named.push((&names[n], bytes));
    }
    (open(&named).unwrap(), ids)
}

/// The windows of `block_size` as slices of the ids, in order.
fn slices(ids: &[Vec<u16>], block_size: usize) -> Vec<&[u16]> {
    ids.iter()
        .flat_map(|ids| ids.windows(block_size + 1))
        .collect()
}

fn assert_window(tokens: &SplitTokens, index: usize, slice: &[u16]) {
    let slice: Vec<u32> = slice.iter().copied().map(u32::from).collect();
    let block_size = slice.len() - 1;
    let (inputs, targets) = window(tokens, index as u64, block_size);
    // Not `assert_eq`, which would print thousands of ids.
    assert!(inputs == slice[..block_size], "inputs of window {index}");
    assert!(targets == slice[1..], "targets of window {index}");
}

proptest! {
    /// Also windows that take several reads.
    #[test]
    fn a_window_is_a_slice_of_its_file(
        files in prop::collection::vec((1usize..9000, any::<bool>()), 1..4),
        block_size in 1usize..7000,
        picks in prop::collection::vec(any::<prop::sample::Index>(), 16),
    ) {
        let (data, ids) = scattered_files(&files);
        let slices = slices(&ids, block_size);
        prop_assert_eq!(data.train.window_count(block_size), slices.len() as u64);
        if let Some(last) = slices.len().checked_sub(1) {
            let picks = picks.iter().map(|pick| pick.index(slices.len()));
            for index in picks.chain([0, last]) {
                assert_window(&data.train, index, slices[index]);
            }
        }
    }
}

#[test]
fn windows_end_with_their_file_and_start_with_the_next() {
    // Around one and two reads of 2048 inputs.
    for block_size in [1, 2047, 2048, 2049, 4096, 4097] {
        let (data, ids) = scattered_files(&[(5000, true), (4500, false)]);
        let slices = slices(&ids, block_size);
        let edge = 5000 - block_size;
        assert_eq!(slices[edge - 1].last(), ids[0].last());
        for index in [edge - 1, edge, slices.len() - 1] {
            assert_window(&data.train, index, slices[index]);
        }
    }
}

#[test]
fn threads_can_copy_windows_of_one_file_at_once() {
    let (data, ids) = scattered_files(&[(20_000, false)]);
    let slices = slices(&ids, 512);
    let together = Barrier::new(4);
    let copy_all = || {
        together.wait();
        for (index, slice) in slices.iter().enumerate() {
            assert_window(&data.train, index, slice);
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(copy_all))));
}
