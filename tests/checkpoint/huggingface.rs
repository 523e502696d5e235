//! The folder is a Hugging Face GPT-2.

use std::fs;

use safetensors::tensor::{Dtype, SafeTensors};
use taper::model::ParamLayout;
use taper::terms::{Gelu, ModelDims};

use super::{Run, temp_dir, tiny};

/// Name, shape and elements, as in Hugging Face's file.
pub type Tensor = (String, Vec<usize>, Vec<f32>);

/// What transformers would save, written down independently of taper's own writer.
pub fn hf_tensors(dims: &ModelDims, weights: &[f32]) -> Vec<Tensor> {
    let layout = ParamLayout::new(dims);
    let tensors = layout.params.iter().map(|param| {
        let values = &weights[param.range()];
        let conv1d = param.shape.len() == 2 && param.name.contains(".h.");
        if !conv1d {
            return (param.name.clone(), param.shape.clone(), values.to_vec());
        }
        let (rows, cols) = (param.shape[0], param.shape[1]);
        let transposed = (0..rows * cols).map(|i| values[(i % rows) * cols + i / rows]);
        (param.name.clone(), vec![cols, rows], transposed.collect())
    });
    tensors.collect()
}

pub fn encode(values: &[f32], dtype: Dtype) -> Vec<u8> {
    let high_half = |x: &f32| ((x.to_bits() >> 16) as u16).to_le_bytes();
    match dtype {
        Dtype::BF16 => values.iter().flat_map(high_half).collect(),
        Dtype::F16 => values
            .iter()
            .flat_map(|&x| to_f16(x).to_le_bytes())
            .collect(),
        _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

/// Exact for the values used here: normal in f16, or zero.
fn to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x == 0.0 {
        return 0;
    }
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    (bits >> 16 & 0x8000) as u16 | (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16
}

#[test]
fn model_safetensors_has_hugging_faces_names_shapes_and_values() {
    // The larger one takes several chunks per matrix.
    for n_embd in [10, 150] {
        let out = temp_dir();
        let run = Run::at(
            ModelDims {
                n_embd,
                ..tiny(true)
            },
            1,
        );
        let bytes = fs::read(run.save(out.path()).join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
        let expected = hf_tensors(&run.dims, &run.weights);
        assert_eq!(file.len(), expected.len());
        for (name, shape, values) in expected {
            let found = file.tensor(&name).unwrap();
            assert_eq!(
                (found.dtype(), found.shape()),
                (Dtype::F32, &shape[..]),
                "{name}"
            );
            assert_eq!(found.data(), encode(&values, Dtype::F32), "{name}");
        }
        let c_attn = file.tensor("transformer.h.0.attn.c_attn.weight").unwrap();
        assert_eq!(c_attn.shape(), [n_embd, 3 * n_embd]);
    }
}

#[test]
fn a_model_without_biases_is_written_with_zero_ones() {
    let out = temp_dir();
    let run = Run::at(tiny(false), 1);
    let bytes = fs::read(run.save(out.path()).join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let with = ParamLayout::new(&tiny(true));
    let mut names: Vec<&str> = with
        .params
        .iter()
        .map(|param| param.name.as_str())
        .collect();
    names.sort_unstable();
    let mut found = file.names();
    found.sort_unstable();
    assert_eq!(found, names);
    for param in with
        .params
        .iter()
        .filter(|param| param.name.ends_with(".bias"))
    {
        let tensor = file.tensor(&param.name).unwrap();
        assert_eq!(tensor.shape(), param.shape);
        assert!(
            tensor.data().iter().all(|&byte| byte == 0),
            "{}",
            param.name
        );
    }
}

#[test]
fn config_json_says_what_the_model_is() {
    let out = temp_dir();
    let mut dims = tiny(false);
    dims.gelu = Gelu::Erf;
    let config = |dims: &ModelDims, step| -> serde_json::Value {
        let path = Run::at(dims.clone(), step).save(out.path());
        serde_json::from_str(&fs::read_to_string(path.join("config.json")).unwrap()).unwrap()
    };
    let json = config(&dims, 1);
    let expected = serde_json::json!({
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu",
        "n_positions": 6, "n_ctx": 6, "n_embd": 10, "n_layer": 2, "n_head": 2, "vocab_size": 13,
        "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1, "layer_norm_epsilon": 1e-5,
        "bos_token_id": null, "eos_token_id": null, "tie_word_embeddings": true,
        "torch_dtype": "float32", "taper": {"bias": false},
    });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&json[key], value, "{key}");
    }
    dims.gelu = Gelu::Tanh;
    dims.vocab_size = 50257;
    let json = config(&dims, 2);
    assert_eq!(json["activation_function"], "gelu_new");
    assert_eq!(
        (&json["bos_token_id"], &json["eos_token_id"]),
        (&50256.into(), &50256.into())
    );
}
