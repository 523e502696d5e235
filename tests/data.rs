//! Opening token files: what is accepted, how windows are cut, and how bad files are named.

use std::error::Error;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::process::Command;
use std::sync::Barrier;

use proptest::prelude::*;
use taper::config::DataConfig;
use taper::data::{DataError, Dataset, QUICKSTART_CORPUS, Tokens};
use taper::tokenizer::TokenizerKind;
use tempfile::TempDir;

/// nanoGPT's format.
fn raw(ids: impl IntoIterator<Item = u16>) -> Vec<u8> {
    ids.into_iter().flat_map(u16::to_le_bytes).collect()
}

/// llm.c's format, with the first three header words given.
fn shard(words: [i32; 3], ids: impl IntoIterator<Item = u16>) -> Vec<u8> {
    let mut header = [0i32; 256];
    header[..3].copy_from_slice(&words);
    let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(raw(ids));
    bytes
}

fn write(folder: &TempDir, name: &str, bytes: Vec<u8>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn config(folder: &Path) -> DataConfig {
    DataConfig {
        dataset: "set".into(),
        data_dir: folder.to_owned(),
        train_bin: Some(folder.join("train*.bin").display().to_string()),
        val_bin: Some(folder.join("val.bin").display().to_string()),
    }
}

/// A dataset whose train split has these files, and some valid val split.
fn open(files: &[(&str, Vec<u8>)]) -> Result<Dataset, DataError> {
    let folder = TempDir::new().unwrap();
    for (name, bytes) in files {
        write(&folder, name, bytes.clone());
    }
    write(&folder, "val.bin", raw(0..100));
    Dataset::open(&config(folder.path()))
}

fn open_train(bytes: Vec<u8>) -> Result<Dataset, DataError> {
    open(&[("train.bin", bytes)])
}

fn window(tokens: &Tokens, index: u64, block_size: usize) -> (Vec<u32>, Vec<u32>) {
    let (mut inputs, mut targets) = (vec![0; block_size], vec![0; block_size]);
    tokens
        .copy_window(index, &mut inputs, &mut targets)
        .unwrap();
    (inputs, targets)
}

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
        let named = [named, vec![("meta.pkl", include_bytes!("fixtures/meta.pkl").to_vec())]].concat();
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
    let mut named = vec![("meta.pkl", include_bytes!("fixtures/meta.pkl").to_vec())];
    let names: Vec<String> = (0..files.len()).map(|n| format!("train_{n}.bin")).collect();
    let mut ids = Vec::new();
    for (n, &(len, header)) in files.iter().enumerate() {
        ids.push(scattered(n * 10_007, len));
        let tokens = ids[n].iter().copied();
        let bytes = match header {
            true => shard([20_240_520, 1, len as i32], tokens),
            false => raw(tokens),
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

fn assert_window(tokens: &Tokens, index: usize, slice: &[u16]) {
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

#[test]
fn a_file_cut_short_while_it_is_open_is_an_error_that_says_what_is_missing() {
    for (header_bytes, bytes) in [
        (0, raw(0..10_000)),
        (1024, shard([20_240_520, 1, 10_000], 0..10_000)),
    ] {
        let folder = TempDir::new().unwrap();
        let path = write(&folder, "train.bin", bytes.clone());
        write(&folder, "val.bin", raw(0..100));
        let mut data = Dataset::open(&config(folder.path())).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        // Half of token 5000 is left.
        file.set_len(header_bytes + 2 * 5000 + 1).unwrap();

        assert_eq!(data.train.len(), 10_000);
        assert_eq!(window(&data.train, 4991, 8).1[7], 4999);
        let mut buffers = ([0; 8], [0; 8]);
        for index in [4992, 9991] {
            let error = data
                .train
                .copy_window(index, &mut buffers.0, &mut buffers.1)
                .unwrap_err();
            let offset = header_bytes + 2 * index;
            let expected = format!(
                "cannot read the token file `{}` any more: expected 18 bytes at offset {offset}",
                path.display()
            );
            assert_eq!(error.to_string(), expected);
            let source = error.source().unwrap().to_string();
            assert_eq!(source, "the file is shorter than when it was opened");
            let hint = error.hint().unwrap();
            assert!(hint.contains("restore the file") && hint.contains("`--resume`"));
        }
        let error = data.require(8, 50_257).unwrap_err();
        assert!(matches!(error, DataError::Unreadable { .. }), "{error}");

        std::fs::write(&path, bytes).unwrap();
        assert_eq!(window(&data.train, 9991, 8).1[7], 9999);
        data.require(8, 50_257).unwrap();
    }
}

/// Every shard stays open, and a shell may allow few open files.
#[cfg(unix)]
#[test]
fn more_shards_than_open_files_are_an_error_with_the_command_that_helps() {
    let folder = TempDir::new().unwrap();
    for n in 0..64 {
        write(&folder, &format!("train_{n}.bin"), raw(0..100));
    }
    let train = "ulimit -n 40 && exec \"$0\" train --config quickstart.toml \
        --set data.train_bin='train_*.bin' --set data.val_bin=train_1.bin";
    let output = Command::new("sh")
        .args(["-c", train, env!("CARGO_BIN_EXE_taper")])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot open `"), "{stderr}");
    assert!(
        stderr.contains("hint: ") && stderr.contains("`ulimit -n 4096`"),
        "{stderr}"
    );
}

#[test]
fn a_file_that_is_not_tokens_is_named_with_what_was_expected() {
    let cases = [
        (vec![], "is empty", "taper prepare"),
        (vec![1, 2, 3], "has 3 bytes, an odd number", "copy it"),
        (
            shard([20_240_801, 7, 4], 0..4),
            "magic number 20240801; expected llm.c's 20240520",
            "GPT-2",
        ),
        (
            shard([20_240_520, 2, 4], 0..4),
            "version 2; expected version 1",
            "GPT-2",
        ),
        (
            shard([20_240_520, 1, 9], 0..4),
            "promises 9 tokens, 5 of them are missing",
            "again",
        ),
        (
            shard([20_240_520, 1, 3], 0..4),
            "8 bytes after its header, which promises 3",
            "again",
        ),
        (
            shard([20_240_520, 1, -1], 0..4),
            "promises -1 tokens",
            "again",
        ),
        (
            raw([55_432, 308, 1, 0]),
            "8 bytes, its header alone takes 1024",
            "again",
        ),
    ];
    for (bytes, expected, advice) in cases {
        let error = open_train(bytes).unwrap_err();
        assert!(
            error.to_string().contains(expected),
            "{error}\nexpected: {expected}"
        );
        assert!(error.to_string().contains("train.bin"), "{error}");
        assert!(error.hint().unwrap().contains(advice), "{:?}", error.hint());
    }
}

#[test]
fn a_raw_file_of_zeros_is_not_taken_for_a_header() {
    assert_eq!(open_train(raw([0; 4096])).unwrap().train.len(), 4096);
    assert_eq!(open_train(raw([5; 4096])).unwrap().train.len(), 4096);
}

#[test]
fn a_missing_dataset_says_which_command_makes_it() {
    let folder = TempDir::new().unwrap();
    let cases = [
        ("shakespeare_char", "taper prepare shakespeare_char --out"),
        ("shakespeare", "taper prepare shakespeare --out"),
        (
            "openwebtext",
            "taper prepare openwebtext.jsonl --tokenizer gpt2 --out",
        ),
        ("mine", "taper prepare FILES... --out"),
    ];
    for (dataset, command) in cases {
        let config = DataConfig {
            dataset: dataset.into(),
            data_dir: folder.path().to_owned(),
            train_bin: None,
            val_bin: None,
        };
        let error = Dataset::open(&config).unwrap_err();
        assert!(
            error.to_string().contains(&format!("{dataset}/train.bin")),
            "{error}"
        );
        assert!(
            error.hint().unwrap().contains(command),
            "{:?}",
            error.hint()
        );
    }
}

#[test]
fn a_pattern_without_files_is_named() {
    let folder = TempDir::new().unwrap();
    let error = Dataset::open(&config(folder.path())).unwrap_err();
    assert!(
        matches!(error, DataError::NoMatch { split: "train", .. }),
        "{error}"
    );
    assert!(error.to_string().contains("train*.bin"));
}

#[test]
fn a_split_shorter_than_a_window_is_named_before_training() {
    let mut data = open_train(raw(0..64)).unwrap();
    assert!(data.require(63, 50_257).is_ok());
    let error = data.require(64, 50_257).unwrap_err();
    let expected = "has 64 tokens, a window takes 65 (block_size 64 + 1)";
    assert!(error.to_string().contains(expected), "{error}");
    assert!(error.hint().unwrap().contains("model.block_size=63"));
    // The val split is checked as well.
    let mut data = open_train(raw(0..1000)).unwrap();
    let error = data.require(100, 50_257).unwrap_err();
    assert!(
        error.to_string().contains("the val split is too short"),
        "{error}"
    );
}

#[test]
fn a_token_outside_the_vocabulary_is_found_before_training() {
    let mut ids: Vec<u16> = (0..200_000u32).map(|i| (i % 1000) as u16).collect();
    ids[123_457] = 1000;
    let mut data = open_train(raw(ids)).unwrap();
    let error = data.require(8, 1000).unwrap_err();
    let expected = "is 1000; the vocabulary has 1000 tokens (0 to 999)";
    assert!(error.to_string().contains("token 123457 of"), "{error}");
    assert!(error.to_string().contains(expected), "{error}");
    assert!(error.hint().unwrap().contains("`model.vocab_size` to 1001"));
    assert!(data.require(8, 1001).is_ok());
}

#[test]
fn a_window_with_a_token_outside_the_vocabulary_is_refused() {
    let mut ids: Vec<u16> = (0..100).collect();
    ids[50] = 300;
    let mut data = open_train(raw(ids)).unwrap();
    data.train.check_vocab(200).unwrap_err();
    let mut buffers = ([0; 4], [0; 4]);
    let mut copy = |index| {
        data.train
            .copy_window(index, &mut buffers.0, &mut buffers.1)
    };
    assert!(copy(45).is_ok() && copy(51).is_ok());
    // From the window whose last target it is to the one it starts.
    for index in 46..=50 {
        let error = copy(index).unwrap_err();
        assert!(
            matches!(
                error,
                DataError::TokenOutOfRange {
                    position: 50,
                    id: 300,
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn nanogpts_meta_pickle_gives_the_characters() {
    let folder = TempDir::new().unwrap();
    write(&folder, "train.bin", raw(0..65));
    write(&folder, "val.bin", raw(0..65));
    write(
        &folder,
        "meta.pkl",
        include_bytes!("fixtures/meta.pkl").to_vec(),
    );
    let data = Dataset::open(&config(folder.path())).unwrap();
    assert_eq!(data.info.vocab_size.value, 65);
    assert!(data.info.vocab_size.because.contains("meta.pkl"));
    let tokenizer = data.tokenizer.unwrap();
    assert_eq!(tokenizer.encode("\n !z").unwrap(), [0, 1, 2, 64]);
}

#[test]
fn a_vocabulary_that_cannot_be_read_is_named() {
    for (name, bytes) in [
        ("meta.pkl", b"\x80\x04not a pickle".to_vec()),
        ("meta.json", b"{".to_vec()),
        ("meta.json", b"{\"vocab_size\": 3}".to_vec()),
    ] {
        let error = open(&[("train.bin", raw(0..65)), (name, bytes)]).unwrap_err();
        assert!(matches!(error, DataError::Vocabulary { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn without_a_vocabulary_the_tokens_are_gpt2s_and_it_says_so() {
    let data = open_train(raw(0..100)).unwrap();
    assert_eq!(data.info.vocab_size.value, 50_257);
    assert!(data.info.vocab_size.because.contains("no meta.json"));
    assert_eq!(data.tokenizer.unwrap().kind(), TokenizerKind::Gpt2);
}

#[test]
fn quickstart_needs_no_file() {
    let config = DataConfig {
        dataset: "quickstart".into(),
        data_dir: "/nonexistent".into(),
        train_bin: None,
        val_bin: None,
    };
    let mut data = Dataset::open(&config).unwrap();
    let vocab_size = data.info.vocab_size.value;
    assert!((60..=96).contains(&vocab_size), "{vocab_size}");
    assert!(data.info.train_tokens > 8 * data.info.val_tokens);
    assert_eq!(
        data.train.len() + data.val.len(),
        QUICKSTART_CORPUS.len() as u64
    );
    data.require(256, vocab_size).unwrap();
    let (inputs, _) = window(&data.train, 0, 40);
    let text = data.tokenizer.unwrap().decode(&inputs);
    assert_eq!(text, QUICKSTART_CORPUS[..40]);
    assert!(QUICKSTART_CORPUS.contains("pub const QUICKSTART_CORPUS"));
}
