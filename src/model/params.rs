//! The parameters in their one order: nanoGPT's names and layouts in a flat buffer.
//!
//! Weights, gradients and both moments share this layout, so the optimizer, the gradient norm and
//! a checkpoint each make one pass over one buffer.

use std::ops::Range;

use crate::ops::backend::{Affine, Gradients, Part, Sum};
use crate::terms::ModelDims;

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

/// A weight and its bias, by position in the flat buffers; a bias follows its weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    weight: Range<usize>,
    bias: Option<Range<usize>>,
}

impl Module {
    pub fn weight<'a, C>(&self, flat: &'a C) -> Part<'a, C> {
        Part::new(flat, self.weight.clone())
    }

    pub fn affine<'a, C>(&self, flat: &'a C) -> Affine<'a, C> {
        Affine {
            weight: self.weight(flat),
            bias: self.bias.clone().map(|bias| Part::new(flat, bias)),
        }
    }

    /// The parts of a flat gradient buffer that belong to the weight and the bias.
    pub fn gradients<'a, F>(&self, flat: &'a mut F, sum: Sum) -> Gradients<'a, F> {
        Gradients {
            buffer: flat,
            sum,
            weight: self.weight.clone(),
            bias: self.bias.clone(),
        }
    }

    pub(super) fn range(&self) -> Range<usize> {
        self.weight.clone()
    }
}

/// The modules of one block.
pub(super) struct BlockModules {
    pub ln_1: Module,
    pub c_attn: Module,
    pub attn_proj: Module,
    pub ln_2: Module,
    pub c_fc: Module,
    pub mlp_proj: Module,
}

/// The modules of the model.
pub(super) struct Modules {
    pub wte: Module,
    pub wpe: Module,
    pub blocks: Vec<BlockModules>,
    pub ln_f: Module,
}

impl Modules {
    /// Follows the order in which [`ParamLayout::new`] lists the parameters.
    pub fn new(layout: &ParamLayout, n_layer: usize) -> Self {
        let mut params = layout.params.iter().peekable();
        let mut next = || {
            let weight = params.next().map_or(0..0, ParamSpec::range);
            let bias = params
                .next_if(|param| param.name.ends_with(".bias"))
                .map(ParamSpec::range);
            Module { weight, bias }
        };
        let (wte, wpe) = (next(), next());
        let blocks = (0..n_layer)
            .map(|_| BlockModules {
                ln_1: next(),
                c_attn: next(),
                attn_proj: next(),
                ln_2: next(),
                c_fc: next(),
                mlp_proj: next(),
            })
            .collect();
        Self {
            wte,
            wpe,
            blocks,
            ln_f: next(),
        }
    }
}
