//! A tiny Hugging Face GPT-2, written down without taper's help: 1 layer, 2 heads of 2 channels, 16 positions.

use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

pub const VOCAB_SIZE: usize = 128;
const CHANNELS: usize = 4;

pub fn config() -> Value {
    json!({
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 1, "n_head": 2,
        "n_embd": CHANNELS, "n_positions": 16, "vocab_size": VOCAB_SIZE, "eos_token_id": null,
    })
}

/// Name, shape and values of every tensor. The likeliest next token is always `says`.
pub fn tensors(says: usize) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let c = CHANNELS;
    let shapes = [
        ("wte.weight", vec![VOCAB_SIZE, c]),
        ("wpe.weight", vec![16, c]),
        ("h.0.ln_1.weight", vec![c]),
        ("h.0.ln_1.bias", vec![c]),
        ("h.0.attn.c_attn.weight", vec![c, 3 * c]),
        ("h.0.attn.c_attn.bias", vec![3 * c]),
        ("h.0.attn.c_proj.weight", vec![c, c]),
        ("h.0.attn.c_proj.bias", vec![c]),
        ("h.0.ln_2.weight", vec![c]),
        ("h.0.ln_2.bias", vec![c]),
        ("h.0.mlp.c_fc.weight", vec![c, 4 * c]),
        ("h.0.mlp.c_fc.bias", vec![4 * c]),
        ("h.0.mlp.c_proj.weight", vec![4 * c, c]),
        ("h.0.mlp.c_proj.bias", vec![c]),
        ("ln_f.weight", vec![c]),
        ("ln_f.bias", vec![c]),
    ];
    let tensor = |(name, shape): (&str, Vec<usize>)| {
        let mut values = vec![0.0; shape.iter().product()];
        match name {
            // The last norm gives its bias whatever comes in; the row of one token is along it.
            "ln_f.bias" => values.fill(1.0),
            "wte.weight" => values[says * c..][..c].fill(1.0),
            _ => {}
        }
        (format!("transformer.{name}"), shape, values)
    };
    shapes.map(tensor).into()
}

pub fn write(folder: &Path, config: &Value, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let bytes = tensors
        .iter()
        .map(|(.., values)| values.iter().flat_map(|x| x.to_le_bytes()).collect());
    let bytes: Vec<Vec<u8>> = bytes.collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
        (name, view)
    });
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
}

/// A byte-level BPE without merges: `<s>`, `</s>` and `<mask>` are special tokens 0 to 2, then `a` to `e`. It has no
/// line feed.
pub fn tokenizer() -> Value {
    let special = ["<s>", "</s>", "<mask>"];
    let tokens = special.into_iter().chain(["a", "b", "c", "d", "e"]);
    let vocab = tokens
        .zip(0..)
        .map(|(token, id)| (token.to_owned(), json!(id)));
    let added = special.iter().enumerate().map(|(id, token)| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    });
    json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "<s>"},
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab.collect::<serde_json::Map<_, _>>(), "merges": []},
    })
}
