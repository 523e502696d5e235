//! Any Hugging Face GPT-2 folder can be read, and what cannot be is named.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use taper::checkpoint::{CheckpointError, open, open_pretrained, resolve_pretrained};
use taper::model::ParamLayout;
use taper::terms::{Gelu, ModelDims};

use super::huggingface::{Tensor, encode, hf_tensors};
use super::{Run, bits, temp_dir, tiny};

/// The model of `tiny` with values that every float type holds exactly.
pub fn reference() -> (ModelDims, Vec<f32>) {
    let dims = tiny(true);
    let len = ParamLayout::new(&dims).len;
    (
        dims,
        (0..len)
            .map(|i| (i * 37 % 255) as f32 / 16.0 - 8.0)
            .collect(),
    )
}

pub fn write_tensors(path: &Path, tensors: &[Tensor], dtype: Dtype) {
    let encoded: Vec<Vec<u8>> = tensors.iter().map(|(.., v)| encode(v, dtype)).collect();
    let views = tensors
        .iter()
        .zip(&encoded)
        .map(|((name, shape, _), bytes)| {
            (
                name.clone(),
                TensorView::new(dtype, shape.clone(), bytes).unwrap(),
            )
        });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// OpenAI's own config.json, cut to the size of `dims`.
pub fn write_config(folder: &Path, dims: &ModelDims, more: &str) {
    let json = format!(
        r#"{{"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2", "n_ctx": {t}, "n_embd": {c}, "n_head": {h}, "n_layer": {l},
        "n_positions": {t}, "resid_pdrop": 0.1, "vocab_size": {v}, "summary_type": "cls_index",
        "task_specific_params": {{"text-generation": {{"max_length": 50}}}} {more} }}"#,
        t = dims.block_size,
        c = dims.n_embd,
        h = dims.n_head,
        l = dims.n_layer,
        v = dims.vocab_size,
    );
    fs::write(folder.join("config.json"), json).unwrap();
}

pub fn load(folder: &Path, target: &ModelDims) -> Result<Vec<f32>, CheckpointError> {
    let mut weights = vec![7.0; ParamLayout::new(target).len];
    open_pretrained(folder)?.load_weights(target, &mut weights)?;
    Ok(weights)
}

#[test]
fn every_spelling_of_a_hugging_face_folder_loads_to_the_same_weights() {
    let (dims, weights) = reference();
    let mut with_prefix = hf_tensors(&dims, &weights);
    let without_prefix: Vec<Tensor> = with_prefix
        .iter()
        .map(|(name, shape, v)| (name.replace("transformer.", ""), shape.clone(), v.clone()))
        .collect();
    // Old files carry the causal mask, some the tied head.
    for (name, shape) in [
        ("attn.bias", vec![1, 1, 6, 6]),
        ("attn.masked_bias", vec![]),
    ] {
        let values = vec![1.0; shape.iter().product()];
        with_prefix.push((format!("transformer.h.0.{name}"), shape, values));
    }
    let head = with_prefix[0].clone();
    with_prefix.push(("lm_head.weight".into(), head.1, head.2));
    for tensors in [with_prefix, without_prefix] {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            for shards in [1, 3] {
                let folder = temp_dir();
                write_config(folder.path(), &dims, "");
                let mut map = HashMap::new();
                for (i, part) in tensors.chunks(tensors.len().div_ceil(shards)).enumerate() {
                    let file = match shards {
                        1 => "model.safetensors".into(),
                        _ => format!("model-{i}-of-{shards}.safetensors"),
                    };
                    write_tensors(&folder.path().join(&file), part, dtype);
                    map.extend(part.iter().map(|(name, ..)| (name.clone(), file.clone())));
                }
                if shards > 1 {
                    let index = serde_json::json!({"metadata": {}, "weight_map": map});
                    let path = folder.path().join("model.safetensors.index.json");
                    fs::write(path, index.to_string()).unwrap();
                }
                assert_eq!(open_pretrained(folder.path()).unwrap().dims, dims);
                let loaded = load(folder.path(), &dims).unwrap();
                assert_eq!(bits(&loaded), bits(&weights), "{dtype} in {shards} files");
            }
        }
    }
}

/// Models that no weights of `dims` can be loaded into, each with the key that differs.
fn unloadable(dims: &ModelDims) -> [(&'static str, ModelDims); 9] {
    let with = |change: fn(&mut ModelDims)| {
        let mut other = dims.clone();
        change(&mut other);
        other
    };
    [
        ("n_layer", with(|dims| dims.n_layer = 1)),
        ("n_head", with(|dims| dims.n_head = 5)),
        ("n_embd", with(|dims| dims.n_embd = 8)),
        ("block_size", with(|dims| dims.block_size = 7)),
        ("vocab_size", with(|dims| dims.vocab_size = 12)),
        ("vocab_size", with(|dims| dims.vocab_size = 14)),
        ("vocab_size", with(|dims| dims.vocab_size = 128)),
        ("bias", with(|dims| dims.bias = false)),
        ("gelu", with(|dims| dims.gelu = Gelu::Erf)),
    ]
}

#[test]
fn positions_can_be_cropped_and_the_vocabulary_padded_and_nothing_else() {
    let (dims, weights) = reference();
    let folder = temp_dir();
    write_config(folder.path(), &dims, "");
    let file = folder.path().join("model.safetensors");
    write_tensors(&file, &hf_tensors(&dims, &weights), Dtype::F32);
    let target = ModelDims {
        block_size: 4,
        vocab_size: 64,
        dropout: 0.0,
        ..dims.clone()
    };
    let loaded = load(folder.path(), &target).unwrap();
    let (from, to) = (ParamLayout::new(&dims), ParamLayout::new(&target));
    for (from, to) in from.params.iter().zip(&to.params) {
        let (from, to) = (&weights[from.range()], &loaded[to.range()]);
        let shared = from.len().min(to.len());
        assert_eq!(from[..shared], to[..shared]);
        assert!(to[shared..].iter().all(|&x| x == 0.0));
    }
    for (key, target) in unloadable(&dims) {
        match load(folder.path(), &target) {
            Err(CheckpointError::OtherModel { differences, .. }) => {
                let keys: Vec<&str> = differences.iter().map(|d| d.key.as_str()).collect();
                assert_eq!(keys, [format!("model.{key}")]);
            }
            other => panic!("{key}: expected a refusal, got {other:?}"),
        }
    }
}

#[test]
fn a_checkpoint_is_a_pretrained_model_and_its_damage_is_seen() {
    let out = temp_dir();
    let run = Run::at(tiny(false), 1);
    let path = run.save(out.path());
    assert_eq!(bits(&load(&path, &run.dims).unwrap()), bits(&run.weights));
    let target = ModelDims {
        block_size: 3,
        ..run.dims.clone()
    };
    let mut cropped = vec![0.0; ParamLayout::new(&target).len];
    open(&path)
        .unwrap()
        .checkpoint
        .load_weights(&target, &mut cropped)
        .unwrap();
    assert_eq!(bits(&cropped[130..160]), bits(&run.weights[130..160]));
    let file = path.join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 4;
    fs::write(&file, bytes).unwrap();
    let error = load(&path, &run.dims).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`model.safetensors` does not match"),
        "{error}"
    );
}

#[test]
fn biases_that_a_bias_free_model_grew_elsewhere_are_not_dropped_silently() {
    let (with, weights) = reference();
    let without = tiny(false);
    let mut tensors = hf_tensors(&with, &weights);
    for zero in [true, false] {
        for (name, _, values) in &mut tensors {
            let grown = name == "transformer.ln_f.bias" && !zero;
            if name.ends_with(".bias") {
                values.fill(if grown { 0.5 } else { 0.0 });
            }
        }
        let folder = temp_dir();
        write_config(folder.path(), &with, ", \"taper\": {\"bias\": false}");
        write_tensors(
            &folder.path().join("model.safetensors"),
            &tensors,
            Dtype::F32,
        );
        match load(folder.path(), &without) {
            Ok(_) => assert!(zero),
            Err(error) => {
                let text = error.to_string();
                assert!(!zero && text.contains("`transformer.ln_f.bias`"), "{text}");
                assert!(text.contains("not zero"), "{text}");
            }
        }
    }
}

#[test]
fn tensors_that_are_absent_misshapen_or_of_another_type_are_named() {
    let (dims, weights) = reference();
    let good = hf_tensors(&dims, &weights);
    let name = "transformer.h.1.mlp.c_fc.weight";
    let at = good.iter().position(|(n, ..)| n == name).unwrap();
    let refusal = |tensors: &[Tensor], dtype| {
        let folder = temp_dir();
        write_config(folder.path(), &dims, "");
        write_tensors(&folder.path().join("model.safetensors"), tensors, dtype);
        let error = load(folder.path(), &dims).unwrap_err();
        assert!(matches!(error, CheckpointError::Tensor { .. }), "{error:?}");
        error.to_string()
    };
    let mut absent = good.clone();
    absent.remove(at);
    let text = refusal(&absent, Dtype::F32);
    assert!(
        text.contains(name) && text.contains("absent, expected shape [10, 40]"),
        "{text}"
    );
    let mut transposed = good.clone();
    transposed[at].1.reverse();
    let text = refusal(&transposed, Dtype::F32);
    assert!(text.contains(name), "{text}");
    assert!(
        text.contains("shape [40, 10], expected shape [10, 40]"),
        "{text}"
    );
    let text = refusal(&good, Dtype::I32);
    assert!(text.contains("I32, expected F32, F16 or BF16"), "{text}");
}

#[test]
fn files_that_are_no_safetensors_are_refused_before_anything_is_allocated() {
    let (dims, weights) = reference();
    let folder = temp_dir();
    write_config(folder.path(), &dims, "");
    let file = folder.path().join("model.safetensors");
    write_tensors(&file, &hf_tensors(&dims, &weights), Dtype::F32);
    let good = fs::read(&file).unwrap();
    let huge = [&u64::MAX.to_le_bytes()[..], &good[8..]].concat();
    let pointer = b"version https://git-lfs.github.com/spec/v1\n".to_vec();
    for bytes in [Vec::new(), good[..good.len() - 4].to_vec(), huge, pointer] {
        fs::write(&file, bytes).unwrap();
        let error = load(folder.path(), &dims).unwrap_err();
        assert!(
            matches!(error, CheckpointError::Unreadable { .. }),
            "{error:?}"
        );
    }
    fs::remove_file(&file).unwrap();
    let error = load(folder.path(), &dims).unwrap_err();
    assert!(matches!(error, CheckpointError::Io { .. }), "{error:?}");
}

#[test]
fn models_with_options_that_taper_does_not_have_are_refused_by_key() {
    let (dims, _) = reference();
    for (key, value) in [
        ("n_inner", "11"),
        ("layer_norm_epsilon", "1e-6"),
        ("scale_attn_weights", "false"),
        ("scale_attn_by_inverse_layer_idx", "true"),
        ("tie_word_embeddings", "false"),
    ] {
        let folder = temp_dir();
        write_config(folder.path(), &dims, &format!(", \"{key}\": {value}"));
        match open_pretrained(folder.path()).err() {
            Some(CheckpointError::UnsupportedModel { key: named, .. }) => assert_eq!(named, key),
            other => panic!("{key}: expected a refusal, got {other:?}"),
        }
    }
}

#[test]
fn sizes_that_no_model_has_are_refused_by_key() {
    let (dims, _) = reference();
    for (key, value) in [
        ("n_head", 0),
        ("n_head", dims.n_embd + 1),
        ("n_positions", 0),
        ("vocab_size", 0),
    ] {
        let folder = temp_dir();
        write_config(folder.path(), &dims, "");
        let path = folder.path().join("config.json");
        let mut config: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        config[key] = value.into();
        fs::write(&path, config.to_string()).unwrap();
        match open_pretrained(folder.path()).err() {
            Some(CheckpointError::UnsupportedModel { key: named, .. }) => assert_eq!(named, key),
            other => panic!("{key}: expected a refusal, got {other:?}"),
        }
    }
}

/// A hub cache with one downloaded model.
fn hub_with(folder: &str, revision: &str, main: &str) -> (tempfile::TempDir, PathBuf) {
    let hub = temp_dir();
    let model = hub.path().join(folder);
    let snapshot = model.join("snapshots").join(revision);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(model.join("refs")).unwrap();
    fs::write(model.join("refs/main"), main).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::write(snapshot.join(name), "{}").unwrap();
    }
    (hub, snapshot)
}

#[test]
fn a_name_is_looked_up_as_a_path_and_then_in_the_hub_cache() {
    for folder in ["models--gpt2", "models--openai-community--gpt2"] {
        let (hub, snapshot) = hub_with(folder, "abc", "abc\n");
        fs::create_dir(hub.path().join(folder).join("snapshots/aaa")).unwrap();
        assert_eq!(resolve_pretrained("gpt2", hub.path()).unwrap(), snapshot);
        let path = snapshot.to_str().unwrap();
        assert_eq!(resolve_pretrained(path, hub.path()).unwrap(), snapshot);
        let error = resolve_pretrained("gpt2-xl", hub.path()).unwrap_err();
        let text = error.to_string();
        for looked in [
            "`gpt2-xl`",
            "models--gpt2-xl`",
            "models--openai-community--gpt2-xl`",
        ] {
            assert!(text.contains(looked), "{text}");
        }
        assert!(
            error
                .hint()
                .unwrap()
                .contains("hf download openai-community/gpt2-xl")
        );
    }
    let (hub, snapshot) = hub_with("models--me--mine", "abc", "gone");
    assert_eq!(resolve_pretrained("me/mine", hub.path()).unwrap(), snapshot);
}
