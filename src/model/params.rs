//! The parameters in their one order: nanoGPT's names and layouts in a flat buffer.
//!
//! Weights, gradients and both moments share this layout, so the optimizer, the gradient norm and
//! a checkpoint each make one pass over one buffer.

use std::ops::Range;

use crate::ops::backend::DecayRun;
use crate::terms::ModelDims;

/// One parameter, and its place in the flat buffers.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// nanoGPT's state-dict name.
    pub name: String,
    /// Linear weights are (out, in).
    pub shape: Vec<usize>,
    pub offset: usize,
    pub len: usize,
    pub init: Init,
    pub role: ParamRole,
}

/// The distribution of initial values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    Constant(f64),
    /// With mean 0.
    Normal {
        std: f64,
    },
}

/// The part that a parameter plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamRole {
    Embedding,
    /// Weight of a linear layer, which Hugging Face's GPT-2 keeps as `Conv1D`: transposed.
    Linear,
    Norm,
    Bias,
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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParamLayout {
    pub params: Vec<ParamSpec>,
    /// Elements in all parameters together.
    pub len: usize,
}

impl ParamLayout {
    pub fn new(dims: &ModelDims) -> Self {
        super::gpt2::params(dims)
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

    /// Adds a parameter behind all others, and returns its place.
    pub(super) fn push(
        &mut self,
        name: String,
        shape: &[usize],
        init: Init,
        role: ParamRole,
    ) -> Range<usize> {
        let (offset, len) = (self.len, shape.iter().product());
        self.params.push(ParamSpec {
            name,
            shape: shape.to_owned(),
            offset,
            len,
            init,
            role,
        });
        self.len += len;
        offset..self.len
    }
}
