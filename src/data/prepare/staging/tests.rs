//! A process that ends before any of its changes to the file system.

use std::cell::Cell;
use std::collections::BTreeSet;

use tempfile::TempDir;

use super::*;
use crate::config::DataConfig;
use crate::data::Dataset;
use crate::tokenizer::Tokenizer;

thread_local! {
    /// Changes until the process ends.
    static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// Fails from the end on: after a kill nothing is changed, and nothing is cleaned up.
pub(in crate::data::prepare) fn pass() -> io::Result<()> {
    match LEFT.get() {
        0 => Err(io::Error::other("killed")),
        left => {
            LEFT.set(left - 1);
            Ok(())
        }
    }
}

/// Lets this thread make `changes` more changes; `u64::MAX` is as many as it likes.
pub(in crate::data::prepare) fn kill_after(changes: u64) {
    LEFT.set(changes);
}

/// A dataset of 40 and 20 tokens, of the characters `a` and `other`.
fn fill(folder: &Path, other: char) {
    Tokenizer::char(&['a', other])
        .unwrap()
        .save(folder)
        .unwrap();
    let first = u8::from(other == 'z');
    let tokens: Vec<u8> = (0..40).flat_map(|n| [(n as u8 + first) % 2, 0]).collect();
    fs::write(folder.join("train.bin"), &tokens).unwrap();
    fs::write(folder.join("val.bin"), &tokens[..40]).unwrap();
    let meta = serde_json::json!({
        "tokenizer": "char", "vocab_size": 2, "train_tokens": 40, "val_tokens": 20, "documents": 1,
        "val_fraction": 0.5, "sources": [{"path": other.to_string(), "bytes": 60, "sha256": ""}],
    });
    fs::write(folder.join(META_FILE), meta.to_string()).unwrap();
}

fn files_of(folder: &Path) -> Vec<Option<Vec<u8>>> {
    let read = |name: &str| fs::read(folder.join(name)).ok();
    FILES.into_iter().map(read).collect()
}

/// The dataset in a folder, `b` or `z`, all of whose files belong together.
fn dataset(out: &Path) -> Option<char> {
    if !out.join(TRAIN_FILE).exists() {
        return None;
    }
    let opened = Dataset::open(&DataConfig {
        dataset: out.file_name().unwrap().to_str().unwrap().into(),
        data_dir: out.parent().unwrap().to_owned(),
        train_bin: None,
        val_bin: None,
    });
    assert_eq!(opened.unwrap().info.train_tokens, 40);
    let found = files_of(out);
    let same = ['b', 'z'].into_iter().find(|&other| {
        let expected = TempDir::new().unwrap();
        fill(expected.path(), other);
        files_of(expected.path()) == found
    });
    assert!(
        same.is_some(),
        "a mixture of two datasets in {}",
        out.display()
    );
    same
}

/// Writes the dataset of `z` to `out`; `twice` by two renames, as where folders cannot be exchanged.
fn replace(out: &Path, twice: bool) -> Result<(), PrepareError> {
    let mut staging = Staging::begin(out)?;
    fill(&staging.folder, 'z');
    if twice && !staging.replaced.is_empty() {
        staging.created = false;
        return staging.rename_twice();
    }
    staging.commit()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    entries.map(name).collect()
}

/// Kills [`replace`] before each of its changes in turn, and calls `check` with what is left; returns the number of kills.
fn kill_everywhere(twice: bool, make: impl Fn(&Path), mut check: impl FnMut(&Path, bool)) -> u64 {
    for kills in 0.. {
        let place = TempDir::new().unwrap();
        let out = place.path().join("mytext");
        make(&out);
        kill_after(kills);
        let finished = replace(&out, twice).is_ok();
        kill_after(u64::MAX);
        check(&out, finished);
        if finished {
            return kills;
        }
    }
    unreachable!("a preparation makes finitely many changes")
}

#[test]
fn a_kill_before_any_change_leaves_the_old_dataset_or_the_new_one() {
    for twice in [false, true] {
        let mut seen = BTreeSet::new();
        let make = |out: &Path| {
            fs::create_dir_all(out.join("folder")).unwrap();
            fill(out, 'b');
            fs::write(out.join("folder/notes.txt"), "mine").unwrap();
            fs::write(out.join("input.txt"), "mine, too").unwrap();
            fs::write(out.join(PICKLE_FILE), "nanoGPT's").unwrap();
        };
        let kills = kill_everywhere(twice, make, |out, finished| {
            // Only between two renames there is none.
            let before = dataset(out);
            assert!(before.is_some() || twice && !out.exists());
            assert!(!finished || before == Some('z'));
            // The next one clears what is left, and undoes nothing.
            drop(Staging::begin(out).unwrap());
            let after = dataset(out);
            assert!(after.is_some() && (before.is_none() || before == after));
            seen.extend(after);
            let pickle = (after == Some('b')).then_some(PICKLE_FILE);
            let expected = FILES.into_iter().chain(pickle);
            let expected: BTreeSet<String> = expected
                .chain(["folder", "input.txt"])
                .map(str::to_owned)
                .collect();
            assert_eq!(names(out), expected);
            assert_eq!(
                names(out.parent().unwrap()).len(),
                1,
                "something is left beside it"
            );
            assert_eq!(
                fs::read_to_string(out.join("folder/notes.txt")).unwrap(),
                "mine"
            );
        });
        assert!(kills > 7, "{kills}");
        assert_eq!(seen, BTreeSet::from(['b', 'z']));
    }
}

#[test]
fn a_first_dataset_appears_with_its_last_file() {
    let mut seen = BTreeSet::new();
    let kills = kill_everywhere(
        false,
        |_| {},
        |out, finished| {
            assert!(!finished || dataset(out) == Some('z'));
            seen.insert(dataset(out));
            drop(Staging::begin(out).unwrap());
            assert!(!out.join(".prepare").exists());
        },
    );
    assert!(kills > 8, "{kills}");
    assert_eq!(seen, BTreeSet::from([None, Some('z')]));
}

#[cfg(unix)]
#[test]
fn a_replaced_folder_stays_the_same_folder() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let place = TempDir::new().unwrap();
    let out = place.path().join("mytext");
    fs::create_dir(&out).unwrap();
    fill(&out, 'b');
    fs::set_permissions(&out, fs::Permissions::from_mode(0o770)).unwrap();
    let link = place.path().join("link");
    std::os::unix::fs::symlink(&out, &link).unwrap();
    let identity = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        (metadata.ino(), metadata.mode())
    };
    let before = identity(&out);
    replace(&link, false).unwrap();
    assert_eq!(dataset(&out), Some('z'));
    assert_eq!(identity(&out), before);
    assert!(link.is_symlink());
}

/// There is no room for a name beside one of 250 letters; a first dataset needs none.
#[test]
fn a_dataset_that_cannot_be_replaced_stays() {
    let place = TempDir::new().unwrap();
    let out = place.path().join("x".repeat(250));
    replace(&out, false).unwrap();
    let error = replace(&out, false).unwrap_err();
    assert!(
        matches!(error, PrepareError::Irreplaceable { .. }),
        "{error}"
    );
    assert_eq!(dataset(&out), Some('z'));
    assert_eq!(names(&out).len(), FILES.len());
}
