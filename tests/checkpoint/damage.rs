//! A checkpoint that is not exactly as it was written is refused by file name, and the one before
//! it is found. Includes every state in which a killed save can leave the folder.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use taper::checkpoint::{CheckpointError, Damage, Flaw, find_latest, open};

use super::{FILES, Run, names_in, temp_dir, tiny};

fn damage_of(path: &Path) -> Damage {
    match open(path) {
        Err(CheckpointError::Damaged {
            path: named,
            damage,
        }) => {
            assert_eq!(named, path);
            damage
        }
        other => panic!("expected damage, got {other:?}"),
    }
}

#[test]
fn any_file_deleted_cut_grown_or_changed_is_named_and_the_previous_checkpoint_is_found() {
    let cut = |bytes: &[u8]| bytes[..bytes.len() - 1].to_vec();
    let grown = |bytes: &[u8]| [bytes, b"x"].concat();
    let emptied = |_: &[u8]| Vec::new();
    let changed = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bytes
    };
    type Edit<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
    let edits: [Option<Edit>; 5] = [
        None,
        Some(&cut),
        Some(&grown),
        Some(&emptied),
        Some(&changed),
    ];
    for name in FILES {
        for (case, edit) in edits.iter().enumerate() {
            let out = temp_dir();
            let good = Run::at(tiny(true), 1);
            good.save(out.path());
            let newest = Run::at(tiny(true), 2).save(out.path());
            let file = newest.join(name);
            match edit {
                None => fs::remove_file(&file).unwrap(),
                Some(edit) => fs::write(&file, edit(&fs::read(&file).unwrap())).unwrap(),
            }
            let damage = damage_of(&newest);
            // The manifest is the one file with no other record of what it must be.
            let kind = match (name, case) {
                (_, 0) => matches!(damage.flaw, Flaw::Missing),
                ("MANIFEST.json", _) => true,
                (_, 1..=3) => matches!(damage.flaw, Flaw::Size { .. }),
                _ => matches!(damage.flaw, Flaw::Checksum),
            };
            assert!(kind, "{name}, case {case}: {damage}");
            if (name, case) != ("MANIFEST.json", 4) {
                assert_eq!(damage.file, name, "case {case}: {damage}");
            }
            let found = find_latest(out.path()).unwrap();
            good.assert_is(&found.checkpoint);
            let [skipped] = &found.skipped[..] else {
                panic!("{name}, case {case}: {:?}", found.skipped);
            };
            assert_eq!((&skipped.path, &skipped.damage), (&newest, &damage));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_byte_flipped_in_any_file_is_detected(
        name in prop::sample::select(&FILES[..]),
        at: prop::sample::Index,
        flip in 1..=255u8,
    ) {
        let out = temp_dir();
        let path = Run::at(tiny(true), 1).save(out.path());
        let file = path.join(name);
        let mut bytes = fs::read(&file).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        fs::write(&file, bytes).unwrap();
        let damage = damage_of(&path);
        prop_assert!(name == "MANIFEST.json" || damage.file == name, "{}", damage);
    }
}

#[test]
fn every_flip_in_the_manifest_is_detected() {
    let out = temp_dir();
    let path = Run::at(tiny(true), 1).save(out.path());
    let manifest = path.join("MANIFEST.json");
    let good = fs::read(&manifest).unwrap();
    for at in 0..good.len() {
        // Case, digits, spaces for tabs, and what is no longer UTF-8.
        for flip in [0x20, 0x01, 0x29, 0x80] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            fs::write(&manifest, bytes).unwrap();
            assert!(open(&path).is_err(), "byte {at} flipped by {flip:#x}");
        }
    }
}

#[test]
fn a_manifest_cannot_drop_a_file_point_elsewhere_or_be_of_another_format() {
    let out = temp_dir();
    let path = Run::at(tiny(true), 1).save(out.path());
    let manifest = path.join("MANIFEST.json");
    let good: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&manifest).unwrap()).unwrap();
    let refusal = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut json = good.clone();
        edit(&mut json);
        fs::write(
            &manifest,
            serde_json::to_string_pretty(&json).unwrap() + "\n",
        )
        .unwrap();
        damage_of(&path).to_string()
    };
    let dropped = refusal(&|json| {
        json["files"].as_object_mut().unwrap().remove("state.json");
    });
    assert!(dropped.contains("does not list `state.json`"), "{dropped}");
    let outside =
        refusal(&|json| json["files"]["../vocab.json"] = json["files"]["vocab.json"].clone());
    assert!(outside.contains("it lists `../vocab.json`"), "{outside}");
    let newer = refusal(&|json| json["taper_checkpoint"] = 2.into());
    assert!(
        newer.contains("has format 2, this taper reads 1"),
        "{newer}"
    );
}

#[test]
fn a_save_killed_before_the_rename_is_ignored_and_swept_up() {
    // The temporary folder with its first 0, 1, ... all files: the manifest is the last.
    for files in 0..=FILES.len() {
        let (out, elsewhere) = (temp_dir(), temp_dir());
        let good = Run::at(tiny(true), 1);
        good.save(out.path());
        let unfinished = Run::at(tiny(true), 2).save(elsewhere.path());
        let temporary = out.path().join(".tmp-ckpt-00000002");
        fs::create_dir(&temporary).unwrap();
        for name in FILES.iter().rev().take(files) {
            fs::copy(unfinished.join(name), temporary.join(name)).unwrap();
        }
        let found = find_latest(out.path()).unwrap();
        good.assert_is(&found.checkpoint);
        assert_eq!(found.skipped, []);
        Run::at(tiny(true), 3).save(out.path());
        assert_eq!(names_in(out.path()), ["ckpt-00000001", "ckpt-00000003"]);
    }
}

#[test]
fn a_replacement_killed_between_its_renames_still_has_a_good_copy() {
    let out = temp_dir();
    let old = Run::at(tiny(true), 2);
    let complete = old.save(out.path());
    let aside = out.path().join(".old-ckpt-00000002");
    fs::rename(&complete, &aside).unwrap();
    fs::create_dir(out.path().join(".tmp-ckpt-00000002")).unwrap();
    old.assert_is(&find_latest(out.path()).unwrap().checkpoint);
    // The next save, of another step, puts it back under its own name.
    Run::at(tiny(true), 1).save(out.path());
    assert_eq!(names_in(out.path()), ["ckpt-00000001", "ckpt-00000002"]);
    old.assert_is(&find_latest(out.path()).unwrap().checkpoint);
}

#[test]
fn a_replacement_killed_after_its_renames_is_the_new_one() {
    let out = temp_dir();
    Run::at(tiny(true), 2).save(out.path());
    let mut new = Run::at(tiny(true), 2);
    new.weights.fill(4.0);
    let aside = out.path().join(".old-ckpt-00000002");
    fs::rename(out.path().join("ckpt-00000002"), &aside).unwrap();
    let elsewhere = temp_dir();
    fs::rename(new.save(elsewhere.path()), out.path().join("ckpt-00000002")).unwrap();
    let found = find_latest(out.path()).unwrap();
    new.assert_is(&found.checkpoint);
    assert_eq!(found.skipped, []);
    Run::at(tiny(true), 3).save(out.path());
    assert!(!aside.exists());
}

#[test]
fn with_nothing_usable_the_error_says_where_it_looked_and_what_was_wrong() {
    let out = temp_dir();
    let empty = find_latest(out.path()).unwrap_err();
    let text = empty.to_string();
    assert!(
        text.contains(&out.path().display().to_string()) && text.contains("`ckpt-*`"),
        "{text}"
    );
    assert!(empty.hint().unwrap().contains("--resume"));

    fs::remove_file(
        Run::at(tiny(true), 1)
            .save(out.path())
            .join("MANIFEST.json"),
    )
    .unwrap();
    fs::write(
        Run::at(tiny(true), 2).save(out.path()).join("state.json"),
        "{}",
    )
    .unwrap();
    let damaged = find_latest(out.path()).unwrap_err().to_string();
    assert!(
        damaged.contains("ckpt-00000001`: `MANIFEST.json` is missing"),
        "{damaged}"
    );
    assert!(
        damaged.contains("ckpt-00000002`: `state.json` has 2 bytes"),
        "{damaged}"
    );
}

#[test]
fn paths_that_are_no_checkpoint_are_told_apart() {
    let out = temp_dir();
    let path = Run::at(tiny(true), 1).save(out.path());
    let refusal = |path: &Path| match open(path) {
        Err(error @ CheckpointError::NotACheckpoint { .. }) => {
            format!("{error}; {}", error.hint().unwrap())
        }
        other => panic!("expected a refusal, got {other:?}"),
    };
    assert!(refusal(&out.path().join("absent")).contains("nothing exists there"));
    assert!(refusal(&path.join("state.json")).contains("it is a file"));
    // A copy under a name of the user's own is still a checkpoint; without its manifest, a model.
    let copy = out.path().join("final");
    fs::rename(&path, &copy).unwrap();
    assert_eq!(open(&copy).unwrap().checkpoint.state.step, 1);
    fs::remove_file(copy.join("MANIFEST.json")).unwrap();
    assert!(refusal(&copy).contains("--set train.init_from="));
}
