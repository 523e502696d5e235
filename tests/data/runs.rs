//! Whole runs on data that are not what they were: what is refused, what goes on, and what is said.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};
use taper::tokenizer::Tokenizer;
use tempfile::{TempDir, tempdir};

use crate::process::{Outcome, checkpoint, taper, tiny};
use crate::{raw, shard};

/// Writes a dataset of `characters`; the tokens follow from `step`.
fn dataset(folder: &Path, characters: &str, step: u16) {
    fs::create_dir_all(folder).unwrap();
    let count = characters.chars().count() as u16;
    let tokens = |n: u16| raw((0..n).map(|i| i * step % count));
    fs::write(folder.join("train.bin"), tokens(400)).unwrap();
    fs::write(folder.join("val.bin"), tokens(100)).unwrap();
    let characters: Vec<char> = characters.chars().collect();
    Tokenizer::char(&characters).unwrap().save(folder).unwrap();
}

/// A run of five steps on `data/mine`.
fn trained() -> TempDir {
    let folder = tempdir().unwrap();
    dataset(&folder.path().join("data/mine"), "abcdefg", 3);
    train(&folder, "train.max_iters=5", &[]).succeeded();
    folder
}

fn train(folder: &TempDir, settings: &str, flags: &[&str]) -> Outcome {
    let settings = format!("data.data_dir=data data.dataset=mine eval.eval_interval=5 {settings}");
    taper(folder.path(), &tiny(&settings, flags))
}

#[test]
fn a_run_goes_on_with_its_dataset_wherever_it_lies() {
    let folder = trained();
    let data = folder.path().join("data");
    fs::rename(data.join("mine"), data.join("moved")).unwrap();
    train(&folder, "data.dataset=moved", &["--resume"]).succeeded();
    assert!(checkpoint(folder.path(), 10).exists());
    // Its tokens, as shards that are named by path.
    let tokens = |name: &str| fs::read(data.join("moved").join(name)).unwrap();
    let ids = |bytes: Vec<u8>| bytes.chunks(2).map(|t| u16::from(t[0])).collect::<Vec<_>>();
    for (name, len) in [("train", 400), ("val", 100)] {
        let bytes = shard([20_240_520, 1, len], ids(tokens(&format!("{name}.bin"))));
        fs::write(data.join("moved").join(format!("fw_{name}_1.bin")), bytes).unwrap();
    }
    let shards = "data.train_bin=data/moved/fw_train_*.bin data.val_bin=data/moved/fw_val_*.bin \
        train.max_iters=12";
    let run = train(&folder, shards, &["--resume"]).succeeded();
    assert!(
        run.stderr.contains("moved/fw_train_*.bin"),
        "{}",
        run.stderr
    );
    assert!(checkpoint(folder.path(), 12).exists());
}

#[test]
fn a_run_does_not_go_on_with_other_data_of_the_same_name() {
    let folder = trained();
    let mine = folder.path().join("data/mine");
    dataset(&mine, "abcdefg", 4);
    for flag in ["--quiet", "--eval-only"] {
        train(&folder, "", &["--resume", flag]).refused(&[
            "`mine` is not the dataset that `out/ckpt-00000005` was trained on",
            "the train split: other tokens, as many as then (400)",
            "the val split: other tokens",
            "`--set train.init_from=out/ckpt-00000005",
        ]);
    }
    // The way on: the weights, in a new run or an evaluation.
    let weights = "train.init_from=out/ckpt-00000005 checkpoint.out_dir=new";
    train(&folder, weights, &["--eval-only"]).succeeded();
    train(&folder, weights, &[]).succeeded();

    dataset(&mine, "stuvwxy", 3);
    train(&folder, "", &["--resume"]).refused(&["the tokenizer: its ids stand for other text now"]);
    dataset(&mine, "abcdefg", 3);
    train(&folder, "", &["--resume"]).succeeded();
}

#[test]
fn a_checkpoint_from_before_identities_goes_on_unless_its_vocabulary_is_another() {
    let folder = trained();
    let path = checkpoint(folder.path(), 5);
    let mut state: serde_json::Value =
        serde_json::from_slice(&fs::read(path.join("state.json")).unwrap()).unwrap();
    state.as_object_mut().unwrap().remove("dataset").unwrap();
    replace(&path, "state.json", &state.to_string());
    dataset(&folder.path().join("data/mine"), "stuvwxy", 3);
    let words = [
        "another vocabulary",
        "the id 0 stands for \"a\" there, and for \"s\" in the dataset",
    ];
    train(&folder, "", &["--resume"]).refused(&words);
    dataset(&folder.path().join("data/mine"), "abcdefg", 4);
    train(&folder, "", &["--resume"]).succeeded();
}

/// Replaces a file of a checkpoint by a shorter text, and its sum in the manifest. The length stays.
fn replace(checkpoint: &Path, name: &str, text: &str) {
    let sum = |bytes: &[u8]| -> String {
        let digest = Sha256::digest(bytes);
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let path = checkpoint.join(name);
    let before = fs::read(&path).unwrap();
    let after = format!("{text:<width$}", width = before.len());
    fs::write(&path, &after).unwrap();
    let path = checkpoint.join("MANIFEST.json");
    let manifest = fs::read_to_string(&path).unwrap();
    fs::write(
        path,
        manifest.replace(&sum(&before), &sum(after.as_bytes())),
    )
    .unwrap();
}

#[test]
fn weights_are_not_fine_tuned_on_another_vocabulary_of_the_same_size() {
    let folder = trained();
    dataset(&folder.path().join("data/other"), "stuvwxy", 3);
    let other = "data.dataset=other checkpoint.out_dir=new train.init_from=out/ckpt-00000005";
    for flags in [&[][..], &["--eval-only"]] {
        train(&folder, other, flags).refused(&["`other` has another vocabulary than the weights"]);
    }
    assert!(!folder.path().join("new").exists());
    // Without a tokenizer nobody can tell.
    let bare = folder.path().join("bare");
    fs::create_dir(&bare).unwrap();
    for name in ["model.safetensors", "config.json"] {
        fs::copy(checkpoint(folder.path(), 5).join(name), bare.join(name)).unwrap();
    }
    let other = "data.dataset=other checkpoint.out_dir=new train.init_from=bare";
    let run = train(&folder, other, &[]).succeeded();
    assert!(
        run.stderr
            .contains("nothing tells whether the weights have the vocabulary")
    );
}

#[test]
fn a_model_without_a_tokenizer_is_not_sampled_in_gpt2s() {
    let folder = tempdir().unwrap();
    let mine = folder.path().join("data/mine");
    dataset(&mine, "abcdefg", 3);
    fs::remove_file(mine.join("tokenizer.json")).unwrap();
    fs::write(mine.join("meta.pkl"), b"(dVvocab_size\nI7\ns.").unwrap();
    let run = train(&folder, "train.max_iters=5", &[]).succeeded();
    let warning = "meta.pkl` gives a vocab_size and no characters";
    assert!(run.stderr.contains(warning), "{}", run.stderr);
    train(&folder, "", &["--resume"]).succeeded();
    let sample = ["sample", "--checkpoint", "out", "--max-new-tokens", "4"];
    taper(folder.path(), &sample)
        .refused(&["has no tokenizer.json, and its vocabulary of 7 tokens"]);
}

#[test]
fn a_val_split_inside_of_train_is_said_by_every_verb_that_reads_it() {
    let folder = tempdir().unwrap();
    dataset(&folder.path().join("data/mine"), "abcdefg", 3);
    let settings = "data.data_dir=data data.dataset=mine data.train_bin=data/mine/*.bin";
    let verbs = [
        tiny(settings, &["--eval-only"]),
        tiny(settings, &["--quiet"]),
    ];
    let mut plan = tiny(settings, &[]);
    plan[0] = "plan";
    for arguments in [&verbs[0], &verbs[1], &plan] {
        let run = taper(folder.path(), arguments).succeeded();
        let warning = "warning: the val split is trained on: `data/mine/val.bin`";
        assert!(run.stderr.contains(warning), "{}", run.stderr);
    }
}
