//! The forward pass.

use std::ops::Range;

use super::Gpt;
use super::activations::{Layer, Norm, Scratch, attention_shape};
use super::params::{BlockModules, Module};
use crate::ops::attention::WeightDropout;
use crate::ops::classifier::Classifier;
use crate::ops::dropout::{self, Dropout, Site};
use crate::ops::{Element, attention, embedding, gelu, layer_norm, linear};
use crate::plan::ModelDims;

/// A micro-batch: token ids, (B, T) row-major, every id below the vocabulary size.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    pub inputs: &'a [u32],
    pub targets: &'a [u32],
    pub sequences: usize,
}

/// The rows that a pass computes: all positions of some sequences, or the last of a single one.
#[derive(Clone)]
pub(super) struct Span {
    pub sequences: usize,
    pub positions: Range<usize>,
}

impl Span {
    /// All `rows / sequences` positions of every sequence.
    pub fn whole(sequences: usize, rows: usize) -> Self {
        Self {
            sequences,
            positions: 0..rows / sequences,
        }
    }

    /// Elements of a (rows, columns) buffer that belong to this span.
    pub fn of(&self, columns: usize) -> Range<usize> {
        debug_assert!(self.sequences == 1 || self.positions.start == 0);
        self.positions.start * columns..self.sequences * self.positions.end * columns
    }

    /// As `of`, from the first position on: what attention sees.
    fn seen(&self, columns: usize) -> Range<usize> {
        0..self.of(columns).end
    }
}

impl<T: Element> Gpt<T> {
    /// The loss of every row, (R) in nats, without dropout.
    pub fn losses(&mut self, weights: &[T], batch: Batch) -> &[T] {
        let span = Span::whole(batch.sequences, batch.inputs.len());
        self.hidden(weights, batch.inputs, &span, None);
        let rows = span.of(1);
        let (mut classifier, x, losses) = self.classifier(weights, &span);
        classifier.losses(x, batch.targets, &mut losses[rows.clone()]);
        &self.activations.losses[rows]
    }

    /// The logits (V) that follow `tokens`, at most a block of them. The first `known` tokens must
    /// be those of the call before: their keys and values are still in the buffers.
    pub fn next_logits(&mut self, weights: &[T], tokens: &[u32], known: usize) -> &[T] {
        let span = Span {
            sequences: 1,
            positions: known..tokens.len(),
        };
        self.hidden(weights, &tokens[known..], &span, None);
        let c = self.dims.n_embd;
        let (mut classifier, x, _) = self.classifier(weights, &span);
        let logits = classifier.logits_of(&x[x.len() - c..]).len();
        &self.scratch.logits[..logits]
    }

    /// The logits (R, V) of whole sequences, for inspection: the only place where they all exist.
    pub fn logits(&mut self, weights: &[T], inputs: &[u32], sequences: usize) -> Vec<T> {
        let span = Span::whole(sequences, inputs.len());
        self.hidden(weights, inputs, &span, None);
        let c = self.dims.n_embd;
        let (mut classifier, x, _) = self.classifier(weights, &span);
        x.chunks_exact(c)
            .flat_map(|row| classifier.logits_of(row).to_vec())
            .collect()
    }

    /// The classifier, its input (rows, C), and the whole buffer of losses.
    pub(super) fn classifier<'a>(
        &'a mut self,
        weights: &'a [T],
        span: &Span,
    ) -> (Classifier<'a, T>, &'a [T], &'a mut [T]) {
        let c = self.dims.n_embd;
        let classifier = Classifier {
            wte: self.modules.wte.weight(weights),
            logits: &mut self.scratch.logits,
            columns: c,
        };
        let x = &self.activations.ln_f.out[span.of(c)];
        (classifier, x, &mut self.activations.losses)
    }

    /// Everything up to and including the final layer norm.
    pub(super) fn hidden(
        &mut self,
        weights: &[T],
        inputs: &[u32],
        span: &Span,
        dropout: Option<Dropout>,
    ) {
        let c = self.dims.n_embd;
        let (modules, acts) = (&self.modules, &mut self.activations);
        let positions = span.positions.len();
        embedding::forward(
            inputs,
            modules.wte.weight(weights),
            modules.wpe.weight(weights),
            &mut acts.embedding[span.of(c)],
            (span.positions.start, positions),
            c,
        );
        if let Some(dropout) = dropout {
            let x = &mut acts.embedding[span.of(c)];
            dropout::mask_in_place(x, c, positions, dropout, Site::Embedding);
        }
        let mut x: &[T] = &acts.embedding;
        let blocks = acts.layers.iter_mut().zip(&modules.blocks);
        for (index, (layer, modules)) in blocks.enumerate() {
            let pass = Pass {
                weights,
                dims: &self.dims,
                index,
                dropout,
            };
            pass.block(x, layer, modules, &mut self.scratch, span);
            x = &layer.out;
        }
        normalise(&modules.ln_f, weights, &x[span.of(c)], &mut acts.ln_f, span);
    }
}

/// What every block of one pass shares.
struct Pass<'a, T> {
    weights: &'a [T],
    dims: &'a ModelDims,
    index: usize,
    dropout: Option<Dropout>,
}

impl<T: Element> Pass<'_, T> {
    /// `x` and the layer's `out` are the residual stream, (R, C).
    fn block(
        &self,
        x: &[T],
        layer: &mut Layer<T>,
        modules: &BlockModules,
        scratch: &mut Scratch<T>,
        span: &Span,
    ) {
        let (c, weights, layer_number) = (self.dims.n_embd, self.weights, self.index);
        let branch = &mut scratch.branch[span.of(c)];

        normalise(
            &modules.ln_1,
            weights,
            &x[span.of(c)],
            &mut layer.ln_1,
            span,
        );
        let qkv = &mut layer.qkv[span.of(3 * c)];
        project(
            &modules.c_attn,
            weights,
            &layer.ln_1.out[span.of(c)],
            qkv,
            c,
        );
        attention::forward(
            &layer.qkv[span.seen(3 * c)],
            &mut layer.attention[span.seen(c)],
            &mut layer.lse[span.seen(self.dims.n_head)],
            attention_shape(self.dims, span.sequences, span.positions.end),
            span.positions.clone(),
            self.dropout.map(|dropout| WeightDropout {
                dropout,
                layer: layer_number,
            }),
            &mut scratch.attention,
        );
        project(
            &modules.attn_proj,
            weights,
            &layer.attention[span.of(c)],
            branch,
            c,
        );
        let site = Site::AttentionOutput {
            layer: layer_number,
        };
        let after = &mut layer.after_attention[span.of(c)];
        self.add(&x[span.of(c)], branch, after, site, span);

        let middle = &layer.after_attention[span.of(c)];
        normalise(&modules.ln_2, weights, middle, &mut layer.ln_2, span);
        let fc = &mut layer.fc[span.of(4 * c)];
        project(&modules.c_fc, weights, &layer.ln_2.out[span.of(c)], fc, c);
        let activated = &mut layer.gelu[span.of(4 * c)];
        gelu::forward(self.dims.gelu, fc, activated);
        project(&modules.mlp_proj, weights, activated, branch, 4 * c);
        let site = Site::MlpOutput {
            layer: layer_number,
        };
        self.add(middle, branch, &mut layer.out[span.of(c)], site, span);
    }

    fn add(&self, x: &[T], branch: &[T], out: &mut [T], site: Site, span: &Span) {
        let dropout = self.dropout.map(|dropout| (dropout, site));
        let positions = span.positions.len();
        dropout::residual_forward(x, branch, out, self.dims.n_embd, positions, dropout);
    }
}

fn normalise<T: Element>(module: &Module, weights: &[T], x: &[T], norm: &mut Norm<T>, span: &Span) {
    let weight = module.weight(weights);
    let stats = layer_norm::Stats {
        mean: &mut norm.mean[span.of(1)],
        rstd: &mut norm.rstd[span.of(1)],
    };
    let out = &mut norm.out[span.of(weight.len())];
    layer_norm::forward(x, weight, module.bias(weights), out, stats);
}

fn project<T: Element>(module: &Module, weights: &[T], x: &[T], y: &mut [T], inputs: usize) {
    linear::forward(x, module.weight(weights), module.bias(weights), y, inputs);
}
