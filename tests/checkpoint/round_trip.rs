//! What is saved is what is loaded; what cannot be saved harms nothing.

use std::fs;
use std::io::ErrorKind;

use proptest::prelude::*;
use taper::checkpoint::{CheckpointError, TrainState, find_latest, open, save};
use taper::error::Error;
use taper::terms::ModelDims;

use super::{FILES, Run, names_in, state, temp_dir, tiny};

#[test]
fn a_checkpoint_comes_back_bit_for_bit() {
    for bias in [true, false] {
        let out = temp_dir();
        let run = Run::at(tiny(bias), 2000);
        let path = run.save(out.path());
        assert_eq!(path, out.path().join("ckpt-00002000"));
        assert_eq!(names_in(&path), FILES);
        assert_eq!(names_in(out.path()), ["ckpt-00002000"]);
        run.assert_is(&open(&path).unwrap().checkpoint);
        run.assert_is(&open(out.path()).unwrap().checkpoint);
        run.assert_is(&find_latest(out.path()).unwrap().checkpoint);
    }
}

/// Tensors that take several chunks to read and write, the last of them short.
#[test]
fn large_tensors_come_back_bit_for_bit() {
    let out = temp_dir();
    let dims = ModelDims {
        n_embd: 150,
        vocab_size: 901,
        ..tiny(true)
    };
    let run = Run::at(dims, 1);
    run.save(out.path());
    run.assert_is(&find_latest(out.path()).unwrap().checkpoint);
}

#[test]
fn one_snapshot_has_one_sequence_of_bytes() {
    let (a, b) = (temp_dir(), temp_dir());
    let run = Run::at(tiny(true), 5);
    let (a, b) = (run.save(a.path()), run.save(b.path()));
    for name in FILES {
        assert!(
            fs::read(a.join(name)).unwrap() == fs::read(b.join(name)).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn the_newest_step_is_found_even_past_eight_digits() {
    let out = temp_dir();
    for step in [99_999_999, 100_000_000, 3] {
        Run::at(tiny(true), step).save(out.path());
    }
    let found = find_latest(out.path()).unwrap();
    assert_eq!(found.checkpoint.state.step, 100_000_000);
    assert_eq!(found.skipped, []);
}

#[test]
fn saving_a_step_again_replaces_it() {
    let out = temp_dir();
    let mut run = Run::at(tiny(true), 8);
    run.save(out.path());
    run.weights[3] = 0.5;
    run.extra_files.clear();
    let path = run.save(out.path());
    assert_eq!(names_in(out.path()), ["ckpt-00000008"]);
    assert!(!path.join("vocab.json").exists());
    run.assert_is(&open(&path).unwrap().checkpoint);
}

#[test]
fn another_architecture_is_refused_key_by_key() {
    let out = temp_dir();
    let path = Run::at(tiny(true), 1).save(out.path());
    let checkpoint = open(&path).unwrap().checkpoint;
    let mut other = tiny(true);
    (other.n_head, other.block_size, other.dropout) = (5, 4, 0.0);
    let len = taper::model::ParamLayout::new(&other).len;
    let buffer = || vec![0.0; len];
    let loaded = checkpoint.load_into(&other, &mut buffer(), &mut buffer(), &mut buffer());
    let error = Error::from(loaded.unwrap_err());
    let text = error.to_string();
    assert!(
        text.contains("`model.n_head`: the checkpoint has 2, the config has 5"),
        "{text}"
    );
    assert!(
        text.contains("`model.block_size`: the checkpoint has 6, the config has 4"),
        "{text}"
    );
    assert!(!text.contains("dropout"), "{text}");
    assert!(error.hint().unwrap().contains("`--set model.n_head=2`"));
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn an_out_dir_that_is_a_file_is_a_typed_error() {
    let parent = temp_dir();
    let file = parent.path().join("out");
    fs::write(&file, "a file").unwrap();
    for out_dir in [file.clone(), file.join("below")] {
        let run = Run::at(tiny(true), 1);
        match save(&out_dir, &run.snapshot()) {
            Err(CheckpointError::Save {
                path,
                action: "create",
                ..
            }) => assert_eq!(path, out_dir),
            other => panic!("expected a refusal, got {other:?}"),
        }
    }
    assert_eq!(fs::read(&file).unwrap(), b"a file");
}

#[test]
fn a_save_that_fails_half_way_leaves_the_earlier_checkpoints_and_no_rubble() {
    let out = temp_dir();
    let earlier = Run::at(tiny(true), 1);
    earlier.save(out.path());
    // Both a new step and a replacement; the name is longer than any file system allows.
    for step in [1, 2] {
        let mut run = Run::at(tiny(true), step);
        run.weights.fill(9.0);
        run.extra_files.push(("x".repeat(300), Vec::new()));
        let error = save(out.path(), &run.snapshot()).unwrap_err();
        match &error {
            CheckpointError::Save {
                action: "write",
                source,
                ..
            } => {
                assert_eq!(source.kind(), ErrorKind::InvalidFilename);
            }
            other => panic!("expected a failed write, got {other:?}"),
        }
        assert!(
            error
                .hint()
                .unwrap()
                .contains("earlier checkpoints are intact")
        );
        assert_eq!(names_in(out.path()), ["ckpt-00000001"]);
        earlier.assert_is(&find_latest(out.path()).unwrap().checkpoint);
    }
}

#[test]
fn extra_files_cannot_take_a_name_of_tapers_or_leave_the_folder() {
    let out = temp_dir();
    for name in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/x",
        "MANIFEST.json",
        "state.json",
    ] {
        let mut run = Run::at(tiny(true), 1);
        run.extra_files.push((name.into(), Vec::new()));
        match save(out.path(), &run.snapshot()) {
            Err(CheckpointError::ExtraFile { name: refused }) => assert_eq!(refused, name),
            other => panic!("`{name}`: expected a refusal, got {other:?}"),
        }
    }
    assert!(names_in(out.path()).is_empty());
}

#[test]
fn a_removed_out_dir_is_made_again() {
    let parent = temp_dir();
    let out = parent.path().join("a/b");
    Run::at(tiny(true), 1).save(&out);
    fs::remove_dir_all(parent.path().join("a")).unwrap();
    Run::at(tiny(true), 2).save(&out);
    assert_eq!(find_latest(&out).unwrap().checkpoint.state.step, 2);
}

#[test]
fn a_newer_minor_versions_state_is_read_and_an_older_ones_too() {
    let mut json = serde_json::to_value(state(3)).unwrap();
    json["a_later_idea"] = serde_json::json!({"x": [1, 2]});
    assert_eq!(
        serde_json::from_value::<TrainState>(json).unwrap(),
        state(3)
    );
    let oldest = r#"{"step":3,"seed":1,"sequences_per_step":4,"micro_batch":2,"tokens_seen":9}"#;
    let read: TrainState = serde_json::from_str(oldest).unwrap();
    assert_eq!(
        (read.best_val_loss, read.best_step, read.metrics_bytes),
        (None, None, 0)
    );
}

proptest! {
    #[test]
    fn losses_in_the_state_come_back_bit_for_bit(bits: u64, special in 0..6usize) {
        let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 5e-324].get(special);
        let value = special.copied().unwrap_or(f64::from_bits(bits));
        let mut before = state(1);
        before.best_val_loss = Some(value);
        let json = serde_json::to_string(&before).unwrap();
        let after: TrainState = serde_json::from_str(&json).unwrap();
        let after = after.best_val_loss.expect("a value is not lost");
        prop_assert!(after.to_bits() == value.to_bits() || after.is_nan() && value.is_nan());
    }
}
