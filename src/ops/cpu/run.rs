//! The operations on the CPU: operands become slices, and the functions of this room compute.

use std::cell::{Ref, RefMut};
use std::ops::Range;

use super::attention::{AttentionSavedSlices, AttentionWorkspace, WeightDropout};
use super::dropout::{Dropout, SiteDropout};
use super::layer_norm::{NormSavedSlices, NormStatsSlices};
use super::linear::GeluOutputs;
use super::{
    Batch, Numbers, OnCpu, attention, cross_entropy, dropout, embedding, layer_norm, linear,
};
use crate::ops::backend::{Affine, BufferId, DropoutSite, Frame, Matrix, Op, RowStats};
use crate::ops::loops::{Element, gelu, parallel};

/// The operands of a frame as slices of `T`.
struct Slices<'f, 'a, T> {
    frame: &'f Frame<'a>,
    element: std::marker::PhantomData<T>,
}

impl<'a, T: Element> Slices<'_, 'a, T> {
    fn part(&self, buffer: BufferId, range: Range<usize>) -> Ref<'a, [T]> {
        let buffer = self.frame.buffer(buffer).read::<Vec<T>>();
        Ref::map(buffer, |buffer| &buffer[range])
    }

    fn part_mut(&self, buffer: BufferId, range: Range<usize>) -> RefMut<'a, [T]> {
        let buffer = self.frame.buffer(buffer).write::<Vec<T>>();
        RefMut::map(buffer, |buffer| &mut buffer[range])
    }

    fn read(&self, matrix: &Matrix) -> Ref<'a, [T]> {
        self.part(matrix.buffer, self.frame.range(*matrix))
    }

    fn write(&self, matrix: &Matrix) -> RefMut<'a, [T]> {
        self.part_mut(matrix.buffer, self.frame.range(*matrix))
    }

    fn scratch(&self, buffer: BufferId) -> RefMut<'a, [T]> {
        RefMut::map(
            self.frame.buffer(buffer).write::<Vec<T>>(),
            Vec::as_mut_slice,
        )
    }

    fn weight(&self, range: &Range<usize>) -> Ref<'a, [T]> {
        Ref::map(self.frame.weights().read::<Vec<T>>(), |weights| {
            &weights[range.clone()]
        })
    }

    fn bias(&self, affine: &Affine) -> Option<Ref<'a, [T]>> {
        affine.bias.as_ref().map(|bias| self.weight(bias))
    }

    fn gradients(&self) -> RefMut<'a, Vec<T>> {
        self.frame.gradients().write()
    }

    fn batch(&self) -> Ref<'a, Batch> {
        self.frame.batch.read()
    }

    fn dropout(&self, site: DropoutSite) -> Option<SiteDropout> {
        let mask = self.frame.mask(site)?;
        let header = self.batch().header;
        Some(SiteDropout {
            dropout: Dropout {
                p: mask.settings.p,
                seed: mask.settings.seed,
                step: header.step,
                first_sample: header.first_sample,
            },
            site,
        })
    }

    fn weight_dropout(&self, site: DropoutSite) -> Option<WeightDropout> {
        let SiteDropout { dropout, site } = self.dropout(site)?;
        match site {
            DropoutSite::Attention { layer, .. } => Some(WeightDropout { dropout, layer }),
            _ => unreachable!("attention's weights have a site of their own"),
        }
    }
}

/// The parts of an affine's gradients; a bias lies behind its weight.
fn affine_parts<'g, T>(
    gradients: &'g mut [T],
    affine: &Affine,
) -> (&'g mut [T], Option<&'g mut [T]>) {
    let (weights, rest) = gradients[affine.weight.start..].split_at_mut(affine.weight.len());
    let bias = affine.bias.as_ref().map(|bias| &mut rest[..bias.len()]);
    (weights, bias)
}

impl<T: Element> OnCpu<T> {
    pub(super) fn compute(&self, op: &Op, frame: &Frame) {
        let on = Slices::<T> {
            frame,
            element: std::marker::PhantomData,
        };
        let positions = frame.positions();
        match op {
            Op::ResetLoss => frame.numbers.write::<Numbers>().loss = 0.0,
            Op::ZeroGradients { .. } => parallel::zero(&mut on.gradients()),
            Op::Zero { x } => parallel::zero(&mut on.write(x)),
            Op::AddLosses { losses } => {
                let mut numbers = frame.numbers.write::<Numbers>();
                for sample in on.read(losses).chunks_exact(positions) {
                    numbers.loss += sample.iter().map(|loss| loss.widen()).sum::<f64>();
                }
            }
            Op::Embed { tables, out, site } => {
                let (wte, wpe) = (on.weight(&tables.wte), on.weight(&tables.wpe));
                let (columns, at) = (out.columns, frame.span.positions.clone());
                let out = &mut on.write(out);
                embedding::forward(&on.batch().inputs, &wte, &wpe, out, at, columns);
                if let Some(SiteDropout { dropout, site }) = on.dropout(*site) {
                    dropout::mask_in_place(out, columns, positions, dropout, site);
                }
            }
            Op::EmbedAt { tables, out, slots } => {
                let (wte, wpe) = (on.weight(&tables.wte), on.weight(&tables.wpe));
                let (batch, columns, out) = (on.batch(), out.columns, &mut on.write(out));
                let (tokens, places) = (&batch.inputs, &batch.targets);
                embedding::forward_at(tokens, places, &wte, &wpe, out, slots.positions, columns);
            }
            Op::EmbeddingGradients {
                tables, dx, site, ..
            } => {
                let (columns, dx) = (dx.columns, &mut on.write(dx));
                if let Some(SiteDropout { dropout, site }) = on.dropout(*site) {
                    dropout::mask_in_place(dx, columns, positions, dropout, site);
                }
                let mut gradients = on.gradients();
                let (dwte, dwpe) = gradients.split_at_mut(tables.wpe.start);
                let (dwte, dwpe) = (&mut dwte[tables.wte.clone()], &mut dwpe[..tables.wpe.len()]);
                let (tokens, write) = (&on.batch().inputs, frame.write);
                embedding::backward(tokens, dx, dwte, dwpe, write, positions, columns);
            }
            Op::Dropout { x, out, site } => {
                let Some(SiteDropout { dropout, site }) = on.dropout(*site) else {
                    unreachable!("a program with dropout runs backward with dropout");
                };
                let (columns, out) = (x.columns, &mut on.write(out));
                out.copy_from_slice(&on.read(x));
                dropout::mask_in_place(out, columns, positions, dropout, site);
            }
            Op::Gelu { form, x, out } => gelu::forward(*form, &on.read(x), &mut on.write(out)),
            Op::CrossEntropy { logits, losses } => {
                let targets = &on.batch().targets[frame.rows.clone()];
                cross_entropy::losses(&mut on.write(logits), targets, &mut on.write(losses));
            }
            Op::CrossEntropyGradients { logits, losses } => {
                let (batch, losses) = (on.batch(), &mut on.write(losses));
                let (targets, scale) = (&batch.targets[frame.rows.clone()], batch.header.scale);
                let logits = &mut on.write(logits);
                cross_entropy::losses_and_gradients(logits, targets, T::of(scale), losses);
            }
            Op::Norm { .. } | Op::ResidualNorm { .. } | Op::NormGradients { .. } => on.norm(op),
            Op::Attention { .. } | Op::AttentionGradients { .. } => self.attention(op, &on),
            Op::CachedAttention { .. } | Op::CopyCache { .. } => on.cached_attention(op),
            Op::Linear { .. }
            | Op::LinearGelu { .. }
            | Op::InputGradients { .. }
            | Op::GeluInputGradients { .. }
            | Op::WeightGradients { .. } => self.linear(op, &on),
        }
    }

    fn linear(&self, op: &Op, on: &Slices<T>) {
        let products = &self.products;
        match op {
            Op::Linear { layer, x, y } if on.frame.rows_alone => {
                let (weight, bias, columns) = (on.weight(&layer.weight), on.bias(layer), x.columns);
                let (x, y) = (on.read(x), &mut on.write(y));
                linear::forward_rows(&x, &weight, bias.as_deref(), y, columns);
            }
            Op::LinearGelu {
                form,
                layer,
                x,
                y,
                activated,
            } if on.frame.rows_alone => {
                let (weight, bias, columns) = (on.weight(&layer.weight), on.bias(layer), x.columns);
                let (x, mut y) = (on.read(x), on.write(y));
                linear::forward_rows(&x, &weight, bias.as_deref(), &mut y, columns);
                gelu::forward(*form, &y, &mut on.write(activated));
            }
            Op::Linear { layer, x, y } => {
                let (weight, bias) = (on.weight(&layer.weight), on.bias(layer));
                let (columns, x, y) = (x.columns, on.read(x), &mut on.write(y));
                linear::forward(products, &x, &weight, bias.as_deref(), y, columns);
            }
            Op::LinearGelu {
                form,
                layer,
                x,
                y,
                activated,
            } => {
                let (weight, bias) = (on.weight(&layer.weight), on.bias(layer));
                let written = GeluOutputs {
                    y: &mut on.write(y),
                    activated: &mut on.write(activated),
                };
                let (columns, x, bias) = (x.columns, &on.read(x), bias.as_deref());
                linear::forward_gelu(products, *form, x, &weight, bias, written, columns);
            }
            Op::InputGradients { layer, dy, dx } => {
                let (weight, columns) = (on.weight(&layer.weight), dx.columns);
                let (dy, dx) = (on.read(dy), &mut on.write(dx));
                linear::backward_input(products, &dy, &weight, dx, columns);
            }
            Op::GeluInputGradients {
                form,
                layer,
                dy,
                x,
                dx,
            } => {
                let (weight, columns) = (on.weight(&layer.weight), dx.columns);
                let (dy, x, dx) = (&on.read(dy), &on.read(x), &mut on.write(dx));
                linear::backward_gelu_input(products, *form, dy, &weight, x, dx, columns);
            }
            Op::WeightGradients { layer, dy, x, .. } => {
                let mut gradients = on.gradients();
                let (dweight, dbias) = affine_parts(&mut gradients, layer);
                let (columns, write) = (x.columns, on.frame.write);
                let (dy, x) = (on.read(dy), on.read(x));
                linear::backward_weight(products, &dy, &x, dweight, dbias, write, columns);
            }
            _ => unreachable!("not a linear layer: {op:?}"),
        }
    }

    fn attention(&self, op: &Op, on: &Slices<T>) {
        let seen = |matrix: &Matrix| (matrix.buffer, on.frame.seen(*matrix));
        let read = |matrix| {
            let (buffer, range) = seen(matrix);
            on.part(buffer, range)
        };
        let write = |matrix| {
            let (buffer, range) = seen(matrix);
            on.part_mut(buffer, range)
        };
        match op {
            Op::Attention {
                heads,
                qkv,
                out,
                lse,
                scratch,
                site,
            } => {
                let shape = on.frame.attention_shape(*heads, out);
                let queries = on.frame.span.positions.clone();
                let work = AttentionWorkspace {
                    scratch: &mut on.scratch(*scratch),
                    products: self.products.sequential(),
                };
                let (out, lse, dropout) =
                    (&mut write(out), &mut write(lse), on.weight_dropout(*site));
                attention::forward(&read(qkv), out, lse, shape, queries, dropout, work);
            }
            Op::AttentionGradients {
                heads,
                dout,
                qkv,
                out,
                lse,
                dqkv,
                scratch,
                site,
            } => {
                let shape = on.frame.attention_shape(*heads, out);
                let saved = AttentionSavedSlices {
                    qkv: &read(qkv),
                    out: &read(out),
                    lse: &read(lse),
                };
                let work = AttentionWorkspace {
                    scratch: &mut on.scratch(*scratch),
                    products: self.products.sequential(),
                };
                let (dqkv, dropout) = (&mut on.write(dqkv), on.weight_dropout(*site));
                attention::backward(&on.read(dout), saved, dqkv, shape, dropout, work);
            }
            _ => unreachable!("not attention: {op:?}"),
        }
    }
}

impl<T: Element> Slices<'_, '_, T> {
    fn cached_attention(&self, op: &Op) {
        let batch = self.batch();
        let rows = self.frame.rows.len();
        let (inputs, targets) = (&batch.inputs[..rows], &batch.targets[..rows]);
        match op {
            Op::CachedAttention {
                slots,
                qkv,
                cache,
                out,
                scratch,
            } => {
                let (qkv, out) = (self.read(qkv), &mut self.write(out));
                let (mut cache, scratch) = (self.scratch(*cache), &mut self.scratch(*scratch));
                attention::cached::store(&qkv, targets, &mut cache, *slots);
                attention::cached::forward(&qkv, targets, &cache, out, *slots, scratch);
            }
            Op::CopyCache { slots, cache } => {
                attention::cached::copy(&mut self.scratch(*cache), inputs, targets, *slots);
            }
            _ => unreachable!("not attention over a cache: {op:?}"),
        }
    }

    fn norm(&self, op: &Op) {
        match op {
            Op::Norm {
                norm,
                x,
                out,
                stats,
            } => {
                let x = self.read(x);
                self.normalise(norm, &x, out, stats);
            }
            Op::ResidualNorm {
                x,
                branch,
                sum,
                site,
                norm,
                out,
                stats,
            } => {
                let (columns, positions) = (x.columns, self.frame.positions());
                let (x, branch, sum) = (self.read(x), self.read(branch), &mut self.write(sum));
                let dropout = self.dropout(*site);
                dropout::residual_forward(&x, &branch, sum, columns, positions, dropout);
                self.normalise(norm, sum, out, stats);
            }
            Op::NormGradients {
                norm,
                dout,
                x,
                stats,
                dx,
                partials,
            } => {
                let saved = NormSavedSlices {
                    x: &self.read(x),
                    weight: &self.weight(&norm.weight),
                    mean: &self.read(&stats.mean),
                    rstd: &self.read(&stats.rstd),
                };
                let mut gradients = self.gradients();
                let (dweight, dbias) = affine_parts(&mut gradients, norm);
                let (dout, dx, write) = (self.read(dout), &mut self.write(dx), self.frame.write);
                let partials = &mut self.scratch(*partials);
                layer_norm::backward(&dout, saved, dx, dweight, dbias, write, partials);
            }
            _ => unreachable!("not a norm: {op:?}"),
        }
    }

    fn normalise(&self, norm: &Affine, x: &[T], out: &Matrix, stats: &RowStats) {
        let (weight, bias) = (self.weight(&norm.weight), self.bias(norm));
        let stats = NormStatsSlices {
            mean: &mut self.write(&stats.mean),
            rstd: &mut self.write(&stats.rstd),
        };
        layer_norm::forward(x, &weight, bias.as_deref(), &mut self.write(out), stats);
    }
}
