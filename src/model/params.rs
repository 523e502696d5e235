//! The parameters in their one order: nanoGPT's names and layouts in a flat buffer.
//!
//! Weights, gradients and both moments share this layout, so the optimizer, the gradient norm and
//! a checkpoint each make one pass over one buffer.

use std::ops::Range;

use crate::ops::backend::{Affine, DecayRun, GradientWrite, Gradients, Part};
use crate::terms::ModelDims;

/// One parameter, and its place in the flat buffers.
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
    /// Whether weight decay applies, by nanoGPT's rule: to matrices and embeddings, not to biases and layer norms.
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
        Self::with_modules(dims).0
    }

    /// The layout, and the modules that its parameters belong to: one walk makes both, so that they agree.
    pub(super) fn with_modules(dims: &ModelDims) -> (Self, Modules) {
        let (c, bias) = (dims.n_embd, dims.bias);
        let mut layout = Self {
            params: Vec::new(),
            len: 0,
        };
        let wte = layout.push_embedding("transformer.wte", &[dims.vocab_size, c]);
        let wpe = layout.push_embedding("transformer.wpe", &[dims.block_size, c]);
        let mut push_block = |layer| {
            let mut push = |module: &str, shape: &[usize]| {
                layout.push_module(&format!("transformer.h.{layer}.{module}"), shape, bias)
            };
            BlockModules {
                ln_1: push("ln_1", &[c]),
                c_attn: push("attn.c_attn", &[3 * c, c]),
                attn_proj: push("attn.c_proj", &[c, c]),
                ln_2: push("ln_2", &[c]),
                c_fc: push("mlp.c_fc", &[4 * c, c]),
                mlp_proj: push("mlp.c_proj", &[c, 4 * c]),
            }
        };
        let blocks = (0..dims.n_layer).map(&mut push_block).collect();
        let ln_f = layout.push_module("transformer.ln_f", &[c], bias);
        let modules = Modules {
            wte,
            wpe,
            blocks,
            ln_f,
        };
        (layout, modules)
    }

    pub fn get(&self, name: &str) -> Option<&ParamSpec> {
        self.params.iter().find(|param| param.name == name)
    }

    /// The runs of parameters that all decay, or all do not, in order.
    pub fn decay_runs(&self) -> Vec<DecayRun> {
        let mut runs: Vec<DecayRun> = Vec::new();
        for param in &self.params {
            let (elements, decays) = (param.range(), param.decays());
            match runs.last_mut() {
                Some(run) if run.decays == decays => run.elements.end = elements.end,
                _ => runs.push(DecayRun { elements, decays }),
            }
        }
        runs
    }

    fn push(&mut self, name: String, shape: &[usize]) -> Range<usize> {
        let (offset, len) = (self.len, shape.iter().product());
        self.params.push(ParamSpec {
            name,
            shape: shape.to_owned(),
            offset,
            len,
        });
        self.len += len;
        offset..self.len
    }

    fn push_embedding(&mut self, module: &str, shape: &[usize]) -> Module {
        self.push_module(module, shape, false)
    }

    /// A weight of this shape and, with `bias`, a bias of its first dimension.
    fn push_module(&mut self, module: &str, shape: &[usize], bias: bool) -> Module {
        Module {
            weight: self.push(format!("{module}.weight"), shape),
            bias: bias.then(|| self.push(format!("{module}.bias"), &shape[..1])),
        }
    }
}

/// Places of a weight and its bias in the flat buffers; a bias follows its weight.
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

    /// The gradients of the weight and the bias in a flat buffer.
    pub fn gradients<'a, F>(&self, flat: &'a mut F, write: GradientWrite) -> Gradients<'a, F> {
        Gradients {
            buffer: flat,
            write,
            weight: self.weight.clone(),
            bias: self.bias.clone(),
        }
    }

    pub(super) fn range(&self) -> Range<usize> {
        self.weight.clone()
    }
}

/// The gradients of all parameters, in one flat buffer.
pub struct FlatGradients<'a, F> {
    pub buffer: &'a mut F,
    /// The way in which this micro-step writes into the buffer.
    pub write: GradientWrite,
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
