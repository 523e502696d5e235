//! The operations on a GPU: operands become views, and kernels are launched.

use super::attention::AttentionSavedViews;
use super::embedding::{EmbeddingTableViews, Sorted};
use super::layer_norm::{AffineViews, NormSavedViews, NormStatsViews, ResidualViews};
use super::numbers::Numbers;
use super::views::{MaskWithHeader, Reading, Views};
use super::{
    OnGpu, attention, attention_cached, cross_entropy, dropout, embedding, layer_norm, outcome,
};
use crate::ops::backend::{Done, Frame, Matrix, Op, RowShape};
use crate::ops::launch::{GpuElement, gelu};

impl<T: GpuElement> OnGpu<T> {
    pub(super) fn compute(&self, op: &Op, frame: &Frame) -> Done {
        let (gpu, on) = (&self.gpu, Views::<T>::of(frame));
        match op {
            Op::ResetLoss => {
                let mut numbers = frame.numbers.write::<Numbers>();
                Ok(self.stream.memset_zeros(numbers.outcome())?)
            }
            Op::ZeroGradients { .. } => Ok(self.stream.memset_zeros(&mut *on.gradients())?),
            Op::Zero { x } => Ok(self.stream.memset_zeros(&mut on.write(x).view())?),
            Op::AddLosses { losses } => {
                let (losses, mut numbers) =
                    (on.read_full(losses), frame.numbers.write::<Numbers>());
                let outcome = &mut numbers.outcome().as_view_mut();
                let positions = frame.positions();
                Ok(outcome::add_losses(
                    gpu,
                    &losses.view(),
                    positions,
                    outcome,
                )?)
            }
            Op::Dropout { x, out, site } => {
                let (batch, shape) = (on.batch(), row_shape(x, frame));
                let Some(mask) = on.mask(*site, &batch) else {
                    unreachable!("a program with dropout runs backward with dropout");
                };
                let (x, mut out) = (on.read(x), on.write(out));
                let (x, out) = (&x.view(), &mut out.view());
                Ok(dropout::mask(gpu, x, out, shape, mask.view())?)
            }
            Op::Gelu { form, x, out } => {
                let (x, mut out) = (on.read(x), on.write(out));
                Ok(gelu::forward(gpu, *form, &x.view(), &mut out.view())?)
            }
            Op::CrossEntropy { logits, losses } => {
                let (logits, mut losses, batch) =
                    (on.read(logits), on.write_full(losses), on.batch());
                let (logits, losses) = (&logits.view(), &mut losses.view());
                let targets = &batch.targets(frame.rows.clone());
                Ok(cross_entropy::losses(gpu, logits, targets, losses)?)
            }
            Op::CrossEntropyGradients { logits, losses } => {
                let (mut logits, mut losses) = (on.write(logits), on.write_full(losses));
                let (logits, losses, batch) = (&mut logits.view(), &mut losses.view(), on.batch());
                let (targets, scale) = (&batch.targets(frame.rows.clone()), &batch.scale());
                Ok(cross_entropy::losses_and_gradients(
                    gpu, logits, targets, scale, losses,
                )?)
            }
            Op::Embed { .. } | Op::EmbedAt { .. } | Op::EmbeddingGradients { .. } => {
                self.embedding(op, &on)
            }
            Op::Norm { .. } | Op::ResidualNorm { .. } => self.norm(op, &on),
            Op::NormGradients { .. } => self.norm_gradients(op, &on),
            Op::Attention { .. } | Op::AttentionGradients { .. } => self.attention(op, &on),
            Op::CachedAttention { .. } | Op::CopyCache { .. } => self.cached_attention(op, &on),
            Op::Linear { .. }
            | Op::LinearGelu { .. }
            | Op::InputGradients { .. }
            | Op::GeluInputGradients { .. }
            | Op::WeightGradients { .. } => self.linear(op, &on),
        }
    }

    fn embedding(&self, op: &Op, on: &Views<T>) -> Done {
        let (gpu, frame, batch) = (&self.gpu, on.frame, on.batch());
        let tokens = &batch.inputs(frame.rows.len());
        match op {
            Op::Embed { tables, out, site } => {
                let (wte, wpe) = (on.weight(&tables.wte), on.weight(&tables.wpe));
                let tables = EmbeddingTableViews {
                    wte: &wte.view(),
                    wpe: &wpe.view(),
                };
                let (mut out, mask) = (on.write(out), on.mask(*site, &batch));
                let (out, mask) = (&mut out.view(), mask.as_ref().map(MaskWithHeader::view));
                let positions = frame.span.positions.clone();
                Ok(embedding::forward(
                    gpu, tokens, tables, out, positions, mask,
                )?)
            }
            Op::EmbedAt { tables, out, slots } => {
                let (wte, wpe) = (on.weight(&tables.wte), on.weight(&tables.wpe));
                let tables = EmbeddingTableViews {
                    wte: &wte.view(),
                    wpe: &wpe.view(),
                };
                let (mut out, places) = (on.write(out), &batch.targets(frame.rows.clone()));
                let (out, positions) = (&mut out.view(), slots.positions);
                Ok(embedding::forward_at(
                    gpu,
                    [tokens, places],
                    tables,
                    out,
                    positions,
                )?)
            }
            Op::EmbeddingGradients {
                tables,
                dx,
                site,
                partials,
            } => {
                let (shape, mut dx) = (row_shape(dx, frame), on.write(dx));
                let mut dx = dx.view();
                if let Some(mask) = on.mask(*site, &batch) {
                    dropout::mask_in_place(gpu, &mut dx, shape, mask.view())?;
                }
                let order = &batch.order(frame.rows.len());
                let (mut gradients, mut heads) = (on.gradients(), on.scratch(*partials));
                let (mut wte, mut rest) = gradients.split_at_mut(tables.wpe.start);
                let dwte = &mut wte.slice_mut(tables.wte.clone());
                let dwpe = &mut rest.slice_mut(0..tables.wpe.len());
                let (dx, sorted) = (&dx.as_view(), Sorted { tokens, order });
                let (positions, heads) = (shape.positions, &mut heads.as_view_mut());
                Ok(embedding::backward(
                    gpu, dx, sorted, dwte, dwpe, positions, heads,
                )?)
            }
            _ => unreachable!("not an embedding: {op:?}"),
        }
    }

    fn norm(&self, op: &Op, on: &Views<T>) -> Done {
        let (Op::Norm {
            norm, out, stats, ..
        }
        | Op::ResidualNorm {
            norm, out, stats, ..
        }) = op
        else {
            unreachable!("not a norm: {op:?}");
        };
        let (weight, bias) = (on.weight(&norm.weight), on.bias(norm));
        let (weight, bias) = (weight.view(), bias.as_ref().map(Reading::view));
        let affine = AffineViews {
            weight: &weight,
            bias: bias.as_ref(),
        };
        let (mut mean, mut rstd) = (on.write_full(&stats.mean), on.write_full(&stats.rstd));
        let stats = NormStatsViews {
            mean: &mut mean.view(),
            rstd: &mut rstd.view(),
        };
        let (gpu, mut out) = (&self.gpu, on.write(out));
        let out = &mut out.view();
        match op {
            Op::ResidualNorm {
                x,
                branch,
                sum,
                site,
                ..
            } => {
                let (x, branch, mut sum) = (on.read(x), on.read(branch), on.write(sum));
                let residual = ResidualViews {
                    x: &x.view(),
                    branch: &branch.view(),
                    after: &mut sum.view(),
                    positions: on.frame.positions(),
                };
                let batch = on.batch();
                let mask = on.mask(*site, &batch);
                let mask = mask.as_ref().map(MaskWithHeader::view);
                Ok(layer_norm::residual_forward(
                    gpu, residual, mask, affine, out, stats,
                )?)
            }
            Op::Norm { x, .. } => {
                let x = on.read(x);
                Ok(layer_norm::forward(gpu, &x.view(), affine, out, stats)?)
            }
            _ => unreachable!("not a norm: {op:?}"),
        }
    }

    fn norm_gradients(&self, op: &Op, on: &Views<T>) -> Done {
        let Op::NormGradients {
            norm,
            dout,
            x,
            stats,
            dx,
            partials,
        } = op
        else {
            unreachable!("not a norm's backward: {op:?}");
        };
        let (x, weight) = (on.read(x), on.weight(&norm.weight));
        let (mean, rstd) = (on.read_full(&stats.mean), on.read_full(&stats.rstd));
        let saved = NormSavedViews {
            x: &x.view(),
            weight: &weight.view(),
            mean: &mean.view(),
            rstd: &rstd.view(),
        };
        // A bias lies behind its weight.
        let mut gradients = on.gradients();
        let (mut weights, mut rest) = gradients.split_at_mut(norm.weight.end);
        let mut dbias = norm.bias.as_ref().map(|bias| rest.slice_mut(0..bias.len()));
        let dweight = &mut weights.slice_mut(norm.weight.clone());
        let (dout, mut dx, mut partials) = (on.read(dout), on.write(dx), on.scratch(*partials));
        let (dx, partials) = (&mut dx.view(), &mut partials.as_view_mut());
        Ok(layer_norm::backward(
            &self.gpu,
            &dout.view(),
            saved,
            dx,
            dweight,
            dbias.as_mut(),
            partials,
        )?)
    }

    fn attention(&self, op: &Op, on: &Views<T>) -> Done {
        let (gpu, frame, batch) = (&self.gpu, on.frame, on.batch());
        match op {
            Op::Attention {
                heads,
                qkv,
                out,
                lse,
                site,
                ..
            } => {
                let shape = frame.attention_shape(*heads, out);
                let first = frame.span.positions.start;
                let qkv = on.part(qkv.buffer, frame.seen(*qkv));
                let mut out = on.part_mut(out.buffer, frame.seen(*out));
                let mut lse = on.part_mut(lse.buffer, frame.seen(*lse));
                let (qkv, out, lse) = (&qkv.view(), &mut out.view(), &mut lse.view());
                let mask = on.mask(*site, &batch);
                let mask = mask.as_ref().map(MaskWithHeader::view);
                Ok(attention::forward::<T>(
                    gpu, shape, first, mask, qkv, out, lse,
                )?)
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
                let shape = frame.attention_shape(*heads, out);
                let (qkv, out, lse) = (on.read(qkv), on.read(out), on.read_full(lse));
                let saved = AttentionSavedViews {
                    qkv: &qkv.view(),
                    out: &out.view(),
                    lse: &lse.view(),
                };
                let (dout, mut dqkv, mut scratch) =
                    (on.read(dout), on.write(dqkv), on.scratch(*scratch));
                let (dout, dqkv) = (&dout.view(), &mut dqkv.view());
                let scratch = &mut scratch.slice_mut(0..attention::scratch_len(shape));
                let mask = on.mask(*site, &batch);
                let mask = mask.as_ref().map(MaskWithHeader::view);
                Ok(attention::backward(
                    gpu, shape, mask, dout, saved, dqkv, scratch,
                )?)
            }
            _ => unreachable!("not attention: {op:?}"),
        }
    }
}

impl<T: GpuElement> OnGpu<T> {
    fn cached_attention(&self, op: &Op, on: &Views<T>) -> Done {
        let (gpu, batch, rows) = (&self.gpu, on.batch(), on.frame.rows.clone());
        let (inputs, targets) = (&batch.inputs(rows.len()), &batch.targets(rows));
        match op {
            Op::CachedAttention {
                slots,
                qkv,
                cache,
                out,
                ..
            } => {
                let (qkv, mut out) = (on.read(qkv), on.write(out));
                let (qkv, out) = (&qkv.view(), &mut out.view());
                let mut cache = on.whole(*cache);
                attention_cached::store(gpu, *slots, qkv, targets, &mut cache.as_view_mut())?;
                let cache = &cache.as_view();
                Ok(attention_cached::forward(
                    gpu, *slots, qkv, targets, cache, out,
                )?)
            }
            Op::CopyCache { slots, cache } => {
                let mut cache = on.whole(*cache);
                let places = [inputs, targets];
                Ok(attention_cached::copy(
                    gpu,
                    *slots,
                    places,
                    &mut cache.as_view_mut(),
                )?)
            }
            _ => unreachable!("not attention over a cache: {op:?}"),
        }
    }
}

fn row_shape(matrix: &Matrix, frame: &Frame) -> RowShape {
    RowShape {
        columns: matrix.columns,
        positions: frame.positions(),
    }
}
