//! The forward pass.

use std::ops::Range;

use super::Gpt;
use super::activations::{Cheap, Kept, RowStats, Scratch, attention_shape, input_of, slot};
use super::params::{Module, Modules};
use crate::memory::Refused;
use crate::ops::backend::{
    Affine, AttentionOut, Backend, Buffers, Done, DropoutSite, EmbeddingTables, Mask, Masks,
    NormStats, Part, PartMut, Residual,
};
use crate::ops::cpu::{self, OnCpu};
use crate::ops::loops::Element;
use crate::terms::{ModelDims, Recompute};

/// The rows that a pass computes: all positions of some sequences, or the last of a single one.
#[derive(Clone)]
pub(super) struct Span {
    pub sequences: usize,
    pub positions: Range<usize>,
}

impl Span {
    /// All `positions` of every sequence.
    pub fn whole(sequences: usize, positions: usize) -> Self {
        Self {
            sequences,
            positions: 0..positions,
        }
    }

    /// Elements of a (rows, columns) buffer that belong to this span.
    pub fn of(&self, columns: usize) -> Range<usize> {
        debug_assert!(self.sequences == 1 || self.positions.start == 0);
        self.positions.start * columns..self.sequences * self.positions.end * columns
    }

    /// Elements of a (rows, columns) buffer from the first position to the end of this span: the part that
    /// attention reads.
    fn seen(&self, columns: usize) -> Range<usize> {
        0..self.of(columns).end
    }

    /// The elements [`Span::of`] of a buffer, to read.
    pub fn part<'a, C>(&self, buffer: &'a C, columns: usize) -> Part<'a, C> {
        Part::new(buffer, self.of(columns))
    }

    /// The elements [`Span::of`] of a buffer, to write.
    pub fn part_mut<'a, C>(&self, buffer: &'a mut C, columns: usize) -> PartMut<'a, C> {
        PartMut::new(buffer, self.of(columns))
    }
}

impl<B: Backend> Gpt<B> {
    /// Computes everything up to and including the final layer norm for the first `sequences` of the batch: all
    /// that [`Gpt::backward`] reads of them.
    ///
    /// # Errors
    /// The device's refusal.
    pub fn forward(
        &mut self,
        weights: &B::Compute,
        batch: &B::Batch,
        sequences: usize,
        masks: Option<Masks<B::Header>>,
    ) -> Done {
        let span = Span::whole(sequences, self.dims.block_size);
        self.hidden(weights, batch, &span, masks)
    }

    /// The loss of every row of the first `sequences` of the batch, (R) in nats, without dropout.
    ///
    /// # Errors
    /// The device's refusal.
    pub fn losses(
        &mut self,
        weights: &B::Compute,
        batch: &B::Batch,
        sequences: usize,
    ) -> Result<Part<'_, B::Full>, Refused> {
        self.forward(weights, batch, sequences, None)?;
        let span = Span::whole(sequences, self.dims.block_size);
        for rows in self.chunks(&span) {
            self.logits_of(weights, rows.clone())?;
            let logits = 0..rows.len() * self.dims.vocab_size;
            let logits = PartMut::new(&mut self.scratch.logits, logits);
            let losses = PartMut::new(&mut self.activations.losses, rows.clone());
            self.backend.cross_entropy(batch, rows, logits, losses)?;
        }
        Ok(span.part(&self.activations.losses, 1))
    }

    /// The rows of a span in chunks, each as long as the buffer of logits or shorter.
    pub(super) fn chunks(&self, span: &Span) -> impl Iterator<Item = Range<usize>> + use<B> {
        let (all, chunk) = (span.of(1), self.rung.logits_rows);
        let end = all.end;
        all.step_by(chunk)
            .map(move |start| start..(start + chunk).min(end))
    }

    /// The logits of `rows` of the final norm, at most a chunk of them, at the start of the scratch.
    pub(super) fn logits_of(&mut self, weights: &B::Compute, rows: Range<usize>) -> Done {
        let (c, v) = (self.dims.n_embd, self.dims.vocab_size);
        let head = Affine {
            weight: self.modules.wte.weight(weights),
            bias: None,
        };
        let logits = PartMut::new(&mut self.scratch.logits, 0..rows.len() * v);
        let x = Part::new(&self.activations.ln_f, rows.start * c..rows.end * c);
        self.backend.linear(head, x, logits, c)
    }

    /// The forward of `span`, from the embedding to the final norm.
    fn hidden(
        &mut self,
        weights: &B::Compute,
        batch: &B::Batch,
        span: &Span,
        masks: Option<Masks<B::Header>>,
    ) -> Done {
        let (acts, scratch) = (&mut self.activations, &mut self.scratch);
        let pass = ForwardPass {
            backend: &*self.backend,
            weights,
            dims: &self.dims,
            modules: &self.modules,
            span,
            masks,
        };
        pass.embed(batch, &mut acts.embedding)?;
        let (out, stats) = (&mut acts.cheap[0].ln_1, &mut acts.ln_1_stats[0]);
        pass.norm(&self.modules.blocks[0].ln_1, &acts.embedding, out, stats)?;
        for index in 0..self.dims.n_layer {
            let (kept_at, cheap_at) = (slot(&acts.kept, index), slot(&acts.cheap, index));
            let (kept, cheap) = (&mut acts.kept[kept_at], &mut acts.cheap[cheap_at]);
            let x = input_of(&acts.embedding, &acts.outs, index);
            pass.inner(index, x, kept, cheap, scratch)?;
            pass.project_mlp(index, cheap, scratch)?;
            let next = match self.modules.blocks.get(index + 1) {
                Some(next) => {
                    let (stats_at, out_at) = (
                        slot(&acts.ln_1_stats, index + 1),
                        slot(&acts.cheap, index + 1),
                    );
                    NormInto {
                        module: &next.ln_1,
                        out: &mut acts.cheap[out_at].ln_1,
                        stats: &mut acts.ln_1_stats[stats_at],
                    }
                }
                None => NormInto {
                    module: &self.modules.ln_f,
                    out: &mut acts.ln_f,
                    stats: &mut acts.ln_f_stats,
                },
            };
            pass.join(
                DropoutSite::MlpOutput { layer: index },
                &acts.kept[kept_at].after_attention,
                &scratch.branch,
                &mut acts.outs[index],
                next,
            )?;
        }
        Ok(())
    }
}

impl<T: Element> Gpt<OnCpu<T>> {
    /// The logits (V) that follow `tokens`, at most a block of them. The first `known` tokens must
    /// be those of the call before: their keys and values are still in the buffers, unless all
    /// blocks share theirs.
    pub fn next_logits(&mut self, weights: &Vec<T>, tokens: &[u32], known: usize) -> &[T] {
        let known = match self.rung.recompute {
            Recompute::Block => 0,
            Recompute::None | Recompute::GeluLn => known,
        };
        let span = Span {
            sequences: 1,
            positions: known..tokens.len(),
        };
        let last = tokens.len() - 1..tokens.len();
        let batch = cpu::Batch::of(&tokens[known..]);
        done(self.hidden(weights, &batch, &span, None));
        done(self.logits_of(weights, last));
        &self.scratch.logits[..self.dims.vocab_size]
    }

    /// The logits (R, V) of whole sequences, for inspection: the only place where they all exist.
    pub fn logits(&mut self, weights: &Vec<T>, inputs: &[u32], sequences: usize) -> Vec<T> {
        let span = Span::whole(sequences, inputs.len() / sequences);
        done(self.hidden(weights, &cpu::Batch::of(inputs), &span, None));
        let mut all = Vec::new();
        for rows in self.chunks(&span) {
            let len = rows.len() * self.dims.vocab_size;
            done(self.logits_of(weights, rows));
            all.extend_from_slice(&self.scratch.logits[..len]);
        }
        all
    }
}

/// Unwraps the result of an operation on the CPU, which refuses none.
fn done(done: Done) {
    if let Err(refused) = done {
        unreachable!("the CPU did not compute: {refused:?}");
    }
}

/// Everything that the operations of one forward pass share.
pub(super) struct ForwardPass<'a, B: Backend> {
    pub backend: &'a B,
    pub weights: &'a B::Compute,
    pub dims: &'a ModelDims,
    pub modules: &'a Modules,
    pub span: &'a Span,
    pub masks: Option<Masks<'a, B::Header>>,
}

pub(super) type KeptOf<B> = Kept<<B as Buffers>::Compute, <B as Buffers>::Full>;
pub(super) type ScratchOf<B> = Scratch<<B as Buffers>::Compute, <B as Buffers>::Full>;

/// A norm, and the buffers of its output and its statistics.
struct NormInto<'a, B: Backend> {
    module: &'a Module,
    out: &'a mut B::Compute, // (R, C)
    stats: &'a mut RowStats<B::Full>,
}

impl<B: Backend> ForwardPass<'_, B> {
    fn embed(&self, batch: &B::Batch, out: &mut B::Compute) -> Done {
        let tables = EmbeddingTables {
            wte: self.modules.wte.weight(self.weights),
            wpe: self.modules.wpe.weight(self.weights),
            positions: self.span.positions.clone(),
            columns: self.dims.n_embd,
        };
        let out = self.span.part_mut(out, self.dims.n_embd);
        self.backend
            .embed(batch, tables, out, self.mask(DropoutSite::Embedding))
    }

    /// Computes block `index` from its first norm, in `cheap`, up to the activation of its MLP: all that
    /// the backward reads. `x` (R, C) is the residual stream that enters the block.
    pub fn inner(
        &self,
        index: usize,
        x: &B::Compute,
        kept: &mut KeptOf<B>,
        cheap: &mut Cheap<B::Compute>,
        scratch: &mut ScratchOf<B>,
    ) -> Done {
        let (c, span, modules) = (self.dims.n_embd, self.span, &self.modules.blocks[index]);
        let qkv = span.part_mut(&mut kept.qkv, 3 * c);
        self.project(&modules.c_attn, span.part(&cheap.ln_1, c), qkv, c)?;
        let shape = attention_shape(self.dims, span.sequences, span.positions.end);
        self.backend.attention(
            shape,
            span.positions.clone(),
            Part::new(&kept.qkv, span.seen(3 * c)),
            AttentionOut {
                out: PartMut::new(&mut kept.attention, span.seen(c)),
                lse: PartMut::new(&mut kept.lse, span.seen(self.dims.n_head)),
            },
            self.weight_mask(index),
            &mut scratch.attention,
        )?;
        let branch = span.part_mut(&mut scratch.branch, c);
        self.project(&modules.attn_proj, span.part(&kept.attention, c), branch, c)?;
        let next = NormInto {
            module: &modules.ln_2,
            out: &mut cheap.ln_2,
            stats: &mut kept.ln_2,
        };
        let site = DropoutSite::AttentionOutput { layer: index };
        let sum = &mut kept.after_attention;
        self.join(site, x, &scratch.branch, sum, next)?;
        self.backend.linear_gelu(
            self.dims.gelu,
            modules.c_fc.affine(self.weights),
            span.part(&cheap.ln_2, c),
            span.part_mut(&mut kept.fc, 4 * c),
            span.part_mut(&mut cheap.gelu, 4 * c),
            c,
        )
    }

    /// Projects the MLP of block `index` into the branch.
    fn project_mlp(
        &self,
        index: usize,
        cheap: &Cheap<B::Compute>,
        scratch: &mut ScratchOf<B>,
    ) -> Done {
        let c = self.dims.n_embd;
        let activated = self.span.part(&cheap.gelu, 4 * c);
        let branch = self.span.part_mut(&mut scratch.branch, c);
        let module = &self.modules.blocks[index].mlp_proj;
        self.project(module, activated, branch, 4 * c)
    }

    /// Recomputes `cheap` of block `index` from `kept` and the `x` (R, C) that entered the block.
    pub fn cheap(
        &self,
        index: usize,
        x: &B::Compute,
        stats: &mut RowStats<B::Full>,
        kept: &mut KeptOf<B>,
        cheap: &mut Cheap<B::Compute>,
    ) -> Done {
        let (wide, modules) = (4 * self.dims.n_embd, &self.modules.blocks[index]);
        self.norm(&modules.ln_1, x, &mut cheap.ln_1, stats)?;
        let (middle, stats) = (&kept.after_attention, &mut kept.ln_2);
        self.norm(&modules.ln_2, middle, &mut cheap.ln_2, stats)?;
        let (x, out) = (
            self.span.part(&kept.fc, wide),
            self.span.part_mut(&mut cheap.gelu, wide),
        );
        self.backend.gelu(self.dims.gelu, x, out)
    }

    pub fn norm(
        &self,
        module: &Module,
        x: &B::Compute,
        out: &mut B::Compute,
        stats: &mut RowStats<B::Full>,
    ) -> Done {
        let (c, norm) = (self.dims.n_embd, module.affine(self.weights));
        let (x, out) = (self.span.part(x, c), self.span.part_mut(out, c));
        self.backend.norm(norm, x, out, self.stats(stats))
    }

    /// Adds the branch, with the dropout of `site`, to the residual stream `x`, and normalises the sum.
    fn join(
        &self,
        site: DropoutSite,
        x: &B::Compute,
        branch: &B::Compute,
        sum: &mut B::Compute,
        next: NormInto<B>,
    ) -> Done {
        let (c, span) = (self.dims.n_embd, self.span);
        let residual = Residual {
            x: span.part(x, c),
            branch: span.part(branch, c),
            out: span.part_mut(sum, c),
            positions: span.positions.len(),
        };
        let norm = next.module.affine(self.weights);
        let (out, stats) = (span.part_mut(next.out, c), self.stats(next.stats));
        self.backend
            .residual_norm(residual, self.mask(site), norm, out, stats)
    }

    fn stats<'a>(&self, stats: &'a mut RowStats<B::Full>) -> NormStats<'a, B::Full> {
        NormStats {
            mean: self.span.part_mut(&mut stats.mean, 1),
            rstd: self.span.part_mut(&mut stats.rstd, 1),
        }
    }

    fn project(
        &self,
        module: &Module,
        x: Part<B::Compute>,
        y: PartMut<B::Compute>,
        columns: usize,
    ) -> Done {
        let layer = module.affine(self.weights);
        self.backend.linear(layer, x, y, columns)
    }

    fn mask(&self, site: DropoutSite) -> Option<Mask<'_, B::Header>> {
        self.masks.map(|masks| masks.at(site))
    }

    fn weight_mask(&self, layer: usize) -> Option<Mask<'_, B::Header>> {
        self.mask(DropoutSite::Attention { layer, head: 0 })
    }
}
