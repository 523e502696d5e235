//! The forward pass.

use std::ops::Range;

use super::activations::{Cheap, Kept, Scratch, Stats, attention_shape, slot};
use super::params::{BlockModules, Module};
use super::{Gpt, Recompute};
use crate::ops::attention::WeightDropout;
use crate::ops::classifier::Classifier;
use crate::ops::dropout::{self, Dropout, Site};
use crate::ops::gemm::Products;
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
        self.forward(weights, batch, None);
        let span = Span::whole(batch.sequences, batch.inputs.len());
        let rows = span.of(1);
        let (mut classifier, x, losses) = self.classifier(weights, &span);
        classifier.losses(x, batch.targets, &mut losses[rows.clone()]);
        &self.activations.losses[rows]
    }

    /// The logits (V) that follow `tokens`, at most a block of them. The first `known` tokens must
    /// be those of the call before: their keys and values are still in the buffers, unless all
    /// blocks share theirs.
    pub fn next_logits(&mut self, weights: &[T], tokens: &[u32], known: usize) -> &[T] {
        let known = match self.rung.recompute {
            Recompute::Block => 0,
            Recompute::None | Recompute::GeluLn => known,
        };
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

    /// All that [`Gpt::backward`] needs of the same batch; the classifier is left to it.
    pub fn forward(&mut self, weights: &[T], batch: Batch, dropout: Option<Dropout>) {
        let span = Span::whole(batch.sequences, batch.inputs.len());
        self.hidden(weights, batch.inputs, &span, dropout);
    }

    /// The classifier, its input (rows, C), and the whole buffer of losses.
    pub(super) fn classifier<'a>(
        &'a mut self,
        weights: &'a [T],
        span: &Span,
    ) -> (Classifier<'a, T>, &'a [T], &'a mut [T]) {
        let c = self.dims.n_embd;
        let classifier = Classifier {
            products: &self.products,
            wte: self.modules.wte.weight(weights),
            logits: &mut self.scratch.logits,
            columns: c,
        };
        let x = &self.activations.ln_f[span.of(c)];
        (classifier, x, &mut self.activations.losses)
    }

    /// Everything up to and including the final layer norm.
    fn hidden(&mut self, weights: &[T], inputs: &[u32], span: &Span, dropout: Option<Dropout>) {
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
        let blocks = acts.outs.iter_mut().zip(&modules.blocks);
        for (index, (out, modules)) in blocks.enumerate() {
            let pass = Pass {
                products: &self.products,
                weights,
                dims: &self.dims,
                index,
                dropout,
                span,
            };
            let (kept, cheap) = (slot(&acts.kept, index), slot(&acts.cheap, index));
            let (kept, cheap) = (&mut acts.kept[kept], &mut acts.cheap[cheap]);
            pass.inner(x, kept, cheap, modules, &mut self.scratch);
            pass.output(kept, cheap, modules, &mut self.scratch, out);
            x = out;
        }
        let (x, out) = (&x[span.of(c)], &mut acts.ln_f[span.of(c)]);
        normalise(&modules.ln_f, weights, x, out, &mut acts.ln_f_stats, span);
    }
}

/// What the operations of one block share.
pub(super) struct Pass<'a, T: Element> {
    pub products: &'a Products<T>,
    pub weights: &'a [T],
    pub dims: &'a ModelDims,
    pub index: usize,
    pub dropout: Option<Dropout>,
    pub span: &'a Span,
}

type KeptRows<T> = Kept<Vec<T>, Vec<T>>;

impl<T: Element> Pass<'_, T> {
    /// The block up to the activation of its MLP, from the residual stream `x` (R, C): all that the
    /// backward reads.
    pub fn inner(
        &self,
        x: &[T],
        kept: &mut KeptRows<T>,
        cheap: &mut Cheap<Vec<T>>,
        modules: &BlockModules,
        scratch: &mut Scratch<Vec<T>, Vec<T>>,
    ) {
        let (c, span) = (self.dims.n_embd, self.span);
        let (rows, wide) = (span.of(c), span.of(4 * c));
        let x = &x[rows.clone()];

        let out = &mut cheap.ln_1[rows.clone()];
        normalise(&modules.ln_1, self.weights, x, out, &mut kept.ln_1, span);
        let qkv = &mut kept.qkv[span.of(3 * c)];
        self.project(&modules.c_attn, &cheap.ln_1[rows.clone()], qkv, c);
        attention::forward(
            &kept.qkv[span.seen(3 * c)],
            &mut kept.attention[span.seen(c)],
            &mut kept.lse[span.seen(self.dims.n_head)],
            attention_shape(self.dims, span.sequences, span.positions.end),
            span.positions.clone(),
            self.weight_dropout(),
            &mut scratch.attention,
        );
        let branch = &mut scratch.branch[rows.clone()];
        self.project(&modules.attn_proj, &kept.attention[rows.clone()], branch, c);
        let site = Site::AttentionOutput { layer: self.index };
        self.add(x, branch, &mut kept.after_attention[rows.clone()], site);

        let (middle, out) = (
            &kept.after_attention[rows.clone()],
            &mut cheap.ln_2[rows.clone()],
        );
        normalise(
            &modules.ln_2,
            self.weights,
            middle,
            out,
            &mut kept.ln_2,
            span,
        );
        linear::forward_gelu(
            self.products,
            self.dims.gelu,
            &cheap.ln_2[rows],
            modules.c_fc.weight(self.weights),
            modules.c_fc.bias(self.weights),
            (&mut kept.fc[wide.clone()], &mut cheap.gelu[wide]),
            c,
        );
    }

    /// The rest of the block: the residual stream `out` (R, C).
    fn output(
        &self,
        kept: &KeptRows<T>,
        cheap: &Cheap<Vec<T>>,
        modules: &BlockModules,
        scratch: &mut Scratch<Vec<T>, Vec<T>>,
        out: &mut [T],
    ) {
        let c = self.dims.n_embd;
        let rows = self.span.of(c);
        let branch = &mut scratch.branch[rows.clone()];
        let activated = &cheap.gelu[self.span.of(4 * c)];
        self.project(&modules.mlp_proj, activated, branch, 4 * c);
        let site = Site::MlpOutput { layer: self.index };
        let middle = &kept.after_attention[rows.clone()];
        self.add(middle, branch, &mut out[rows], site);
    }

    /// What is cheap, from what was kept of the block and the `x` (R, C) that entered it.
    pub fn cheap(
        &self,
        x: &[T],
        kept: &mut KeptRows<T>,
        cheap: &mut Cheap<Vec<T>>,
        modules: &BlockModules,
    ) {
        let (c, span) = (self.dims.n_embd, self.span);
        let (rows, wide) = (span.of(c), span.of(4 * c));
        let (x, out) = (&x[rows.clone()], &mut cheap.ln_1[rows.clone()]);
        normalise(&modules.ln_1, self.weights, x, out, &mut kept.ln_1, span);
        let (middle, out) = (&kept.after_attention[rows.clone()], &mut cheap.ln_2[rows]);
        normalise(
            &modules.ln_2,
            self.weights,
            middle,
            out,
            &mut kept.ln_2,
            span,
        );
        gelu::forward(
            self.dims.gelu,
            &kept.fc[wide.clone()],
            &mut cheap.gelu[wide],
        );
    }

    fn weight_dropout(&self) -> Option<WeightDropout> {
        self.dropout.map(|dropout| WeightDropout {
            dropout,
            layer: self.index,
        })
    }

    fn project(&self, module: &Module, x: &[T], y: &mut [T], inputs: usize) {
        let (weight, bias) = (module.weight(self.weights), module.bias(self.weights));
        linear::forward(self.products, x, weight, bias, y, inputs);
    }

    fn add(&self, x: &[T], branch: &[T], out: &mut [T], site: Site) {
        let dropout = self.dropout.map(|dropout| (dropout, site));
        let positions = self.span.positions.len();
        dropout::residual_forward(x, branch, out, self.dims.n_embd, positions, dropout);
    }
}

fn normalise<T: Element>(
    module: &Module,
    weights: &[T],
    x: &[T],
    out: &mut [T],
    stats: &mut Stats<Vec<T>>,
    span: &Span,
) {
    let stats = layer_norm::Stats {
        mean: &mut stats.mean[span.of(1)],
        rstd: &mut stats.rstd[span.of(1)],
    };
    layer_norm::forward(x, module.weight(weights), module.bias(weights), out, stats);
}
