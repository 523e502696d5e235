//! Which checkpoints stay.

use std::fs;
use std::path::Path;

use taper::checkpoint::prune;

use super::{Run, names_in, temp_dir, tiny};

fn out_dir_with(steps: &[u64]) -> tempfile::TempDir {
    let out = temp_dir();
    for &step in steps {
        Run::at(tiny(true), step).save(out.path());
    }
    out
}

fn corrupt(folder: &Path, name: &str) {
    let mut bytes = fs::read(folder.join(name)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(folder.join(name), bytes).unwrap();
}

#[test]
fn the_newest_and_the_best_stay() {
    let out = out_dir_with(&[1, 2, 3, 4, 5]);
    let removed = prune(out.path(), 2, Some(2)).unwrap();
    let expected = [3, 1].map(|step| out.path().join(format!("ckpt-{step:08}")));
    assert_eq!(removed, expected);
    assert_eq!(
        names_in(out.path()),
        ["ckpt-00000002", "ckpt-00000004", "ckpt-00000005"]
    );
    assert!(prune(out.path(), 2, Some(2)).unwrap().is_empty());
    prune(out.path(), 2, Some(5)).unwrap();
    assert_eq!(names_in(out.path()), ["ckpt-00000004", "ckpt-00000005"]);
}

#[test]
fn the_last_intact_one_stays_whatever_is_asked() {
    let out = out_dir_with(&[1, 2, 3]);
    corrupt(&out.path().join("ckpt-00000003"), "optimizer.safetensors");
    prune(out.path(), 0, None).unwrap();
    // The damaged one does not count, and is left for its owner to look at.
    assert_eq!(names_in(out.path()), ["ckpt-00000002", "ckpt-00000003"]);
    prune(out.path(), 1, None).unwrap();
    assert_eq!(names_in(out.path()), ["ckpt-00000002", "ckpt-00000003"]);
}

#[test]
fn a_prune_killed_half_way_is_finished_by_the_next() {
    let out = out_dir_with(&[1, 2, 3]);
    let doomed = out.path().join(".tmp-ckpt-00000001");
    fs::create_dir(&doomed).unwrap();
    fs::write(doomed.join("state.json"), "half deleted").unwrap();
    prune(out.path(), 1, None).unwrap();
    assert_eq!(names_in(out.path()), ["ckpt-00000003"]);
}

#[test]
fn torn_folders_do_not_count_as_kept() {
    let out = out_dir_with(&[1, 2, 3, 4]);
    fs::remove_file(out.path().join("ckpt-00000003/state.json")).unwrap();
    prune(out.path(), 2, None).unwrap();
    assert_eq!(
        names_in(out.path()),
        ["ckpt-00000002", "ckpt-00000003", "ckpt-00000004"]
    );
}

#[test]
fn what_is_not_tapers_is_never_touched() {
    let out = out_dir_with(&[7, 8, 9]);
    let folders = [
        "ckpt-1",
        "ckpt-00000001",
        "ckpt-best",
        ".tmp-mine",
        "ckpt-00000002x",
        "runs",
    ];
    for name in folders {
        fs::create_dir(out.path().join(name)).unwrap();
        fs::write(out.path().join(name).join("thesis.txt"), "years of work").unwrap();
    }
    fs::write(out.path().join("ckpt-00000003"), "a file").unwrap();
    fs::write(out.path().join("metrics.jsonl"), "").unwrap();
    prune(out.path(), 1, None).unwrap();
    Run::at(tiny(true), 10).save(out.path());
    let names = names_in(out.path());
    for name in folders {
        assert!(
            out.path().join(name).join("thesis.txt").exists(),
            "{name} in {names:?}"
        );
    }
    assert!(names.contains(&"ckpt-00000003".into()) && names.contains(&"metrics.jsonl".into()));
    assert!(!names.contains(&"ckpt-00000007".into()) && names.contains(&"ckpt-00000009".into()));
}

#[cfg(unix)]
#[test]
fn a_link_to_a_checkpoint_is_read_but_not_deleted() {
    let (out, archive) = (out_dir_with(&[2]), out_dir_with(&[1]));
    let kept = archive.path().join("ckpt-00000001");
    std::os::unix::fs::symlink(&kept, out.path().join("ckpt-00000001")).unwrap();
    assert!(prune(out.path(), 1, None).unwrap().is_empty());
    assert!(taper::checkpoint::open(&out.path().join("ckpt-00000001")).is_ok());
}
