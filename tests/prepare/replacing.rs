//! A dataset that takes the place of another.

use std::fs;
use std::path::Path;

use taper::config::DataConfig;
use taper::data::Dataset;
use taper::data::prepare::Note;
use taper::tokenizer::TokenizerKind;
use tempfile::TempDir;

use crate::process::{command, taper};
use crate::{file_names, make, request, write};

fn open(out: &Path) -> Dataset {
    let config = DataConfig {
        dataset: out.file_name().unwrap().to_str().unwrap().into(),
        data_dir: out.parent().unwrap().to_owned(),
        train_bin: None,
        val_bin: None,
    };
    Dataset::open(&config).unwrap()
}

/// The text of the first 16 training tokens.
fn beginning(dataset: &Dataset) -> String {
    let (mut inputs, mut targets) = ([0; 16], [0; 16]);
    dataset
        .train
        .copy_window(0, &mut inputs, &mut targets)
        .unwrap();
    dataset.tokenizer.as_ref().unwrap().decode(&inputs)
}

#[test]
fn a_run_goes_on_with_the_dataset_it_has_open() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let prepare = |text: &str| {
        let path = write(&folder, "text.txt", text);
        make(&request(&[path], TokenizerKind::Char, &out)).unwrap()
    };
    prepare("the text of yesterday, which is read");
    let before = open(&out);
    fs::write(out.join("notes.txt"), "mine").unwrap();
    fs::create_dir(out.join("plots")).unwrap();
    let made = prepare("some other text of the same length..");
    let [Note::Replaced { files, .. }] = &made.notes[..] else {
        panic!("{:?}", made.notes);
    };
    assert_eq!(
        files.join(" "),
        "train.bin val.bin tokenizer.json tokenizer_config.json meta.json"
    );
    assert_eq!(beginning(&before), "the text of yest");
    assert_eq!(beginning(&open(&out)), "some other text ");
    let expected = [
        "meta.json",
        "notes.txt",
        "plots",
        "tokenizer.json",
        "tokenizer_config.json",
        "train.bin",
        "val.bin",
    ];
    assert_eq!(file_names(&out), expected);
    assert_eq!(file_names(folder.path()), ["out", "text.txt"]);
}

/// The folder that the shell stands in stays where it is.
#[test]
fn the_current_folder_can_be_replaced() {
    let folder = TempDir::new().unwrap();
    write(&folder, "a.txt", "the text of yesterday, which is read");
    write(&folder, "b.txt", "some other text of the same length..");
    let here = folder.path().join("here");
    fs::create_dir(&here).unwrap();
    for name in ["../a.txt", "../b.txt", "../b.txt"] {
        taper(
            &here,
            &["prepare", name, "--tokenizer", "char", "--out", "."],
        )
        .succeeded();
    }
    assert_eq!(beginning(&open(&here)), "some other text ");
    assert_eq!(file_names(&here).len(), 5);
}

/// SIGKILL at whatever instant: all files are of the old dataset or all of the new one.
#[test]
fn a_killed_preparation_leaves_one_dataset() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out");
    let texts = [
        "the text of yesterday, which is read",
        "some other text of the same length..",
    ];
    let paths = [
        write(&folder, "a.txt", texts[0]),
        write(&folder, "b.txt", texts[1]),
    ];
    make(&request(&paths[..1], TokenizerKind::Char, &out)).unwrap();
    for n in 0..24 {
        let path = paths[(n + 1) % 2].to_str().unwrap();
        let arguments = ["prepare", path, "--tokenizer", "char", "--out", "out"];
        let mut child = command(folder.path(), &arguments).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2 * n as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        let dataset = open(&out);
        let begun = beginning(&dataset);
        assert!(texts.iter().any(|text| text.starts_with(&begun)), "{begun}");
        let meta = fs::read_to_string(out.join("meta.json")).unwrap();
        assert_eq!(
            meta.contains("b.txt"),
            texts[1].starts_with(&begun),
            "{meta}"
        );
    }
    make(&request(&paths[..1], TokenizerKind::Char, &out)).unwrap();
    assert_eq!(file_names(folder.path()), ["a.txt", "b.txt", "out"]);
}
