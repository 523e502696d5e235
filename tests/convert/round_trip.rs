//! Values that come back bit for bit, and what is said about what does not.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde_json::Value;
use taper::tokenizer::Tokenizer;
use tempfile::tempdir;

use super::process::{checkpoint, taper, tiny};
use super::{VOCAB_SIZE, convert, gpt2_folder, names_in, tensors, write_model};

/// Asserts that a folder holds the model of [`write_model`] to the last bit.
#[track_caller]
fn assert_same(folder: &Path) {
    let bytes = fs::read(folder.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let expected = tensors();
    assert_eq!(file.len(), expected.len());
    for (name, shape, values) in expected {
        let found = file.tensor(&name).unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!((found.dtype(), found.shape()), (Dtype::F32, &shape[..]));
        assert!(found.data() == bytes, "{name}");
    }
}

fn config(folder: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join("config.json")).unwrap()).unwrap()
}

#[test]
fn weights_come_back_from_llm_c_bit_for_bit() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    write_model(&path.join("model"));
    let done = convert(path, &["model", "--to", "llmc", "gpt2.bin"]).succeeded();
    assert_eq!(done.stdout, "gpt2.bin\n");
    for words in [
        "model: GPT-2, n_layer 2 x n_head 2 x n_embd 4, 16 positions, 100 tokens, biases, GELU by tanh",
        "note: the vocabulary of 100 is padded to 128 rows with zeros",
        "note: a dropout of 0.1 is left out",
    ] {
        assert!(done.stderr.contains(words), "{}", done.stderr);
    }
    let done = convert(path, &["gpt2.bin", "--to", "hf", "back"]).succeeded();
    assert_eq!(done.stdout, "back\n");
    assert!(
        done.stderr.contains("no tokenizer is written"),
        "{}",
        done.stderr
    );
    assert_same(&path.join("back"));
    let back = config(&path.join("back"));
    assert_eq!(back["vocab_size"], VOCAB_SIZE);
    assert_eq!(back["resid_pdrop"], 0.0);
    assert_eq!(names_in(path), ["back", "gpt2.bin", "model"]);
}

#[test]
fn a_model_of_llm_c_is_sampled_with_the_tokenizer_beside_it() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    write_model(&path.join("model"));
    let characters: Vec<char> = (0..VOCAB_SIZE as u8).map(|i| char::from(i + 28)).collect();
    let tokenizer = Tokenizer::char(&characters).unwrap();
    tokenizer.save(&path.join("model")).unwrap();
    fs::create_dir(path.join("llmc")).unwrap();
    convert(path, &["model", "--to", "llmc", "llmc/gpt2.bin"]).succeeded();
    let sample = |checkpoint: &str| {
        let arguments = [
            "sample",
            "--prompt",
            "abc",
            "--max-new-tokens",
            "9",
            "--checkpoint",
        ];
        taper(path, &[&arguments[..], &[checkpoint]].concat())
    };
    let words = [
        "`llmc` has no tokenizer.json",
        "copy the `tokenizer.json`",
        "into `llmc`",
    ];
    sample("llmc/gpt2.bin").refused(&words);
    tokenizer.save(&path.join("llmc")).unwrap();
    let text = sample("llmc/gpt2.bin").succeeded().stdout;
    assert_eq!(text, sample("model").succeeded().stdout);
    assert!(text.starts_with("abc"), "{text}");
}

#[test]
fn a_folder_keeps_its_tokenizer_and_the_ids_that_end_a_text() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let model = path.join("model");
    write_model(&model);
    let tokenizer = gpt2_folder::tokenizer().to_string();
    let files = [
        ("tokenizer.json", tokenizer.as_str()),
        ("special_tokens_map.json", "{}"),
        ("generation_config.json", "{\"eos_token_id\": [7, 9]}"),
    ];
    for (name, text) in files {
        fs::write(model.join(name), text).unwrap();
    }
    fs::write(model.join("README.md"), "no part of a model").unwrap();
    convert(path, &["model", "--to", "hf", "copy"]).succeeded();
    let copy = path.join("copy");
    assert_same(&copy);
    for (name, text) in files {
        assert_eq!(fs::read_to_string(copy.join(name)).unwrap(), text);
    }
    let config = config(&copy);
    assert_eq!(config["eos_token_id"], serde_json::json!([7, 9]));
    assert_eq!(
        (&config["resid_pdrop"], &config["n_layer"]),
        (&0.1.into(), &2.into())
    );
    assert!(!copy.join("README.md").exists());
}

#[test]
fn bfloat16_takes_half_the_bytes_and_the_config_says_it() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    write_model(&path.join("model"));
    convert(
        path,
        &["model", "--to", "hf", "half", "--dtype", "bfloat16"],
    )
    .succeeded();
    let half = path.join("half");
    assert_eq!(config(&half)["torch_dtype"], "bfloat16");
    let bytes = fs::read(half.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (name, _, values) in tensors() {
        let found = file.tensor(&name).unwrap();
        assert_eq!(found.dtype(), Dtype::BF16);
        let widened = found.data().as_chunks::<2>().0.iter();
        let widened =
            widened.map(|bytes| f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16));
        for (found, value) in widened.zip(values) {
            // Half of the distance between two neighbours of eight bits.
            assert!(
                (found - value).abs() <= value.abs() / 256.0,
                "{name}: {found} of {value}"
            );
        }
    }
    // Both widened again are the same numbers.
    convert(
        path,
        &["model", "--to", "llmc", "half.bin", "--dtype", "bfloat16"],
    )
    .succeeded();
    convert(path, &["half", "--to", "hf", "one"]).succeeded();
    convert(path, &["half.bin", "--to", "hf", "other"]).succeeded();
    let model = |name: &str| fs::read(path.join(name).join("model.safetensors")).unwrap();
    assert!(model("one") == model("other"));
}

#[test]
fn a_run_becomes_a_model_of_llm_c_that_evaluates_to_the_same_loss() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    let settings = "train.max_iters=4 model.gelu=tanh model.bias=false model.dropout=0";
    taper(path, &tiny(settings, &["--quiet"])).succeeded();
    let done = convert(path, &["out", "--to", "llmc", "run.bin"]).succeeded();
    for words in [
        "GPT-2 after 4 steps",
        "note: the state of training stays behind",
        "note: the model has no biases: they are written as zeros",
        "note: the tokenizer stays in `out/ckpt-00000004`",
    ] {
        assert!(done.stderr.contains(words), "{}", done.stderr);
    }
    let loss = |init_from: &str| {
        let init_from = format!("train.init_from={init_from}");
        // The weights decide the sizes, and the quickstart's text needs no tokenizer of the model.
        let toml =
            "[data]\ndataset = \"quickstart\"\n[eval]\neval_iters = 2\neval_batch_size = 2\n";
        fs::write(path.join("eval.toml"), toml).unwrap();
        let arguments = [
            "train",
            "--config",
            "eval.toml",
            "--eval-only",
            "--set",
            &init_from,
        ];
        taper(path, &arguments).succeeded().stdout
    };
    let own = checkpoint(path, 4);
    assert_eq!(loss("run.bin"), loss(own.to_str().unwrap()));
}

/// nanoGPT has GELU's exact form alone, in which the model is written where `--gelu` asks for it.
#[test]
fn weights_come_back_from_nanogpt_bit_for_bit() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    write_model(&path.join("model"));
    convert(path, &["model", "--to", "nanogpt", "ckpt.pt"]).refused(&[
        "nanoGPT has no such model",
        "`gelu` is tanh",
        "--gelu",
    ]);
    let half = ["--gelu", "erf", "--dtype", "bfloat16"];
    convert(
        path,
        &[&["model", "--to", "nanogpt", "ckpt.pt"], &half[..]].concat(),
    )
    .refused(&["float32 alone", "leave `--dtype` out"]);
    assert_eq!(names_in(path), ["model"]);
    let done = convert(
        path,
        &["model", "--to", "nanogpt", "ckpt.pt", "--gelu", "erf"],
    )
    .succeeded();
    assert_eq!(done.stdout, "ckpt.pt\n");
    for words in [
        "note: there is no state of training: the file is one of step 0",
        "note: the model computes GELU by tanh and is written with GELU by erf",
    ] {
        assert!(done.stderr.contains(words), "{}", done.stderr);
    }
    convert(path, &["ckpt.pt", "--to", "hf", "back"]).succeeded();
    assert_same(&path.join("back"));
    assert_eq!(config(&path.join("back"))["activation_function"], "gelu");
    assert_eq!(names_in(path), ["back", "ckpt.pt", "model"]);
    // llm.c has the other form alone.
    convert(path, &["ckpt.pt", "--to", "llmc", "gpt2.bin"])
        .refused(&["llm.c has no such model", "`gelu` is erf"]);
    convert(
        path,
        &["ckpt.pt", "--to", "llmc", "gpt2.bin", "--gelu", "tanh"],
    )
    .succeeded();
}
