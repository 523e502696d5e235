//! Hugging Face's GPT-2: its `config.json`, its names, its Conv1D layout.
//!
//! The names are nanoGPT's. The four matrices of a block are `Conv1D` there, stored (in, out), the
//! transpose of taper's (out, in). Hugging Face has no bias-free GPT-2, so a model without biases is
//! written with zero biases, which is the same function; `taper.bias` in the config remembers it.

use serde::Serialize;

use super::encode::WeightsDtype;
use super::safetensors::{TensorOut, TensorSource};
use crate::model::{ParamLayout, ParamRole, ParamSpec};
use crate::ops::backend::Values;
use crate::terms::{Gelu, ModelDims};

/// `<|endoftext|>` in GPT-2's vocabulary.
const END_OF_TEXT: u32 = 50256;

pub(in crate::checkpoint) const LAYER_NORM_EPSILON: f64 = 1e-5;

/// The keys of `GPT2Config` that decide which function a model is; the defaults are transformers'.
#[derive(Serialize)]
struct Gpt2Config {
    architectures: Vec<String>,
    model_type: String,
    activation_function: String,
    n_positions: usize,
    n_ctx: usize,
    n_embd: usize,
    n_layer: usize,
    n_head: usize,
    n_inner: Option<usize>,
    vocab_size: usize,
    resid_pdrop: f64,
    embd_pdrop: f64,
    attn_pdrop: f64,
    layer_norm_epsilon: f64,
    scale_attn_weights: bool,
    scale_attn_by_inverse_layer_idx: bool,
    bos_token_id: Option<u32>,
    eos_token_id: Option<EndOfText>,
    tie_word_embeddings: bool,
    torch_dtype: Option<String>,
    taper: Extension,
}

/// One id that ends a text, or several.
#[derive(Serialize)]
#[serde(untagged)]
enum EndOfText {
    One(u32),
    Any(Vec<u32>),
}

impl EndOfText {
    fn of(ids: &[u32]) -> Option<Self> {
        match ids {
            [] => None,
            [one] => Some(Self::One(*one)),
            several => Some(Self::Any(several.into())),
        }
    }
}

/// Properties of a model that `GPT2Config` has no key for.
#[derive(Serialize)]
struct Extension {
    bias: bool,
}

impl Default for Gpt2Config {
    fn default() -> Self {
        Self {
            architectures: vec!["GPT2LMHeadModel".into()],
            model_type: "gpt2".into(),
            activation_function: "gelu_new".into(),
            n_positions: 1024,
            n_ctx: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            vocab_size: 50257,
            resid_pdrop: 0.1,
            embd_pdrop: 0.1,
            attn_pdrop: 0.1,
            layer_norm_epsilon: LAYER_NORM_EPSILON,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            bos_token_id: Some(END_OF_TEXT),
            eos_token_id: Some(EndOfText::One(END_OF_TEXT)),
            tie_word_embeddings: true,
            torch_dtype: Some("float32".into()),
            taper: Extension { bias: true },
        }
    }
}

/// The `config.json` of a model whose numbers are of type `dtype`. The ids that end a text are GPT-2's where none are
/// given and the vocabulary has it.
pub(in crate::checkpoint) fn config_json(
    dims: &ModelDims,
    end_of_text: &[u32],
    dtype: WeightsDtype,
) -> serde_json::Result<String> {
    let own = (dims.vocab_size > END_OF_TEXT as usize).then_some(END_OF_TEXT);
    let begin_of_text = own.filter(|id| end_of_text.is_empty() || end_of_text.contains(id));
    let end_of_text = EndOfText::of(end_of_text).or(own.map(EndOfText::One));
    let activation = match dims.gelu {
        Gelu::Tanh => "gelu_new",
        Gelu::Erf => "gelu",
    };
    serde_json::to_string_pretty(&Gpt2Config {
        activation_function: activation.into(),
        n_positions: dims.block_size,
        n_ctx: dims.block_size,
        n_embd: dims.n_embd,
        n_layer: dims.n_layer,
        n_head: dims.n_head,
        vocab_size: dims.vocab_size,
        resid_pdrop: dims.dropout,
        embd_pdrop: dims.dropout,
        attn_pdrop: dims.dropout,
        bos_token_id: begin_of_text,
        eos_token_id: end_of_text,
        torch_dtype: Some(dtype.name().into()),
        taper: Extension { bias: dims.bias },
        ..Gpt2Config::default()
    })
}

/// The tensors of `model.safetensors`, from flat values in the order of `layout`.
pub(in crate::checkpoint) fn tensors<'a>(
    layout: &ParamLayout,
    weights: &'a dyn Values,
) -> Vec<TensorOut<'a>> {
    assert_eq!(weights.len(), layout.len, "`weights` has another layout");
    let mut tensors = Vec::new();
    for param in &layout.params {
        tensors.push(TensorOut {
            name: param.name.clone(),
            shape: shape(param),
            source: if param.role == ParamRole::Linear {
                TensorSource::Transposed(weights, param.range())
            } else {
                TensorSource::Same(weights, param.range())
            },
        });
        if let Some(module) = bias_owner(param) {
            let name = format!("{module}.bias");
            if layout.get(&name).is_none() {
                tensors.push(TensorOut {
                    name,
                    shape: param.shape[..1].to_vec(),
                    source: TensorSource::Zeros,
                });
            }
        }
    }
    tensors
}

/// The shape of a parameter in Hugging Face's file.
pub(in crate::checkpoint) fn shape(param: &ParamSpec) -> Vec<usize> {
    let mut shape = param.shape.clone();
    if param.role == ParamRole::Linear {
        shape.reverse();
    }
    shape
}

/// The module of a weight that has a bias in GPT-2: all but the embeddings.
pub(in crate::checkpoint) fn bias_owner(param: &ParamSpec) -> Option<&str> {
    match param.role {
        ParamRole::Linear | ParamRole::Norm => param.name.strip_suffix(".weight"),
        ParamRole::Embedding | ParamRole::Bias => None,
    }
}
