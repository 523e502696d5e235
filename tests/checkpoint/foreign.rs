//! Files of others as they come: what transformers would compute, or a refusal that names what it is.

use std::fs;
use std::path::Path;

use safetensors::tensor::Dtype;
use serde_json::{Value, json};
use taper::checkpoint::{
    CheckpointError, ForeignError, ForeignFormat, find_weights, open_pretrained, resolve_pretrained,
};
use taper::model::ParamLayout;
use taper::terms::Precision;

use super::huggingface::{Tensor, hf_tensors};
use super::pretrained::{load, reference, write_config, write_tensors};
use super::{Run, bits, temp_dir, tiny};

fn write(folder: &Path, tensors: &[Tensor]) {
    write_config(folder, &reference().0, "");
    write_tensors(&folder.join("model.safetensors"), tensors, Dtype::F32);
}

fn renamed(tensors: &[Tensor], rename: impl Fn(&str) -> String) -> Vec<Tensor> {
    let tensors = tensors.iter();
    tensors
        .map(|(name, shape, values)| (rename(name), shape.clone(), values.clone()))
        .collect()
}

/// Changes `config.json` and returns the key that opening the folder then refuses.
fn refused_key(change: impl FnOnce(&mut Value)) -> Option<(&'static str, String)> {
    let (dims, weights) = reference();
    let folder = temp_dir();
    write(folder.path(), &hf_tensors(&dims, &weights));
    let path = folder.path().join("config.json");
    let mut config = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(&path, config.to_string()).unwrap();
    match open_pretrained(folder.path()) {
        Ok(opened) => {
            assert_eq!(opened.dims, dims);
            None
        }
        Err(CheckpointError::UnsupportedModel { key, found, .. }) => Some((key, found)),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn names_of_wrapped_models_load_and_the_wrappers_are_told() {
    let (dims, weights) = reference();
    let tensors = hf_tensors(&dims, &weights);
    let of_block = |name: &str| name.replace("h.1.", "h.1._orig_mod.");
    let wrapped: [(Vec<Tensor>, &[&str]); 6] = [
        (
            renamed(&tensors, |name| format!("_orig_mod.{name}")),
            &["`_orig_mod.`"],
        ),
        (
            renamed(&tensors, |name| format!("module.{name}")),
            &["`module.`"],
        ),
        (
            renamed(&tensors, |name| format!("_orig_mod.module.{name}")),
            &["`_orig_mod.`", "`module.`"],
        ),
        (
            renamed(&tensors, |name| format!("model.{name}")),
            &["`model.`"],
        ),
        (renamed(&tensors, of_block), &["`_orig_mod.`"]),
        (tensors.clone(), &[]),
    ];
    for (tensors, told) in wrapped {
        let folder = temp_dir();
        write(folder.path(), &tensors);
        assert_eq!(bits(&load(folder.path(), &dims).unwrap()), bits(&weights));
        let notes = open_pretrained(folder.path()).unwrap().notes();
        assert_eq!(notes.len(), usize::from(!told.is_empty()), "{notes:?}");
        assert!(told.iter().all(|name| notes[0].contains(name)), "{notes:?}");
    }
}

#[test]
fn the_tied_matrix_may_be_stored_as_the_head_alone_but_not_as_two() {
    let (dims, weights) = reference();
    let tensors = hf_tensors(&dims, &weights);
    let folder = temp_dir();
    let head = "lm_head.weight";
    write(
        folder.path(),
        &renamed(&tensors, |name| {
            name.replace("transformer.wte.weight", head)
        }),
    );
    assert_eq!(bits(&load(folder.path(), &dims).unwrap()), bits(&weights));
    let mut both = tensors.clone();
    both.push((head.into(), both[0].1.clone(), both[0].2.clone()));
    both.last_mut().unwrap().2[23] += 1.0;
    write(folder.path(), &both);
    match load(folder.path(), &dims) {
        Err(CheckpointError::Foreign(ForeignError::UntiedHead {
            head: named, at, ..
        })) => {
            assert_eq!((named.as_str(), at), (head, vec![2, 3]));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn tensors_that_gpt2_does_not_have_are_told_and_masks_are_not() {
    let (dims, weights) = reference();
    let mut tensors = hf_tensors(&dims, &weights);
    for name in ["transformer.h.0.attn.bias", "h.1.attn.masked_bias"] {
        tensors.push((name.into(), vec![1], vec![1.0]));
    }
    for name in [
        "score.weight",
        "transformer.h.2.ln_1.weight",
        "lm_head.bias",
        "v_head.bias",
    ] {
        tensors.push((name.into(), vec![1], vec![1.0]));
    }
    let folder = temp_dir();
    write(folder.path(), &tensors);
    let notes = open_pretrained(folder.path()).unwrap().notes();
    assert_eq!(notes.len(), 1);
    for word in [
        "2 layers",
        "`transformer.h.2.ln_1.weight`",
        "`lm_head.bias`",
        "and 1 more",
    ] {
        assert!(notes[0].contains(word), "{notes:?}");
    }
    tensors.push(("module.wte.weight".into(), vec![13, 10], vec![0.0; 130]));
    write(folder.path(), &tensors);
    let error = open_pretrained(folder.path()).err();
    assert!(
        matches!(
            error,
            Some(CheckpointError::Foreign(ForeignError::TwoTensors { .. }))
        ),
        "{error:?}"
    );
}

#[test]
fn numbers_that_cannot_be_computed_with_are_named_with_their_place() {
    let (dims, weights) = reference();
    let good = hf_tensors(&dims, &weights);
    let last = good.len() - 1;
    let mut found = vec![7.0; weights.len()];
    let cases = [
        (0, 129, f32::NAN, Precision::Float32, Some(vec![12, 9])),
        (2, 3, f32::NEG_INFINITY, Precision::Float32, Some(vec![3])),
        (last, 0, 7e4, Precision::Float16, Some(vec![0])),
        (last, 0, f32::MAX, Precision::Bfloat16, Some(vec![0])),
        (last, 0, f32::MAX, Precision::Float32, None),
        (last, 0, 65_504.0, Precision::Float16, None),
    ];
    for (tensor, element, value, precision, place) in cases {
        let mut tensors = good.clone();
        tensors[tensor].2[element] = value;
        let folder = temp_dir();
        write(folder.path(), &tensors);
        let pretrained = open_pretrained(folder.path()).unwrap();
        match pretrained.load_usable_weights(&dims, precision, &mut found) {
            Ok(()) => assert_eq!(place, None),
            Err(CheckpointError::Foreign(ForeignError::Value { name, at, .. })) => {
                assert_eq!((Some(at), &name), (place, &tensors[tensor].0));
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn keys_of_transformers_attribute_map_name_the_sizes() {
    let names = [
        ("n_embd", "hidden_size"),
        ("n_positions", "max_position_embeddings"),
        ("n_head", "num_attention_heads"),
        ("n_layer", "num_hidden_layers"),
    ];
    for (key, alias) in names {
        let rename = |config: &mut Value| {
            config[alias] = config[key].take();
            config.as_object_mut().unwrap().remove(key);
        };
        assert_eq!(refused_key(rename), None, "{alias} alone");
        assert_eq!(
            refused_key(|config| config[alias] = config[key].clone()),
            None
        );
        let other = refused_key(|config| config[alias] = json!(64));
        assert_eq!(other, Some((alias, "64".into())), "{alias} beside {key}");
    }
    // transformers has no such key.
    assert_eq!(refused_key(|config| config["n_ctx"] = json!(99)), None);
}

#[test]
fn values_that_no_gpt2_of_tapers_has_are_refused_by_key() {
    let cases = [
        ("n_layer", json!(2_000_000_000u64)),
        ("n_layer", json!("2")),
        ("n_layer", json!(2.0)),
        ("n_layer", json!(-1)),
        ("n_layer", Value::Null),
        ("n_embd", json!(2_000_000_000u64)),
        ("vocab_size", json!(u64::MAX)),
        ("n_positions", json!([6])),
        ("n_head", json!(3)),
        ("n_head", json!(true)),
        ("n_inner", json!("40")),
        ("resid_pdrop", json!("0.1")),
        ("resid_pdrop", json!(1.5)),
        ("activation_function", json!("relu")),
        ("activation_function", json!(0)),
        ("scale_attn_weights", json!(0)),
        ("layer_norm_epsilon", json!("1e-5")),
        ("add_cross_attention", json!(true)),
        ("model_type", json!("gpt_neo")),
        ("architectures", json!(["GPT2ForSequenceClassification"])),
        ("architectures", json!("GPT2LMHeadModel")),
        ("quantization_config", json!({"load_in_8bit": true})),
        ("pruned_heads", json!({"0": [1]})),
    ];
    for (key, value) in cases {
        let refused = refused_key(|config| config[key] = value.clone());
        assert_eq!(refused.map(|(key, _)| key), Some(key), "{value}");
    }
    let fine = [
        ("architectures", json!(["GPT2Model"])),
        ("architectures", Value::Null),
        ("n_inner", Value::Null),
        ("n_inner", json!(40)),
        ("reorder_and_upcast_attn", json!(true)),
        ("pruned_heads", json!({})),
        ("activation_function", json!("gelu_pytorch_tanh")),
    ];
    for (key, value) in fine {
        assert_eq!(
            refused_key(|config| config[key] = value.clone()),
            None,
            "{key}: {value}"
        );
    }
}

#[test]
fn weights_in_other_formats_are_named_with_the_way_to_use_them() {
    use ForeignFormat::*;
    let llm_c = 20_240_326i32.to_le_bytes();
    let cases: [(&str, &[u8], ForeignFormat, &str); 6] = [
        (
            "model.pth",
            b"PK",
            NanoGpt,
            "name the file: `FOLDER/model.pth`",
        ),
        ("weights.bin", b"PK", PyTorch, "name the folder, `FOLDER`"),
        (
            "gpt2.Q8_0.gguf",
            b"GGUF",
            Gguf,
            "gguf_file=\"gpt2.Q8_0.gguf\"",
        ),
        ("adapter_config.json", b"{}", Adapter, "merge_and_unload"),
        ("tf_model.h5", b"", OtherFramework, "model.safetensors"),
        (
            "gpt2_124M.bin",
            &llm_c,
            LlmC,
            "name the file: `FOLDER/gpt2_124M.bin`",
        ),
    ];
    for (file, bytes, expected, line) in cases {
        for with_config in [true, false] {
            let folder = temp_dir();
            fs::write(folder.path().join(file), bytes).unwrap();
            if with_config {
                write_config(folder.path(), &reference().0, "");
            }
            let name = folder.path().to_str().unwrap();
            match find_weights(name, Path::new("no-hub")).err() {
                Some(CheckpointError::Foreign(error @ ForeignError::Format { .. })) => {
                    let ForeignError::Format { format, .. } = &error else {
                        unreachable!()
                    };
                    assert_eq!(*format, expected, "{file}");
                    let hint = CheckpointError::from(error).hint().unwrap();
                    assert!(hint.contains(&line.replace("FOLDER", name)), "{hint}");
                }
                other => panic!("{file}: {other:?}"),
            }
        }
    }
}

#[test]
fn files_that_are_not_where_they_should_be_are_named() {
    let (dims, weights) = reference();
    let folder = temp_dir();
    let path = folder.path();
    write_config(path, &dims, "");
    let index = path.join("model.safetensors.index.json");
    let map = json!({"weight_map": {"wte.weight": "model-1.safetensors"}});
    fs::write(&index, map.to_string()).unwrap();
    let error = open_pretrained(path).err().unwrap();
    assert!(
        error.to_string().contains("lists `model-1.safetensors`"),
        "{error}"
    );
    fs::remove_file(&index).unwrap();
    let named = path.join("gpt2.safetensors");
    write_tensors(&named, &hf_tensors(&dims, &weights), Dtype::F32);
    let error = open_pretrained(path).err().unwrap();
    assert!(
        error
            .hint()
            .unwrap()
            .contains(&format!("mv {}", named.display())),
        "{error}"
    );
    let hub = Path::new("no-hub");
    let error = find_weights(named.to_str().unwrap(), hub).err().unwrap();
    let hint = error.hint().unwrap();
    assert!(
        hint.contains(&format!("name the folder, `{}`", path.display())),
        "{hint}"
    );
    let pointer = "version https://git-lfs.github.com/spec/v1\n";
    fs::write(path.join("model.safetensors"), pointer).unwrap();
    let error = open_pretrained(path).err().unwrap();
    assert!(error.to_string().contains("git lfs pull"), "{error}");
}

#[test]
fn one_name_finds_a_checkpoint_a_run_a_folder_and_a_model_of_the_hub() {
    let (dims, weights) = reference();
    let (hub, out) = (temp_dir(), temp_dir());
    let model = hub.path().join("models--me--mine");
    let snapshot = model.join("snapshots/abc");
    fs::create_dir_all(&snapshot).unwrap();
    write(&snapshot, &hf_tensors(&dims, &weights));
    for step in [1, 2] {
        Run::at(tiny(true), step).save(out.path());
    }
    let newest = out.path().join("ckpt-00000002");
    let cases = [
        ("me/mine".into(), &snapshot),
        (model.display().to_string(), &snapshot),
        (snapshot.display().to_string(), &snapshot),
        (newest.display().to_string(), &newest),
        (out.path().display().to_string(), &newest),
    ];
    for (name, expected) in cases {
        let found = find_weights(&name, hub.path()).unwrap();
        assert_eq!(&found.pretrained.path, expected, "{name}");
    }
    let len = ParamLayout::new(&dims).len;
    let found = find_weights("me/mine", hub.path()).unwrap();
    let mut loaded = vec![0.0; len];
    found.pretrained.load_weights(&dims, &mut loaded).unwrap();
    assert_eq!(bits(&loaded), bits(&weights));
}

#[test]
fn a_download_with_pytorchs_file_alone_is_found() {
    let hub = temp_dir();
    for file in ["pytorch_model.bin", "pytorch_model.bin.index.json"] {
        let model = hub.path().join("models--me--old");
        let snapshots = model.join("snapshots");
        // One with the tokenizer alone comes first.
        fs::create_dir_all(snapshots.join("aaa")).unwrap();
        let snapshot = snapshots.join("abc");
        fs::create_dir_all(&snapshot).unwrap();
        write_config(&snapshots.join("aaa"), &reference().0, "");
        write_config(&snapshot, &reference().0, "");
        // Or the index of shards, all of which are there.
        let shard = "pytorch_model-00001-of-00001.bin";
        let index = format!("{{\"weight_map\": {{\"wte.weight\": \"{shard}\"}}}}");
        fs::write(snapshot.join(file), index).unwrap();
        fs::write(snapshot.join(shard), "").unwrap();
        let found = resolve_pretrained("me/old", hub.path()).unwrap();
        assert_eq!(found, snapshot, "{file}");
        fs::remove_dir_all(model).unwrap();
    }
}
