//! The files that a name or a pattern means.

use std::fs::create_dir;

use taper::config::DataConfig;
use taper::data::{DataError, DataWarning, Dataset};
use tempfile::TempDir;

use crate::{raw, shard, write};

fn open(folder: &TempDir, train: &str) -> Result<Dataset, DataError> {
    write(folder, "validate.bin", raw(5000..5100));
    let inside = |name: &str| Some(folder.path().join(name).display().to_string());
    Dataset::open(&DataConfig {
        dataset: "quickstart".into(),
        data_dir: "/nonexistent".into(),
        train_bin: inside(train),
        val_bin: inside("validate.bin"),
    })
}

fn names(data: &Dataset) -> Vec<String> {
    let name = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    data.train.paths().map(name).collect()
}

#[test]
fn hidden_files_do_not_match_a_pattern() {
    let folder = TempDir::new().unwrap();
    write(&folder, "a_train_1.bin", raw(0..100));
    // Those that macOS lays beside files on other disks.
    write(&folder, "._a_train_1.bin", vec![0, 5, 22, 7, 0, 2]);
    write(&folder, ".a_train_2.bin", raw(0..100));
    for pattern in ["*train*.bin", "?_train_1.bin", "[!v]*"] {
        let data = open(&folder, pattern).unwrap();
        assert_eq!(names(&data), ["a_train_1.bin"], "{pattern}");
    }
    // By its own name it is meant.
    assert_eq!(
        names(&open(&folder, ".a_train_2.bin").unwrap()),
        [".a_train_2.bin"]
    );
    assert_eq!(names(&open(&folder, ".a_*").unwrap()), [".a_train_2.bin"]);
}

#[test]
fn a_folder_that_matches_is_passed_over_and_named() {
    let folder = TempDir::new().unwrap();
    write(&folder, "train_1.bin", raw(0..100));
    create_dir(folder.path().join("train_old.bin")).unwrap();
    let data = open(&folder, "train*.bin").unwrap();
    assert_eq!(names(&data), ["train_1.bin"]);
    let path = folder.path().join("train_old.bin");
    assert_eq!(
        data.warnings,
        [DataWarning::NoFile {
            split: "train",
            path
        }]
    );
    let error = open(&folder, "train_o*.bin").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("train_old.bin` matches, and is no file"),
        "{error}"
    );
}

#[test]
fn a_pattern_may_stand_for_folders() {
    let folder = TempDir::new().unwrap();
    for name in ["part 2", "part 1"] {
        create_dir(folder.path().join(name)).unwrap();
        let first = if name == "part 1" { 0 } else { 100 };
        write(&folder, &format!("{name}/x.bin"), raw(first..first + 100));
    }
    for pattern in ["part*/x.bin", "part [0-9]/*.bin", "**/x.bin"] {
        let data = open(&folder, pattern).unwrap();
        assert_eq!(data.train.len(), 200, "{pattern}");
        assert!(data.train.paths().next().unwrap().ends_with("part 1/x.bin"));
    }
}

#[test]
fn characters_of_a_pattern_in_names_that_exist_are_characters() {
    let folder = TempDir::new().unwrap();
    create_dir(folder.path().join("[v2]")).unwrap();
    write(&folder, "[v2]/train[1].bin", raw(0..100));
    for name in ["[v2]/train[1].bin", "[v2]/*.bin"] {
        assert_eq!(
            names(&open(&folder, name).unwrap()),
            ["train[1].bin"],
            "{name}"
        );
    }
}

#[test]
fn what_is_no_file_is_not_said_to_be_absent() {
    let folder = TempDir::new().unwrap();
    create_dir(folder.path().join("shards")).unwrap();
    let error = open(&folder, "shards").unwrap_err();
    assert!(error.to_string().contains("shards` is a folder"), "{error}");
    assert!(error.hint().unwrap().contains("--set data.train_bin="));
    let error = open(&folder, "train[.bin").unwrap_err();
    assert!(matches!(error, DataError::NoMatch { .. }), "{error}");
}

#[test]
fn files_named_by_path_give_the_data_their_name() {
    let folder = TempDir::new().unwrap();
    create_dir(folder.path().join("fineweb")).unwrap();
    write(
        &folder,
        "fineweb/train_1.bin",
        shard([20_240_520, 1, 100], 0..100),
    );
    let data = open(&folder, "fineweb/train_*.bin").unwrap();
    assert_eq!(data.info.name, "fineweb/train_*.bin");
}

#[test]
fn a_val_file_that_is_trained_on_is_named() {
    let folder = TempDir::new().unwrap();
    write(&folder, "part_1.bin", raw(0..100));
    write(&folder, "part_2.bin", raw(5000..5100));
    // The same tokens, in the file that `open` validates on.
    let data = open(&folder, "part_*.bin").unwrap();
    let [DataWarning::ValInTrain { val, train }] = &data.warnings[..] else {
        panic!("{:?}", data.warnings);
    };
    assert!(val.ends_with("validate.bin") && train.ends_with("part_2.bin"));
    assert_eq!(open(&folder, "part_1.bin").unwrap().warnings, []);

    write(&folder, "part_3.bin", raw(0..100));
    let data = open(&folder, "part_[13].bin").unwrap();
    assert!(matches!(
        &data.warnings[..],
        [DataWarning::Twice { split: "train", .. }]
    ));
}
