//! A folder with others at work in it: a second run, a job that prunes what is read, what cannot be deleted.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use taper::checkpoint::{CheckpointError, OutDir, find_latest, open, prune, sweep};

use super::{Run, names_in, temp_dir, tiny};

#[test]
fn a_folder_is_held_by_one_run_and_free_when_that_ends() {
    let parent = temp_dir();
    let out = parent.path().join("out");
    let (held, unlocked) = OutDir::hold(&out).unwrap();
    assert!(unlocked.is_none());
    match OutDir::hold(&out) {
        Err(error @ CheckpointError::InUse { .. }) => {
            let process = format!("process {} on host `", std::process::id());
            assert!(error.to_string().contains(&process), "{error}");
            assert!(error.hint().unwrap().contains("checkpoint.out_dir"));
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
    assert!(held.is_in_place());
    drop(held);
    assert!(!out.exists(), "an empty folder that was made goes again");
    // A killed run leaves the file, and no lock on it.
    fs::create_dir(&out).unwrap();
    fs::write(out.join(".lock"), "process 1 on host `elsewhere`\n").unwrap();
    let (held, _) = OutDir::hold(&out).unwrap();
    fs::rename(&out, parent.path().join("moved")).unwrap();
    assert!(!held.is_in_place());
}

#[test]
fn of_many_runs_that_start_at_once_one_holds_the_folder() {
    let out = temp_dir();
    let started = std::sync::Barrier::new(8);
    let held: usize = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    started.wait();
                    let held = OutDir::hold(out.path());
                    started.wait();
                    usize::from(held.is_ok())
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).sum()
    });
    assert_eq!(held, 1);
    assert_eq!(names_in(out.path()), [""; 0]);
}

/// A job that saves and prunes as fast as it can, beside readers.
#[test]
fn readers_beside_a_job_that_prunes_meet_no_damage() {
    let out = temp_dir();
    Run::at(tiny(true), 1).save(out.path());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for step in 2..150 {
                Run::at(tiny(true), step).save(out.path());
                prune(out.path(), 1, None).unwrap();
                // The same step once more: a replacement.
                Run::at(tiny(true), step).save(out.path());
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let found = find_latest(out.path()).unwrap();
            assert_eq!(found.skipped, []);
            // Deleted or not by now, what was verified can be read.
            let step = found.checkpoint.state.step;
            Run::at(tiny(true), step).assert_is(&found.checkpoint);
            match open(&found.checkpoint.path) {
                Ok(_) | Err(CheckpointError::NotACheckpoint { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    });
}

#[test]
fn a_wrong_record_in_the_manifest_is_the_manifests_damage() {
    for (key, flip) in [("sha256", 1), ("sha256", 2), ("size", 1)] {
        let out = temp_dir();
        let path = Run::at(tiny(true), 1).save(out.path());
        let manifest = path.join("MANIFEST.json");
        let mut bytes = fs::read(&manifest).unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let file = text.find("\"optimizer.safetensors\"").unwrap();
        let value = file + text[file..].find(key).unwrap() + key.len() + 3;
        let digit = value + text[value..].find(|c: char| c.is_ascii_digit()).unwrap();
        bytes[digit] ^= flip;
        fs::write(&manifest, bytes).unwrap();
        let damage = open(&path).unwrap_err().to_string();
        let expected =
            "`MANIFEST.json` cannot be read: its record of `optimizer.safetensors` changed";
        assert!(damage.contains(expected), "{damage}");
    }
}

#[test]
fn a_checkpoint_that_cannot_be_deleted_is_named_and_the_others_go() {
    let out = temp_dir();
    for step in 1..=4 {
        Run::at(tiny(true), step).save(out.path());
    }
    // In the way of the name under which the checkpoint is deleted.
    let in_the_way = out.path().join(".del-ckpt-00000002");
    fs::write(&in_the_way, "").unwrap();
    match prune(out.path(), 1, None) {
        Err(CheckpointError::NotRemoved { stuck }) => {
            let paths: Vec<_> = stuck.iter().map(|stuck| stuck.path.clone()).collect();
            assert_eq!(paths, [out.path().join("ckpt-00000002")]);
        }
        other => panic!("expected a stuck checkpoint, got {other:?}"),
    }
    let expected = [".del-ckpt-00000002", "ckpt-00000002", "ckpt-00000004"];
    assert_eq!(names_in(out.path()), expected);
    fs::remove_file(in_the_way).unwrap();
    Run::at(tiny(true), 5).save(out.path());
    prune(out.path(), 1, None).unwrap();
    assert_eq!(names_in(out.path()), ["ckpt-00000005"]);
}

#[test]
fn rubble_is_swept_up_and_what_was_set_aside_comes_back() {
    let out = temp_dir();
    let path = Run::at(tiny(true), 3).save(out.path());
    fs::rename(&path, out.path().join(".old-ckpt-00000003")).unwrap();
    for name in [".tmp-ckpt-00000004", ".del-ckpt-00000002", ".old-mine"] {
        fs::create_dir(out.path().join(name)).unwrap();
        fs::write(out.path().join(name).join("state.json"), "half").unwrap();
    }
    assert!(sweep(out.path()).unwrap().is_empty());
    assert_eq!(names_in(out.path()), [".old-mine", "ckpt-00000003"]);
}
