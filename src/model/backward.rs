//! The backward pass: the forward's operations in reverse.

use super::Gpt;
use super::activations::{
    Activations, BackwardScratch, Cheap, RowStats, Streams, attention_shape, input_of, slot,
};
use super::forward::{ForwardPass, KeptOf, ScratchOf, Span};
use super::params::{FlatGradients, Module, Modules};
use crate::memory::Refused;
use crate::ops::backend::{
    AttentionSaved, Backend, Buffers, Done, DropoutSite, EmbeddingGradients, GradientWrite, Masks,
    NormSaved, Part, PartMut, RowShape,
};
use crate::terms::{ModelDims, Recompute};

impl<B: Backend> Gpt<B> {
    /// Adds the gradients of the sum of the losses times the batch's scale to `gradients`, and returns the loss
    /// of every row, (R). Follows [`Gpt::forward`] with the same arguments.
    ///
    /// # Errors
    /// The device's refusal.
    ///
    /// # Panics
    /// If the model was made for inference.
    pub fn backward(
        &mut self,
        weights: &B::Compute,
        mut gradients: FlatGradients<B::Full>,
        batch: &B::Batch,
        sequences: usize,
        masks: Option<Masks<B::Header>>,
    ) -> Result<Part<'_, B::Full>, Refused> {
        let span = Span::whole(sequences, self.dims.block_size);
        let Some(mut d) = self.backward.take() else {
            unreachable!("a model for inference was asked for gradients");
        };
        let done = self
            .classifier(weights, &mut gradients, batch, &span, &mut d)
            .and_then(|()| self.blocks(weights, gradients, batch, &span, masks, &mut d));
        self.backward = Some(d);
        done?;
        Ok(span.part(&self.activations.losses, 1))
    }

    /// Computes the losses, and the backward from the logits down to the final norm's output, whose gradient goes
    /// to `d.streams.branch`. Logits exist a chunk at a time and become their own gradients.
    fn classifier(
        &mut self,
        weights: &B::Compute,
        gradients: &mut FlatGradients<B::Full>,
        batch: &B::Batch,
        span: &Span,
        d: &mut BackwardOf<B>,
    ) -> Done {
        let (c, v) = (self.dims.n_embd, self.dims.vocab_size);
        for rows in self.chunks(span) {
            self.logits_of(weights, rows.clone())?;
            let (backend, acts) = (&*self.backend, &mut self.activations);
            let (logits, all) = (&mut self.scratch.logits, 0..rows.len() * v);
            let losses = PartMut::new(&mut acts.losses, rows.clone());
            let chunk = PartMut::new(logits, all.clone());
            backend.cross_entropy_gradients(batch, rows.clone(), chunk, losses)?;
            let (dy, part) = (Part::new(logits, all), rows.start * c..rows.end * c);
            let head = self.modules.wte.weight(weights);
            let dx = PartMut::new(&mut d.streams.branch, part.clone());
            backend.input_gradients(head, dy, dx, c)?;
            let write = match rows.start {
                0 => gradients.write,
                _ => GradientWrite::Accumulate,
            };
            let (x, into) = (
                Part::new(&acts.ln_f, part),
                self.modules.wte.gradients(gradients.buffer, write),
            );
            backend.weight_gradients(dy, x, into, c, &mut d.partials)?;
        }
        Ok(())
    }

    /// Computes the backward from the gradient of the final norm's output, in `d.streams.branch`, down to the
    /// embeddings.
    fn blocks(
        &mut self,
        weights: &B::Compute,
        gradients: FlatGradients<B::Full>,
        batch: &B::Batch,
        span: &Span,
        masks: Option<Masks<B::Header>>,
        d: &mut BackwardOf<B>,
    ) -> Done {
        let mut pass = BackwardPass {
            backend: &*self.backend,
            weights,
            gradients,
            dims: &self.dims,
            modules: &self.modules,
            span,
            masks,
            d,
            scratch: &mut self.scratch,
        };
        let acts = &mut self.activations;
        let c = self.dims.n_embd;
        pass.backend
            .clear(span.part_mut(&mut pass.d.streams.residual, c))?;
        let x = input_of(&acts.embedding, &acts.outs, acts.outs.len());
        pass.norm(&self.modules.ln_f, x, &acts.ln_f_stats)?;
        for index in (0..self.dims.n_layer).rev() {
            pass.recompute(self.rung.recompute, acts, index)?;
            let x = input_of(&acts.embedding, &acts.outs, index);
            let (kept, cheap) = (slot(&acts.kept, index), slot(&acts.cheap, index));
            let stats = &acts.ln_1_stats[kept];
            pass.block(index, x, stats, &acts.kept[kept], &acts.cheap[cheap])?;
        }
        pass.embeddings(batch)
    }
}

type BackwardOf<B> = BackwardScratch<<B as Buffers>::Compute, <B as Buffers>::Full>;

/// Everything that the blocks of one backward pass share. `d.streams.residual` is the gradient of the residual stream.
struct BackwardPass<'a, B: Backend> {
    backend: &'a B,
    weights: &'a B::Compute,
    gradients: FlatGradients<'a, B::Full>,
    dims: &'a ModelDims,
    modules: &'a Modules,
    span: &'a Span,
    masks: Option<Masks<'a, B::Header>>,
    d: &'a mut BackwardOf<B>,
    scratch: &'a mut ScratchOf<B>,
}

/// The one of the two [`Streams`] that holds the gradient of a branch's output, (R, C).
#[derive(Clone, Copy)]
enum BranchGradient {
    /// The gradient of the residual stream itself: nothing was dropped.
    Residual,
    Branch,
}

impl BranchGradient {
    fn of<C>(self, streams: &Streams<C>) -> &C {
        match self {
            BranchGradient::Residual => &streams.residual,
            BranchGradient::Branch => &streams.branch,
        }
    }
}

/// Place of the gradient of a linear layer's output.
#[derive(Clone, Copy)]
enum OutputGradient {
    Branch(BranchGradient),
    /// The first `.0 * C` columns per row of `d.wide`.
    Wide(usize),
}

impl<B: Backend> BackwardPass<'_, B> {
    /// Recomputes the buffers that block `index` shares with others. Those of the last block still hold its
    /// values after the forward.
    fn recompute(
        &mut self,
        recompute: Recompute,
        acts: &mut Activations<B::Compute, B::Full>,
        index: usize,
    ) -> Done {
        if index + 1 == acts.outs.len() {
            return Ok(());
        }
        let pass = ForwardPass {
            backend: self.backend,
            weights: self.weights,
            dims: self.dims,
            modules: self.modules,
            span: self.span,
            masks: self.masks,
        };
        let x = input_of(&acts.embedding, &acts.outs, index);
        let (kept, cheap) = (slot(&acts.kept, index), slot(&acts.cheap, index));
        let stats = &mut acts.ln_1_stats[kept];
        let (kept, cheap) = (&mut acts.kept[kept], &mut acts.cheap[cheap]);
        match recompute {
            Recompute::None => Ok(()),
            Recompute::GeluLn => pass.cheap(index, x, stats, kept, cheap),
            Recompute::Block => {
                let norm = &self.modules.blocks[index].ln_1;
                pass.norm(norm, x, &mut cheap.ln_1, stats)?;
                pass.inner(index, x, kept, cheap, self.scratch)
            }
        }
    }

    fn block(
        &mut self,
        index: usize,
        x: &B::Compute,
        ln_1: &RowStats<B::Full>,
        kept: &KeptOf<B>,
        cheap: &Cheap<B::Compute>,
    ) -> Done {
        let (c, modules) = (self.dims.n_embd, &self.modules.blocks[index]);
        let branch = self.branch(DropoutSite::MlpOutput { layer: index })?;
        self.weight_gradients(
            &modules.mlp_proj,
            &cheap.gelu,
            OutputGradient::Branch(branch),
            4 * c,
        )?;
        self.gelu_input_gradients(&modules.mlp_proj, branch, &kept.fc)?;
        self.weight_gradients(&modules.c_fc, &cheap.ln_2, OutputGradient::Wide(4), c)?;
        self.input_gradients(&modules.c_fc, 4)?;
        self.norm(&modules.ln_2, &kept.after_attention, &kept.ln_2)?;

        let branch = self.branch(DropoutSite::AttentionOutput { layer: index })?;
        self.weight_gradients(
            &modules.attn_proj,
            &kept.attention,
            OutputGradient::Branch(branch),
            c,
        )?;
        self.attention(index, branch, kept)?;
        self.weight_gradients(&modules.c_attn, &cheap.ln_1, OutputGradient::Wide(3), c)?;
        self.input_gradients(&modules.c_attn, 3)?;
        self.norm(&modules.ln_1, x, ln_1)
    }

    /// The gradient of the residual stream after the dropout at `site`: that of the branch's output.
    fn branch(&mut self, site: DropoutSite) -> Result<BranchGradient, Refused> {
        let Some(masks) = self.masks else {
            return Ok(BranchGradient::Residual);
        };
        let (c, span, streams) = (self.dims.n_embd, self.span, &mut self.d.streams);
        let x = span.part(&streams.residual, c);
        let out = span.part_mut(&mut streams.branch, c);
        let shape = RowShape {
            columns: c,
            positions: span.positions.len(),
        };
        self.backend.drop(x, out, shape, masks.at(site))?;
        Ok(BranchGradient::Branch)
    }

    fn weight_gradients(
        &mut self,
        module: &Module,
        x: &B::Compute,
        from: OutputGradient,
        columns: usize,
    ) -> Done {
        let c = self.dims.n_embd;
        let dy = match from {
            OutputGradient::Branch(branch) => self.span.part(branch.of(&self.d.streams), c),
            OutputGradient::Wide(parts) => self.span.part(&self.d.wide, parts * c),
        };
        let into = module.gradients(self.gradients.buffer, self.gradients.write);
        let (x, partials) = (self.span.part(x, columns), &mut self.d.partials);
        self.backend
            .weight_gradients(dy, x, into, columns, partials)
    }

    /// Computes `d.wide` (R, 4C) from the gradient of the MLP's output, through the activation of `x`.
    fn gelu_input_gradients(
        &mut self,
        module: &Module,
        from: BranchGradient,
        x: &B::Compute,
    ) -> Done {
        let (c, wide, span) = (self.dims.n_embd, 4 * self.dims.n_embd, self.span);
        let dy = span.part(from.of(&self.d.streams), c);
        let (x, dx) = (span.part(x, wide), span.part_mut(&mut self.d.wide, wide));
        let weight = module.weight(self.weights);
        let form = self.dims.gelu;
        self.backend
            .gelu_input_gradients(form, weight, dy, x, dx, wide)
    }

    /// Computes `d.streams.branch` (R, C) from `d.wide` (R, parts * C), through `module`.
    fn input_gradients(&mut self, module: &Module, parts: usize) -> Done {
        let (c, span) = (self.dims.n_embd, self.span);
        let dy = span.part(&self.d.wide, parts * c);
        let dx = span.part_mut(&mut self.d.streams.branch, c);
        self.backend
            .input_gradients(module.weight(self.weights), dy, dx, c)
    }

    /// Computes the first 3 C columns per row of `d.wide` from the gradient of the attention block's output.
    fn attention(&mut self, index: usize, from: BranchGradient, kept: &KeptOf<B>) -> Done {
        let (c, span) = (self.dims.n_embd, self.span);
        let dy = span.part(from.of(&self.d.streams), c);
        let weight = self.modules.blocks[index].attn_proj.weight(self.weights);
        let dx = span.part_mut(&mut self.scratch.branch, c);
        self.backend.input_gradients(weight, dy, dx, c)?;
        let saved = AttentionSaved {
            qkv: span.part(&kept.qkv, 3 * c),
            out: span.part(&kept.attention, c),
            lse: span.part(&kept.lse, self.dims.n_head),
        };
        let site = DropoutSite::Attention {
            layer: index,
            head: 0,
        };
        self.backend.attention_gradients(
            attention_shape(self.dims, span.sequences, span.positions.end),
            span.part(&self.scratch.branch, c),
            saved,
            span.part_mut(&mut self.d.wide, 3 * c),
            self.masks.map(|masks| masks.at(site)),
            &mut self.scratch.attention,
        )
    }

    /// Adds the gradient of a norm's input to `d.streams.residual`; `d.streams.branch` is that of its output.
    fn norm(&mut self, module: &Module, x: &B::Compute, stats: &RowStats<B::Full>) -> Done {
        let (c, span) = (self.dims.n_embd, self.span);
        let saved = NormSaved {
            x: span.part(x, c),
            weight: module.weight(self.weights),
            mean: span.part(&stats.mean, 1),
            rstd: span.part(&stats.rstd, 1),
        };
        let Streams { residual, branch } = &mut self.d.streams;
        let (dout, dx) = (span.part(branch, c), span.part_mut(residual, c));
        let into = module.gradients(self.gradients.buffer, self.gradients.write);
        let partials = &mut self.d.partials;
        self.backend.norm_gradients(dout, saved, dx, into, partials)
    }

    fn embeddings(&mut self, batch: &B::Batch) -> Done {
        let (c, span) = (self.dims.n_embd, self.span);
        let dx = span.part_mut(&mut self.d.streams.residual, c);
        let into = EmbeddingGradients {
            buffer: &mut *self.gradients.buffer,
            write_positions: self.gradients.write,
            wte: self.modules.wte.range(),
            wpe: self.modules.wpe.range(),
        };
        let shape = RowShape {
            columns: c,
            positions: span.positions.len(),
        };
        let mask = self.masks.map(|masks| masks.at(DropoutSite::Embedding));
        let partials = &mut self.d.partials;
        self.backend
            .embedding_gradients(batch, dx, into, shape, mask, partials)
    }
}
