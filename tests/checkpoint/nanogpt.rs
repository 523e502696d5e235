//! nanoGPT's `ckpt.pt`: its weights, and a run that goes on from it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use taper::checkpoint::{
    AdamWState, CheckpointError, NanoGptState, TorchFlaw, check_stored_keys, find_latest_to_resume,
    find_weights, open, open_to_resume, stored_config, write_nanogpt,
};
use taper::config::{BatchSize, Config};
use taper::schedule::LrSchedule;
use taper::terms::{Gelu, ModelDims};

use super::torch::with_pickle;
use super::{Run, bits, names_in, temp_dir, tiny};

fn state() -> NanoGptState {
    let config = json!({
        "learning_rate": 1e-3, "min_lr": 1e-4, "grad_clip": 1, "decay_lr": true, "warmup_iters": 100,
        "lr_decay_iters": 5000, "batch_size": 12, "gradient_accumulation_steps": 5, "dropout": 0.1,
        "dataset": "shakespeare_char", "device": "cuda", "always_save_checkpoint": false,
    });
    let config: BTreeMap<String, Value> = serde_json::from_value(config).unwrap();
    NanoGptState {
        iter_num: 250,
        best_val_loss: Some(1.75),
        config,
        optimizer: AdamWState {
            learning_rate: 3e-4,
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-8,
            weight_decay: 0.1,
        },
    }
}

/// A run with the exact GELU, as nanoGPT's are.
fn run(bias: bool) -> Run {
    let dims = ModelDims {
        gelu: Gelu::Erf,
        ..tiny(bias)
    };
    Run::at(dims, 250)
}

fn write(path: &Path, run: &Run, with_moments: bool, state: &NanoGptState) {
    let moments = with_moments.then_some([&run.m as _, &run.v as _]);
    write_nanogpt(path, &run.dims, &run.weights, moments, state).unwrap();
}

/// A checkpoint in the format of nanoGPT, and its bytes.
pub fn written(bias: bool) -> (Run, Vec<u8>) {
    let folder = temp_dir();
    let (path, run) = (folder.path().join("ckpt.pt"), run(bias));
    write(&path, &run, true, &state());
    assert_eq!(names_in(folder.path()), ["ckpt.pt"]);
    (run, fs::read(path).unwrap())
}

#[test]
fn weights_are_found_by_the_file_and_by_its_folder() {
    for bias in [true, false] {
        let folder = temp_dir();
        let (run, bytes) = written(bias);
        let file = folder.path().join("ckpt.pt");
        fs::write(&file, bytes).unwrap();
        for name in [&file, folder.path()] {
            let found = find_weights(name.to_str().unwrap(), Path::new("no-hub")).unwrap();
            let pretrained = &found.pretrained;
            assert_eq!((&pretrained.path, &pretrained.dims), (&file, &run.dims));
            assert_eq!(pretrained.dataset.as_deref(), Some("shakespeare_char"));
            assert!(found.notes.is_empty(), "{:?}", found.notes);
            let mut weights = vec![7.0; run.weights.len()];
            pretrained.load_weights(&run.dims, &mut weights).unwrap();
            assert_eq!(bits(&weights), bits(&run.weights));
        }
    }
}

#[test]
fn a_run_comes_back_with_its_moments_its_step_and_its_settings() {
    for bias in [true, false] {
        let folder = temp_dir();
        let (run, bytes) = written(bias);
        fs::write(folder.path().join("ckpt.pt"), bytes).unwrap();
        let checkpoint = find_latest_to_resume(folder.path()).unwrap().checkpoint;
        let len = run.weights.len();
        let [mut weights, mut m, mut v] = [(); 3].map(|()| vec![7.0; len]);
        checkpoint
            .load_into(&run.dims, &mut weights, &mut m, &mut v)
            .unwrap();
        let found = [weights, m, v].map(|values| bits(&values));
        assert_eq!(
            found,
            [&run.weights, &run.m, &run.v].map(|values| bits(values))
        );
        let state = &checkpoint.state;
        assert_eq!((state.step, state.best_val_loss), (250, Some(1.75)));
        assert_eq!(state.tokens_seen, 250 * 60 * 6);
        let notes = checkpoint.notes().join("\n");
        assert!(notes.contains("goes on at step 250"), "{notes}");
        assert!(notes.contains("dropout masks begin anew"), "{notes}");
        let config = stored_config(&checkpoint.config_toml).unwrap();
        assert_eq!(config.sequences_per_step(), 60);
        assert_eq!((config.optimizer.beta2, config.model.bias), (0.99, bias));
    }
}

#[test]
fn checkpoints_of_tapers_own_come_first() {
    let folder = temp_dir();
    let (run, bytes) = written(true);
    let file = folder.path().join("ckpt.pt");
    fs::write(&file, bytes).unwrap();
    let own = run.save(folder.path());
    let newest = find_latest_to_resume(folder.path()).unwrap().checkpoint;
    assert_eq!((&newest.path, newest.is_of_nanogpt), (&own, false));
    // The file is of no branch, so that a run from it begins another one.
    let checkpoint = open_to_resume(&file).unwrap().checkpoint;
    let branch = checkpoint.branch_in(folder.path(), &[]).unwrap();
    assert_eq!((branch.leaves, branch.lineage.branch), (Some(0), 1));
    assert!(!branch.is_inside && branch.lineage.ancestors.is_empty());
    // One that is damaged is no reason to fall back to the file.
    fs::remove_file(own.join("state.json")).unwrap();
    let error = find_latest_to_resume(folder.path()).unwrap_err();
    assert!(
        matches!(error, CheckpointError::NoneFound { .. }),
        "{error}"
    );
    assert!(open(&file).is_err());
}

/// The config of the same run.
fn config() -> Config {
    let mut config = Config::default();
    let model = &mut config.model;
    (model.n_layer, model.n_head, model.n_embd) = (2, 2, 10);
    (model.block_size, model.vocab_size) = (6, Some(13));
    (model.bias, model.gelu, model.dropout) = (true, Gelu::Erf, 0.1);
    let optimizer = &mut config.optimizer;
    (optimizer.learning_rate, optimizer.min_lr) = (1e-3, 1e-4);
    (optimizer.beta2, optimizer.warmup_iters) = (0.99, 100);
    optimizer.lr_decay_iters = 5000;
    config.train.batch_size = BatchSize::Sequences(20);
    config.train.gradient_accumulation_steps = Some(3);
    config
}

fn differing(config: &Config, stored: &str) -> Vec<String> {
    match check_stored_keys(config, stored, 7) {
        Ok(()) => Vec::new(),
        Err(CheckpointError::Contradiction { differences }) => differences
            .into_iter()
            .map(|difference| difference.key)
            .collect(),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn settings_that_change_the_numbers_must_be_those_of_the_file() {
    let folder = temp_dir();
    let file = folder.path().join("ckpt.pt");
    fs::write(&file, written(true).1).unwrap();
    let stored = open_to_resume(&file).unwrap().checkpoint.config_toml;
    let mut same = config();
    // nanoGPT has no such settings.
    same.train.seed = 5;
    same.data.dataset = "elsewhere".into();
    assert_eq!(differing(&same, &stored), [""; 0]);
    type Change = fn(&mut Config);
    let changes: [(&str, Change); 11] = [
        ("model.n_layer", |c| c.model.n_layer = 3),
        ("model.gelu", |c| c.model.gelu = Gelu::Tanh),
        ("model.dropout", |c| c.model.dropout = 0.2),
        ("optimizer.learning_rate", |c| {
            c.optimizer.learning_rate = 2e-3
        }),
        ("optimizer.weight_decay", |c| c.optimizer.weight_decay = 0.0),
        ("optimizer.beta1", |c| c.optimizer.beta1 = 0.8),
        ("optimizer.grad_clip", |c| c.optimizer.grad_clip = 0.0),
        ("optimizer.lr_decay_iters", |c| {
            c.optimizer.lr_decay_iters = 9
        }),
        ("optimizer.decay_lr", |c| c.optimizer.decay_lr = false),
        ("optimizer.lr_schedule", |c| {
            c.optimizer.lr_schedule = LrSchedule::Linear
        }),
        ("train.sequences_per_step", |c| {
            c.train.gradient_accumulation_steps = Some(4)
        }),
    ];
    for (key, change) in changes {
        let mut other = config();
        change(&mut other);
        assert_eq!(differing(&other, &stored), [key]);
    }
}

#[test]
fn settings_that_the_file_does_not_have_are_told_and_not_compared() {
    let folder = temp_dir();
    let file = folder.path().join("ckpt.pt");
    let mut state = state();
    for key in ["warmup_iters", "batch_size"] {
        state.config.remove(key);
    }
    state.config.insert("grad_clip".into(), json!("one"));
    write(&file, &run(true), true, &state);
    let checkpoint = open_to_resume(&file).unwrap().checkpoint;
    let notes = checkpoint.notes().join("\n");
    for key in ["`warmup_iters`", "`sequences_per_step`", "`grad_clip`"] {
        assert!(notes.contains(key), "{key}: {notes}");
    }
    let mut other = config();
    (other.optimizer.warmup_iters, other.optimizer.grad_clip) = (7, 7.0);
    other.train.batch_size = BatchSize::Sequences(7);
    assert_eq!(differing(&other, &checkpoint.config_toml), [""; 0]);
}

#[test]
fn a_file_without_moments_gives_weights_and_no_run() {
    let folder = temp_dir();
    let file = folder.path().join("ckpt.pt");
    write(&file, &run(true), false, &state());
    let name = file.to_str().unwrap();
    assert!(find_weights(name, Path::new("no-hub")).is_ok());
    let error = open_to_resume(&file).unwrap_err();
    let hint = error.hint().unwrap();
    assert!(
        hint.contains(&format!("train.init_from={name}")),
        "{error}: {hint}"
    );
}

/// What `--resume` makes of a checkpoint in whose pickle the first `from` is `to`: the notes, or the error.
fn resumed(from: &[u8], to: &[u8]) -> Result<String, CheckpointError> {
    let folder = temp_dir();
    let file = folder.path().join("ckpt.pt");
    let changed = with_pickle(&written(true).1, |pickle| {
        let mut windows = pickle.windows(from.len());
        let at = windows.position(|window| window == from).unwrap();
        [&pickle[..at], to, &pickle[at + from.len()..]].concat()
    });
    fs::write(&file, changed).unwrap();
    open_to_resume(&file).map(|found| found.checkpoint.notes().join("\n"))
}

#[test]
fn parts_that_are_not_as_nanogpt_writes_them_are_told_or_refused() {
    // Keys after their lengths, and a value.
    let told: [(&[u8], &[u8], &str); 3] = [
        (
            b"iter_numJ\xfa\0\0\0",
            b"iter_numJ\xfb\0\0\0",
            "250 updates in 251 steps",
        ),
        (b"X\x07\0\0\0dropout", b"X\x07\0\0\0rotated", "`rotated`"),
        (
            b"X\x06\0\0\0config",
            b"X\x06\0\0\0CONFIG",
            "`learning_rate`",
        ),
    ];
    for (from, to, words) in told {
        let notes = resumed(from, to).unwrap();
        assert!(notes.contains(words), "`{words}` is not in {notes}");
    }
    let refused: [(&[u8], &[u8], &str); 9] = [
        (
            b"iter_numJ\xfa\0\0\0",
            b"iter_numJ\xff\xff\xff\xff",
            "-1 as `iter_num`",
        ),
        (b"iter_num", b"iter_NUM", "absent as `iter_num`"),
        (
            b"model_args",
            b"model_ARGS",
            "a dictionary without `model_args`",
        ),
        (b"params](J", b"params](NJ", "groups of"),
        (b"amsgrad\x89", b"amsgrad\x88", "an AdamW with `amsgrad`"),
        (b"exp_avg_sq", b"exp_avg_SQ", "`exp_avg_sq` of"),
        (
            b"weight_decayG\0\0\0\0\0\0\0\0",
            b"weight_decayG?\xf0\0\0\0\0\0\0",
            "layer norms by 1",
        ),
        (b"n_headJ\x02", b"n_headJ\x03", "`n_head` is 3"),
        (b"bias\x88", b"biasN", "`bias` is None"),
    ];
    for (from, to, words) in refused {
        let error = resumed(from, to).unwrap_err();
        assert!(
            error.to_string().contains(words),
            "`{words}` is not in {error}"
        );
        let hint = error.hint().unwrap();
        let is_of_the_run = matches!(
            &error,
            CheckpointError::Torch(error) if matches!(error.flaw, TorchFlaw::Run { .. })
        );
        assert_eq!(
            hint.contains("--set train.init_from="),
            is_of_the_run,
            "{hint}"
        );
    }
}

#[test]
fn objects_that_are_no_checkpoint_of_nanogpt_are_named() {
    let (folder, mut dims) = (temp_dir(), run(true).dims);
    let file = folder.path().join("model.pt");
    dims.gelu = Gelu::Tanh;
    let run = Run::at(dims, 1);
    write(&file, &run, false, &state());
    let found = find_weights(file.to_str().unwrap(), Path::new("no-hub")).unwrap();
    assert_eq!(found.pretrained.dims.gelu, Gelu::Erf);
    // In a folder, only the name that nanoGPT gives it is looked for.
    let error = find_weights(folder.path().to_str().unwrap(), Path::new("no-hub"))
        .err()
        .unwrap();
    let hint = error.hint().unwrap();
    assert!(
        hint.contains(&format!("name the file: `{}`", file.display())),
        "{hint}"
    );
    let absent = open_to_resume(&folder.path().join("absent.pt")).unwrap_err();
    assert!(
        absent.to_string().contains("nothing exists there"),
        "{absent}"
    );
    let zip = b"PK\x03\x04";
    fs::write(&file, zip).unwrap();
    match open_to_resume(&file) {
        Err(CheckpointError::Torch(error)) => {
            assert!(matches!(error.flaw, TorchFlaw::CutShort(_)), "{error}");
        }
        other => panic!("{other:?}"),
    }
}
