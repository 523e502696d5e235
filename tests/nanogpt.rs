//! nanoGPT's `ckpt.pt` from the command line: sampled, evaluated, a start, and a run that goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::tempdir;

mod process;

use process::{Outcome, checkpoint, taper, tiny};
use taper::checkpoint::{AdamWState, NanoGptState, open, write_nanogpt};
use taper::data::QUICKSTART_CORPUS;
use taper::model::ParamLayout;
use taper::terms::{Gelu, ModelDims};

/// Settings of a config of the run in the file, beside those of [`process::TINY`].
const SAME: &str = "model.gelu=erf optimizer.learning_rate=1e-3 optimizer.min_lr=1e-4 optimizer.beta2=0.99 \
    eval.eval_interval=100 checkpoint.checkpoint_interval=100";

/// Writes a run of nanoGPT at step 7 with `vocab_size` tokens.
fn write(path: &Path, vocab_size: usize, dataset: &str) {
    let dims = ModelDims {
        n_layer: 2,
        n_head: 2,
        n_embd: 16,
        block_size: 16,
        vocab_size,
        bias: false,
        dropout: 0.1,
        gelu: Gelu::Erf,
    };
    let len = ParamLayout::new(&dims).len;
    let small = |scale: f32| (0..len).map(move |i| (i * 37 % 101) as f32 * scale);
    let weights: Vec<f32> = small(1e-3).map(|x| x - 0.05).collect();
    let [m, v] = [1e-6, 1e-6].map(|scale| small(scale).collect::<Vec<f32>>());
    let config = json!({
        "learning_rate": 1e-3, "min_lr": 1e-4, "grad_clip": 1.0, "decay_lr": true, "warmup_iters": 2,
        "lr_decay_iters": 40, "batch_size": 1, "gradient_accumulation_steps": 2, "dropout": 0.1, "dataset": dataset,
    });
    let config: BTreeMap<String, Value> = serde_json::from_value(config).unwrap();
    let state = NanoGptState {
        iter_num: 7,
        best_val_loss: Some(4.5),
        config,
        optimizer: AdamWState {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-8,
            weight_decay: 0.1,
        },
    };
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_nanogpt(path, &dims, &weights, Some([&m, &v]), &state).unwrap();
}

fn characters() -> usize {
    QUICKSTART_CORPUS.chars().collect::<BTreeSet<char>>().len()
}

/// The run of the file with `further` settings and `flags`.
fn train(folder: &Path, further: &str, flags: &[&str]) -> Outcome {
    taper(folder, &tiny(&format!("{SAME} {further}"), flags))
}

#[test]
fn a_run_goes_on_from_a_file_or_from_its_folder_and_is_then_tapers_own() {
    for (file, flag) in [
        ("elsewhere/ckpt.pt", "--resume=elsewhere/ckpt.pt"),
        ("elsewhere/ckpt.pt", "--resume=elsewhere"),
        ("out/ckpt.pt", "--resume"),
        ("out/ckpt.pt", "--resume=auto"),
    ] {
        let folder = tempdir().unwrap();
        let path = folder.path();
        write(&path.join(file), characters(), "chars");
        let before = fs::read(path.join(file)).unwrap();
        let stderr = train(path, "", &[flag]).succeeded().stderr;
        assert!(stderr.contains("goes on at step 7"), "{flag}: {stderr}");
        assert_eq!(fs::read(path.join(file)).unwrap(), before);
        let own = open(&checkpoint(path, 10)).unwrap().checkpoint;
        assert_eq!((own.state.step, own.state.tokens_seen), (10, 10 * 32));
        // The run's own seed; nanoGPT's file has none.
        assert_eq!(own.state.seed, 1337);
        assert!(own.state.best_val_loss.is_some_and(|best| best <= 4.5));
        train(path, "train.max_iters=11", &["--resume", "--quiet"]).succeeded();
        assert!(checkpoint(path, 11).exists());
    }
}

#[test]
fn another_experiment_is_refused_with_the_edits() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    write(&path.join("ckpt.pt"), characters(), "chars");
    let further = "optimizer.learning_rate=2e-3 model.n_layer=3 train.sequences_per_step=4";
    train(path, further, &["--resume=ckpt.pt"]).refused(&[
        "`model.n_layer`: the checkpoint has 2, the config has 3",
        "`optimizer.learning_rate`: the checkpoint has 0.001, the config has 0.002",
        "`train.sequences_per_step`: the checkpoint has 2, the config has 4",
        "--set optimizer.learning_rate=0.001",
    ]);
    assert!(!checkpoint(path, 10).exists());
    // A vocabulary that is padded, and one of other data.
    write(&path.join("ckpt.pt"), characters() + 300, "chars");
    let resumed = train(path, "", &["--resume=ckpt.pt"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    write(&path.join("ckpt.pt"), 5, "chars");
    let further = "checkpoint.out_dir=out-2";
    train(path, further, &["--resume=ckpt.pt"]).refused(&["5 token embeddings"]);
}

#[test]
fn weights_are_evaluated_and_are_a_start() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    write(&path.join("out/ckpt.pt"), characters(), "chars");
    let flags = ["--eval-only", "--quiet"];
    let evaluated = train(path, "", &[&flags[..], &["--resume"]].concat()).succeeded();
    let start = "train.init_from=out/ckpt.pt";
    let started = train(path, start, &flags).succeeded();
    let losses = |outcome: &Outcome| outcome.stdout.split_once(": ").unwrap().1.to_owned();
    assert_eq!(losses(&evaluated), losses(&started));
    assert!(
        evaluated.stdout.starts_with("step 7: "),
        "{}",
        evaluated.stdout
    );
    assert!(started.stdout.starts_with("step 0: "), "{}", started.stdout);
    // Untrained weights are not what somebody means in the folder of a run.
    train(path, "", &flags).refused(&["`out` holds a run", "--resume"]);
    let further = "train.init_from=out/ckpt.pt checkpoint.out_dir=new train.max_iters=1";
    train(path, further, &["--quiet"]).succeeded();
    assert!(path.join("new/ckpt-00000001").exists());
}

#[test]
fn a_model_of_characters_is_sampled_with_the_meta_pkl_of_its_dataset() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    write(&path.join("ckpt.pt"), 3, "chars");
    let sample = [
        "sample",
        "--checkpoint",
        "ckpt.pt",
        "--max-new-tokens",
        "20",
    ];
    taper(path, &sample).refused(&["tokenizer"]);
    let data = path.join("data/chars");
    fs::create_dir_all(&data).unwrap();
    // {'vocab_size': 3, 'itos': {0: 'a', 1: 'b', 2: '\n'}}
    let meta =
        b"\x80\x02}(X\x0a\0\0\0vocab_sizeK\x03X\x04\0\0\0itos}(K\x00X\x01\0\0\0aK\x01X\x01\0\0\0b\
        K\x02X\x01\0\0\0\nuu.";
    fs::write(data.join("meta.pkl"), meta).unwrap();
    let sampled = taper(path, &sample).succeeded();
    assert!(
        sampled.stderr.contains("data/chars/meta.pkl"),
        "{}",
        sampled.stderr
    );
    assert!(
        sampled.stdout.chars().all(|c| "ab\n".contains(c)),
        "{}",
        sampled.stdout
    );
    assert!(sampled.stdout.len() > 20);
}
