//! Weights of others from the command line: the same answers in `sample`, `train` and `plan`.

use std::fs;
use std::path::Path;

use tempfile::tempdir;

mod gpt2_folder;
mod process;

use gpt2_folder::{config, tensors, write};
use process::{Outcome, checkpoint, command, taper, tiny};
use taper::tokenizer::Tokenizer;

/// A run of two steps from weights, without a word in `[model]`.
fn train(folder: &Path, init_from: &str, further: &[&str]) -> Outcome {
    let init_from = format!("train.init_from={init_from}");
    let mut arguments = vec!["train", "--config", "weights.toml", "--set", &init_from];
    arguments.extend(further);
    fs::write(
        folder.join("weights.toml"),
        "[data]\ndataset = \"quickstart\"\n[train]\nsequences_per_step = 2\nmax_iters = 2\n\
         [optimizer]\nwarmup_iters = 0\n[eval]\neval_iters = 1\neval_batch_size = 1\n",
    )
    .unwrap();
    taper(folder, &arguments)
}

#[test]
fn weights_that_cannot_be_used_are_named_by_every_verb() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let mut heads = config();
    heads["n_head"] = 3.into();
    write(&path.join("heads"), &heads, &tensors(0));
    let mut layers = config();
    layers["num_hidden_layers"] = 2_000_000_000u64.into();
    layers.as_object_mut().unwrap().remove("n_layer");
    write(&path.join("layers"), &layers, &tensors(0));
    let mut broken = tensors(0);
    broken[4].2[13] = f32::NAN;
    write(&path.join("broken"), &config(), &broken);
    // With its tokenizer a model can be sampled; without one it can be trained on any text.
    let characters: Vec<char> = (0..128u8).map(char::from).collect();
    let tokenizer = Tokenizer::char(&characters).unwrap();
    let mut untied = tensors(0);
    untied.push(("lm_head.weight".into(), vec![128, 4], vec![0.5; 512]));
    write(&path.join("untied"), &config(), &untied);
    for (name, tensors) in [("broken", &broken), ("untied", &untied)] {
        let folder = path.join(format!("{name} with a tokenizer"));
        write(&folder, &config(), tensors);
        tokenizer.save(&folder).unwrap();
    }
    fs::create_dir(path.join("pickle")).unwrap();
    fs::write(path.join("pickle/config.json"), config().to_string()).unwrap();
    fs::write(path.join("pickle/pytorch_model.bin"), "PK\x03\x04").unwrap();
    fs::create_dir(path.join("nanogpt")).unwrap();
    fs::write(path.join("nanogpt/ckpt.pt"), "PK").unwrap();
    let cases: [(&str, &[&str]); 8] = [
        ("heads", &["`n_head` is 3", "which is 4"]),
        ("layers", &["`num_hidden_layers` is 2000000000", "4096"]),
        ("broken", &["c_attn.weight", "NaN at [1, 1]"]),
        ("untied", &["`lm_head.weight`", "another matrix"]),
        ("pickle", &["pytorch_model.bin", "ends early"]),
        ("nanogpt", &["nanogpt/ckpt.pt", "no file of `torch.save`"]),
        ("nanogpt/ckpt.pt", &["nanogpt/ckpt.pt", "no file"]),
        ("absent/ckpt.pt", &["`absent/ckpt.pt`", "check the path"]),
    ];
    for (name, words) in cases {
        eprintln!("{name}");
        let sampled = match name {
            "broken" | "untied" => format!("{name} with a tokenizer"),
            other => other.to_owned(),
        };
        taper(path, &["sample", "--checkpoint", &sampled, "--prompt", "a"]).refused(words);
        train(path, name, &["--quiet"]).refused(words);
        train(path, name, &["--eval-only", "--quiet"]).refused(words);
        if !["broken", "untied"].contains(&name) {
            let init_from = format!("train.init_from={name}");
            let plan = ["plan", "--config", "weights.toml", "--set", &init_from];
            taper(path, &plan).refused(words);
        }
    }
    assert!(!path.join("out").exists());
}

#[test]
fn given_sizes_that_the_weights_do_not_have_are_refused_with_the_edits() {
    let folder = tempdir().unwrap();
    write(&folder.path().join("small"), &config(), &tensors(0));
    let asked = [
        "--set",
        "n_layer=4",
        "--set",
        "bias=false",
        "--set",
        "vocab_size=512",
    ];
    train(folder.path(), "small", &asked).refused(&[
        "`model.n_layer`: the config has 4, the weights have 1",
        "`model.bias`: the config has false, the weights have true",
        "`model.vocab_size`: the config has 512, the weights have 128",
        "--set model.n_layer=1",
    ]);
    let asked = ["--set", "block_size=17"];
    train(folder.path(), "small", &asked).refused(&["`model.block_size` is 17"]);
    assert!(!folder.path().join("out").exists());
}

#[test]
fn the_stored_config_is_that_of_the_trained_model_and_the_same_command_goes_on() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    write(&path.join("small"), &config(), &tensors(0));
    train(path, "small", &["--quiet", "--set", "block_size=8"]).succeeded();
    let stored = fs::read_to_string(checkpoint(path, 2).join("config.toml")).unwrap();
    for line in [
        "n_layer = 1",
        "n_head = 2",
        "n_embd = 4",
        "block_size = 8",
        "vocab_size = 128",
        "bias = true",
    ] {
        assert!(
            stored.lines().any(|stored| stored == line),
            "{line} in\n{stored}"
        );
    }
    let longer = [
        "--quiet",
        "--set",
        "max_iters=3",
        "--set",
        "block_size=8",
        "--resume",
    ];
    train(path, "small", &longer).succeeded();
    // nanoGPT's way to go on.
    train(path, "resume", &["--quiet", "--set", "max_iters=4"]).succeeded();
    assert!(checkpoint(path, 4).exists());
    let another = ["--resume", "--set", "n_layer=2"];
    train(path, "small", &another).refused(&["`model.n_layer`", "--set model.n_layer=1"]);
}

#[test]
fn a_runs_folder_is_a_start_and_the_checkpoint_is_named() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    write(&path.join("small"), &config(), &tensors(0));
    train(path, "small", &["--quiet"]).succeeded();
    let further = ["--set", "checkpoint.out_dir=out-2"];
    let stderr = train(path, "out", &further).succeeded().stderr;
    assert!(
        stderr.contains("starting from `out`: the weights in `out/ckpt-00000002`"),
        "{stderr}"
    );
}

#[test]
fn sizes_beyond_any_use_are_refused_at_once() {
    let folder = tempdir().unwrap();
    for key in ["n_layer", "n_embd", "vocab_size", "block_size", "n_head"] {
        let setting = format!("model.{key}=2000000000");
        taper(folder.path(), &tiny(&setting, &[])).refused(&[&format!("`{key}` cannot be")]);
    }
}

#[test]
fn special_tokens_of_other_tokenizers_are_one_token_in_a_prompt_and_plain_text_in_data() {
    let folder = tempdir().unwrap();
    let json = gpt2_folder::tokenizer().to_string();
    fs::write(folder.path().join("tokenizer.json"), json).unwrap();
    let tokenizer = Tokenizer::load(folder.path()).unwrap();
    assert_eq!(tokenizer.encode_prompt("<s>ab</s>").unwrap(), [0, 3, 4, 1]);
    // Neither cut to 2 tokens nor filled up to 8, which the file asks for and transformers leaves out as well.
    assert_eq!(tokenizer.encode("abcde").unwrap(), [3, 4, 5, 6, 7]);
    assert!(tokenizer.encode("<s>").unwrap().is_empty());
    assert!(tokenizer.is_special(1) && !tokenizer.is_special(3));
    let (name, config) = &tokenizer.files().unwrap()[1];
    assert_eq!(name, "tokenizer_config.json");
    let config = String::from_utf8_lossy(config);
    assert!(
        !config.contains("<|endoftext|>"),
        "it is no token there: {config}"
    );
}

#[test]
fn a_name_of_the_hub_is_found_by_sample_as_by_train() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let snapshot = path.join("hub/models--me--mine/snapshots/abc");
    write(&snapshot, &config(), &tensors(4));
    let run = |arguments: &[&str]| {
        let mut command = command(path, arguments);
        let output = command
            .env("HF_HUB_CACHE", path.join("hub"))
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    fs::write(
        snapshot.join("tokenizer.json"),
        gpt2_folder::tokenizer().to_string(),
    )
    .unwrap();
    let sample = [
        "sample",
        "--checkpoint",
        "me/mine",
        "--prompt",
        "a",
        "--max-new-tokens",
        "1",
    ];
    assert_eq!(run(&sample), (Some(0), String::new()));
    let (code, stderr) = run(&["sample", "--checkpoint", "me/other"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("the model `me/other`"), "{stderr}");
    assert!(stderr.contains("HF_HUB_OFFLINE"), "{stderr}");
}
