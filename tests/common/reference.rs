//! GPT-2 written plainly with the ops' candle twins; its autograd is the oracle of the model.

use std::collections::HashMap;

use candle_core::{Device, Tensor, Var};
use taper::model::ParamLayout;
use taper::ops::backend::DropoutSite;
use taper::ops::cpu::attention::attention_ref;
use taper::ops::cpu::cross_entropy::cross_entropy_ref;
use taper::ops::cpu::dropout::{Dropout, factors};
use taper::ops::cpu::embedding::embedding_ref;
use taper::ops::cpu::layer_norm::layer_norm_ref;
use taper::ops::cpu::linear::linear_ref;
use taper::ops::loops::Element;
use taper::ops::loops::gelu::gelu_ref;
use taper::terms::ModelDims;

pub struct Reference {
    dims: ModelDims,
    layout: ParamLayout,
    params: HashMap<String, Var>,
}

impl Reference {
    pub fn new<T: Element>(dims: &ModelDims, weights: &[T]) -> Self {
        let layout = ParamLayout::new(dims);
        let params = layout
            .params
            .iter()
            .map(|param| {
                let var = super::variable(&weights[param.range()], &param.shape);
                (param.name.clone(), var)
            })
            .collect();
        Self {
            dims: dims.clone(),
            layout,
            params,
        }
    }

    fn weight(&self, module: &str) -> &Tensor {
        &self.params[&format!("transformer.{module}.weight")]
    }

    fn bias(&self, module: &str) -> Option<&Tensor> {
        let bias = self.params.get(&format!("transformer.{module}.bias"));
        bias.map(|var| var.as_tensor())
    }

    /// The loss of every row, (R); dropout by the masks that the ops would draw.
    pub fn losses<T: Element>(
        &self,
        inputs: &[u32],
        targets: &[u32],
        sequences: usize,
        dropout: Option<Dropout>,
    ) -> Tensor {
        let (c, heads) = (self.dims.n_embd, self.dims.n_head);
        let t = inputs.len() / sequences;
        let tokens = Tensor::from_slice(inputs, (sequences, t), &Device::Cpu).unwrap();
        let masks = Masks {
            dropout,
            sequences,
            positions: t,
        };
        let norm = |x: &Tensor, m: &str| layer_norm_ref(x, self.weight(m), self.bias(m)).unwrap();
        let linear = |x: &Tensor, m: &str| linear_ref(x, self.weight(m), self.bias(m)).unwrap();

        let x = embedding_ref(&tokens, self.weight("wte"), self.weight("wpe")).unwrap();
        let mut x = masks.apply::<T>(&x, DropoutSite::Embedding, c);
        for layer in 0..self.dims.n_layer {
            let name = |part: &str| format!("h.{layer}.{part}");
            let qkv = linear(&norm(&x, &name("ln_1")), &name("attn.c_attn"));
            let weights = masks.attention::<T>(layer, heads);
            let attention = attention_ref(&qkv, heads, weights.as_ref()).unwrap();
            let branch = linear(&attention, &name("attn.c_proj"));
            x = (x + masks.apply::<T>(&branch, DropoutSite::AttentionOutput { layer }, c)).unwrap();
            let fc = linear(&norm(&x, &name("ln_2")), &name("mlp.c_fc"));
            let branch = linear(&gelu_ref(self.dims.gelu, &fc).unwrap(), &name("mlp.c_proj"));
            x = (x + masks.apply::<T>(&branch, DropoutSite::MlpOutput { layer }, c)).unwrap();
        }
        let x = norm(&x, "ln_f").reshape((sequences * t, c)).unwrap();
        let targets = Tensor::from_slice(targets, targets.len(), &Device::Cpu).unwrap();
        cross_entropy_ref(&linear_ref(&x, self.weight("wte"), None).unwrap(), &targets).unwrap()
    }

    /// The gradients of `scale * sum(losses)`, flat in the layout's order.
    pub fn gradients<T: Element>(&self, losses: &Tensor, scale: f64) -> Vec<T> {
        let loss = (losses.sum_all().unwrap() * scale).unwrap();
        let store = loss.backward().unwrap();
        let mut flat = Vec::with_capacity(self.layout.len);
        for param in &self.layout.params {
            let gradient = store
                .get(&self.params[&param.name])
                .unwrap_or_else(|| panic!("no gradient reached {}", param.name));
            flat.extend(super::values::<T>(gradient));
        }
        flat
    }
}

struct Masks {
    dropout: Option<Dropout>,
    sequences: usize,
    positions: usize,
}

impl Masks {
    fn apply<T: Element>(&self, x: &Tensor, site: DropoutSite, columns: usize) -> Tensor {
        let Some(dropout) = self.dropout else {
            return x.clone();
        };
        let mask: Vec<T> = (0..self.sequences)
            .flat_map(|sample| factors::<T>(dropout, site, sample, self.positions, columns))
            .collect();
        (x * super::tensor(&mask, &[self.sequences, self.positions, columns])).unwrap()
    }

    fn attention<T: Element>(&self, layer: usize, heads: usize) -> Option<Tensor> {
        let dropout = self.dropout?;
        let t = self.positions;
        let mut mask = Vec::new();
        for sample in 0..self.sequences {
            for head in 0..heads {
                let site = DropoutSite::Attention { layer, head };
                mask.extend(factors::<T>(dropout, site, sample, t, t));
            }
        }
        Some(super::tensor(&mask, &[self.sequences, heads, t, t]))
    }
}
