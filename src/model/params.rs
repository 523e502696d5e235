//! The parameters in their one order: nanoGPT's names and layouts in a flat buffer.
//!
//! Weights, gradients and both moments share this layout, so the optimizer, the gradient norm and
//! a checkpoint each make one pass over one buffer.

use std::ops::Range;

use crate::plan::ModelDims;

/// Where one parameter lies in the flat buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamSpec {
    /// nanoGPT's state-dict name.
    pub name: String,
    /// Linear weights are (out, in).
    pub shape: Vec<usize>,
    pub offset: usize,
    pub len: usize,
}

impl ParamSpec {
    /// nanoGPT's rule: matrices and embeddings decay, biases and layer norms do not.
    pub fn decays(&self) -> bool {
        self.shape.len() >= 2
    }

    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len
    }
}

/// Every parameter of a model, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamLayout {
    pub params: Vec<ParamSpec>,
    /// Elements in all parameters together.
    pub len: usize,
}

impl ParamLayout {
    pub fn new(dims: &ModelDims) -> Self {
        let (c, bias) = (dims.n_embd, dims.bias);
        let mut layout = Self {
            params: Vec::new(),
            len: 0,
        };
        layout.push("transformer.wte.weight", &[dims.vocab_size, c]);
        layout.push("transformer.wpe.weight", &[dims.block_size, c]);
        for layer in 0..dims.n_layer {
            let block = format!("transformer.h.{layer}");
            layout.push_pair(&format!("{block}.ln_1"), &[c], bias);
            layout.push_pair(&format!("{block}.attn.c_attn"), &[3 * c, c], bias);
            layout.push_pair(&format!("{block}.attn.c_proj"), &[c, c], bias);
            layout.push_pair(&format!("{block}.ln_2"), &[c], bias);
            layout.push_pair(&format!("{block}.mlp.c_fc"), &[4 * c, c], bias);
            layout.push_pair(&format!("{block}.mlp.c_proj"), &[c, 4 * c], bias);
        }
        layout.push_pair("transformer.ln_f", &[c], bias);
        layout
    }

    pub fn get(&self, name: &str) -> Option<&ParamSpec> {
        self.params.iter().find(|param| param.name == name)
    }

    fn push(&mut self, name: &str, shape: &[usize]) {
        let len = shape.iter().product();
        self.params.push(ParamSpec {
            name: name.to_owned(),
            shape: shape.to_owned(),
            offset: self.len,
            len,
        });
        self.len += len;
    }

    /// A weight of this shape and, if the model has biases, a bias of its first dimension.
    fn push_pair(&mut self, module: &str, shape: &[usize], bias: bool) {
        self.push(&format!("{module}.weight"), shape);
        if bias {
            self.push(&format!("{module}.bias"), &shape[..1]);
        }
    }
}
