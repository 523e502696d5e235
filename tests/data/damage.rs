//! Files that are no token files, are missing, or change while they are open.

use std::error::Error;
use std::fs::OpenOptions;
#[cfg(unix)]
use std::process::Command;

use taper::config::DataConfig;
use taper::data::{DataError, Dataset};
use tempfile::TempDir;

use crate::{config, open_train, raw, shard, window, write};

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
        ("openwebtext", "taper prepare openwebtext --out"),
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
