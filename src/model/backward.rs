//! The backward pass: the forward's operations in reverse.

use super::activations::{
    Activations, BackwardScratch, Cheap, Kept, Scratch, Stats, attention_shape, slot,
};
use super::forward::{self, Batch, Span};
use super::params::{BlockModules, Module};
use super::{Gpt, Recompute};
use crate::ops::dropout::{self, Dropout, Site};
use crate::ops::gemm::Products;
use crate::ops::{Element, attention, embedding, layer_norm, linear};
use crate::plan::ModelDims;

impl<T: Element> Gpt<T> {
    /// After [`Gpt::forward`] with the same arguments: adds to `gradients` those of
    /// `scale * sum(losses)` and returns the loss of every row, (R).
    ///
    /// # Panics
    /// If the model was made for inference.
    pub fn backward(
        &mut self,
        weights: &[T],
        gradients: &mut [T],
        batch: Batch,
        scale: T,
        dropout: Option<Dropout>,
    ) -> &[T] {
        let span = Span::whole(batch.sequences, batch.inputs.len());
        let Some(mut d) = self.backward.take() else {
            unreachable!("a model for inference was asked for gradients");
        };
        let c = self.dims.n_embd;
        let wte = self.modules.wte.clone();
        let (mut classifier, x, losses) = self.classifier(weights, &span);
        classifier.losses_and_gradients(
            x,
            batch.targets,
            scale,
            &mut losses[span.of(1)],
            (&mut d.branch[span.of(c)], wte.gradients(gradients).0),
        );
        self.backward_from_logits(weights, gradients, batch, &span, dropout, &mut d);
        self.backward = Some(d);
        &self.activations.losses[span.of(1)]
    }

    /// From the gradient of the final norm's output, in `d.branch`, down to the embeddings.
    fn backward_from_logits(
        &mut self,
        weights: &[T],
        gradients: &mut [T],
        batch: Batch,
        span: &Span,
        dropout: Option<Dropout>,
        d: &mut BackwardScratch<Vec<T>, Vec<T>>,
    ) {
        let (c, positions) = (self.dims.n_embd, span.positions.len());
        let mut pass = Pass {
            products: &self.products,
            weights,
            gradients,
            dims: &self.dims,
            span,
            dropout,
            d,
            scratch: &mut self.scratch,
        };
        let acts = &mut self.activations;
        pass.d.residual[span.of(c)].fill(T::ZERO);
        let x = input_of(&acts.embedding, &acts.outs, acts.outs.len());
        pass.norm(&self.modules.ln_f, x, &acts.ln_f_stats);
        for (index, modules) in self.modules.blocks.iter().enumerate().rev() {
            pass.recompute(self.rung.recompute, acts, modules, index);
            let x = input_of(&acts.embedding, &acts.outs, index);
            let (kept, cheap) = (slot(&acts.kept, index), slot(&acts.cheap, index));
            pass.block(x, &acts.kept[kept], &acts.cheap[cheap], modules, index);
        }
        let dx = &mut pass.d.residual[span.of(c)];
        if let Some(dropout) = dropout {
            dropout::mask_in_place(dx, c, positions, dropout, Site::Embedding);
        }
        let (dwte, dwpe) = pass.gradients.split_at_mut(self.modules.wpe.start());
        let dwpe = &mut dwpe[..self.dims.block_size * c];
        embedding::backward(batch.inputs, dx, dwte, dwpe, positions, c);
    }
}

/// The residual stream that enters block `index`; for the number of blocks, the final norm.
fn input_of<'a, T>(embedding: &'a [T], outs: &'a [Vec<T>], index: usize) -> &'a [T] {
    match index.checked_sub(1) {
        Some(previous) => &outs[previous],
        None => embedding,
    }
}

/// What every block of one backward shares. `d.residual` is the gradient of the residual stream.
struct Pass<'a, T: Element> {
    products: &'a Products<T>,
    weights: &'a [T],
    gradients: &'a mut [T],
    dims: &'a ModelDims,
    span: &'a Span,
    dropout: Option<Dropout>,
    d: &'a mut BackwardScratch<Vec<T>, Vec<T>>,
    scratch: &'a mut Scratch<Vec<T>, Vec<T>>,
}

impl<T: Element> Pass<'_, T> {
    /// Makes the buffers that block `index` shares with others hold its own values again. They still
    /// do after the forward if it is the last block.
    fn recompute(
        &mut self,
        recompute: Recompute,
        acts: &mut Activations<Vec<T>, Vec<T>>,
        modules: &BlockModules,
        index: usize,
    ) {
        if index + 1 == acts.outs.len() {
            return;
        }
        let pass = forward::Pass {
            products: self.products,
            weights: self.weights,
            dims: self.dims,
            index,
            dropout: self.dropout,
            span: self.span,
        };
        let x = input_of(&acts.embedding, &acts.outs, index);
        let (kept, cheap) = (slot(&acts.kept, index), slot(&acts.cheap, index));
        let (kept, cheap) = (&mut acts.kept[kept], &mut acts.cheap[cheap]);
        match recompute {
            Recompute::None => {}
            Recompute::GeluLn => pass.cheap(x, kept, cheap, modules),
            Recompute::Block => pass.inner(x, kept, cheap, modules, self.scratch),
        }
    }

    fn block(
        &mut self,
        x: &[T],
        kept: &Kept<Vec<T>, Vec<T>>,
        cheap: &Cheap<Vec<T>>,
        modules: &BlockModules,
        index: usize,
    ) {
        let (c, span) = (self.dims.n_embd, self.span);
        let wide = span.of(4 * c);

        self.branch(Site::MlpOutput { layer: index });
        self.weight_gradients(
            &modules.mlp_proj,
            &cheap.gelu[wide.clone()],
            From::Branch,
            4 * c,
        );
        let weight = modules.mlp_proj.weight(self.weights);
        let (branch, d_fc) = (&self.d.branch[span.of(c)], &mut self.d.wide[wide.clone()]);
        linear::backward_gelu_input(
            self.products,
            self.dims.gelu,
            branch,
            weight,
            &kept.fc[wide],
            d_fc,
            4 * c,
        );
        self.weight_gradients(&modules.c_fc, &cheap.ln_2[span.of(c)], From::Wide(4), c);
        self.input_gradients(&modules.c_fc, 4);
        self.norm(&modules.ln_2, &kept.after_attention, &kept.ln_2);

        self.branch(Site::AttentionOutput { layer: index });
        self.weight_gradients(
            &modules.attn_proj,
            &kept.attention[span.of(c)],
            From::Branch,
            c,
        );
        let d_attention = &mut self.scratch.branch[span.of(c)];
        let weight = modules.attn_proj.weight(self.weights);
        let branch = &self.d.branch[span.of(c)];
        linear::backward_input(self.products, branch, weight, d_attention, c);
        attention::backward(
            d_attention,
            attention::Saved {
                qkv: &kept.qkv[span.of(3 * c)],
                out: &kept.attention[span.of(c)],
                lse: &kept.lse[span.of(self.dims.n_head)],
            },
            &mut self.d.wide[span.of(3 * c)],
            attention_shape(self.dims, span.sequences, span.positions.end),
            self.dropout.map(|dropout| attention::WeightDropout {
                dropout,
                layer: index,
            }),
            &mut self.scratch.attention,
        );
        self.weight_gradients(&modules.c_attn, &cheap.ln_1[span.of(c)], From::Wide(3), c);
        self.input_gradients(&modules.c_attn, 3);
        self.norm(&modules.ln_1, x, &kept.ln_1);
    }

    /// `d.branch` = the gradient of the residual stream through the dropout at `site`.
    fn branch(&mut self, site: Site) {
        let (c, positions) = (self.dims.n_embd, self.span.positions.len());
        let range = self.span.of(c);
        let (residual, branch) = (&self.d.residual[range.clone()], &mut self.d.branch[range]);
        branch.copy_from_slice(residual);
        if let Some(dropout) = self.dropout {
            dropout::mask_in_place(branch, c, positions, dropout, site);
        }
    }

    fn weight_gradients(&mut self, module: &Module, x: &[T], from: From, inputs: usize) {
        let c = self.dims.n_embd;
        let dy = match from {
            From::Branch => &self.d.branch[self.span.of(c)],
            From::Wide(parts) => &self.d.wide[self.span.of(parts * c)],
        };
        let (dweight, dbias) = module.gradients(self.gradients);
        linear::backward_weight(self.products, dy, x, dweight, dbias, inputs);
    }

    /// `d.branch` (R, C) from `d.wide` (R, parts * C), through `module`.
    fn input_gradients(&mut self, module: &Module, parts: usize) {
        let c = self.dims.n_embd;
        let dy = &self.d.wide[self.span.of(parts * c)];
        let dx = &mut self.d.branch[self.span.of(c)];
        linear::backward_input(self.products, dy, module.weight(self.weights), dx, c);
    }

    /// Adds to `d.residual` what `d.branch`, the gradient of a norm's output, means for its input.
    fn norm(&mut self, module: &Module, x: &[T], stats: &Stats<Vec<T>>) {
        let (c, span) = (self.dims.n_embd, self.span);
        let saved = layer_norm::Saved {
            x: &x[span.of(c)],
            weight: module.weight(self.weights),
            mean: &stats.mean[span.of(1)],
            rstd: &stats.rstd[span.of(1)],
        };
        let (dweight, dbias) = module.gradients(self.gradients);
        let dx = &mut self.d.residual[span.of(c)];
        let dout = &self.d.branch[span.of(c)];
        layer_norm::backward(dout, saved, dx, dweight, dbias, &mut self.d.partials);
    }
}

/// Where the gradient of a linear layer's output lies.
enum From {
    Branch,
    /// In the first so many C columns per row of `d.wide`.
    Wide(usize),
}
