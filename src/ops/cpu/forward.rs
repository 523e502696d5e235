//! The operations of the forward on the CPU: operands become slices, and the functions of this room compute.

use std::ops::Range;

use super::dropout::SiteDropout;
use super::{
    Batch, OnCpu, attention, cross_entropy, dropout, embedding, layer_norm, linear, weight_dropout,
};
use crate::ops::backend::{
    Affine, AttentionOut, BatchHeader, Done, EmbeddingTables, Forward, Mask, NormStats, Part,
    PartMut, Residual, Shape,
};
use crate::ops::loops::{Element, gelu};
use crate::terms::Gelu;

impl<T: Element> Forward for OnCpu<T> {
    fn embed(
        &self,
        batch: &Batch,
        tables: EmbeddingTables<Vec<T>>,
        out: PartMut<Vec<T>>,
        mask: Option<Mask<BatchHeader>>,
    ) -> Done {
        let (out, tokens) = (out.slice(), &batch.tokens.inputs);
        let (positions, columns) = (tables.positions, tables.columns);
        let (wte, wpe) = (tables.wte.slice(), tables.wpe.slice());
        embedding::forward(tokens, wte, wpe, out, positions.clone(), columns);
        if let Some(Mask { masks, site }) = mask {
            dropout::mask_in_place(out, columns, positions.len(), masks.dropout(), site);
        }
        Ok(())
    }

    fn norm(
        &self,
        norm: Affine<Vec<T>>,
        x: Part<Vec<T>>,
        out: PartMut<Vec<T>>,
        stats: NormStats<Vec<T>>,
    ) -> Done {
        let (weight, bias) = (norm.weight.slice(), norm.bias.map(Part::slice));
        layer_norm::forward(x.slice(), weight, bias, out.slice(), stats.slices());
        Ok(())
    }

    fn residual_norm(
        &self,
        residual: Residual<Vec<T>>,
        mask: Option<Mask<BatchHeader>>,
        norm: Affine<Vec<T>>,
        out: PartMut<Vec<T>>,
        stats: NormStats<Vec<T>>,
    ) -> Done {
        let (weight, bias) = (norm.weight.slice(), norm.bias.map(Part::slice));
        let (x, branch) = (residual.x.slice(), residual.branch.slice());
        let after = residual.out.slice();
        let dropout = mask.map(|Mask { masks, site }| SiteDropout {
            dropout: masks.dropout(),
            site,
        });
        let (columns, positions) = (weight.len(), residual.positions);
        dropout::residual_forward(x, branch, after, columns, positions, dropout);
        layer_norm::forward(after, weight, bias, out.slice(), stats.slices());
        Ok(())
    }

    fn linear(
        &self,
        layer: Affine<Vec<T>>,
        x: Part<Vec<T>>,
        y: PartMut<Vec<T>>,
        columns: usize,
    ) -> Done {
        let (weight, bias) = (layer.weight.slice(), layer.bias.map(Part::slice));
        linear::forward(&self.products, x.slice(), weight, bias, y.slice(), columns);
        Ok(())
    }

    fn linear_gelu(
        &self,
        form: Gelu,
        layer: Affine<Vec<T>>,
        x: Part<Vec<T>>,
        y: PartMut<Vec<T>>,
        activated: PartMut<Vec<T>>,
        columns: usize,
    ) -> Done {
        let (weight, bias) = (layer.weight.slice(), layer.bias.map(Part::slice));
        let written = linear::GeluOutputs {
            y: y.slice(),
            activated: activated.slice(),
        };
        let products = &self.products;
        linear::forward_gelu(products, form, x.slice(), weight, bias, written, columns);
        Ok(())
    }

    fn gelu(&self, form: Gelu, x: Part<Vec<T>>, out: PartMut<Vec<T>>) -> Done {
        gelu::forward(form, x.slice(), out.slice());
        Ok(())
    }

    fn attention(
        &self,
        shape: Shape,
        queries: Range<usize>,
        qkv: Part<Vec<T>>,
        into: AttentionOut<Vec<T>, Vec<T>>,
        mask: Option<Mask<BatchHeader>>,
        scratch: &mut Vec<T>,
    ) -> Done {
        let (out, lse) = (into.out.slice(), into.lse.slice());
        let dropout = mask.map(weight_dropout);
        let work = self.attention_work(scratch);
        attention::forward(qkv.slice(), out, lse, shape, queries, dropout, work);
        Ok(())
    }

    fn cross_entropy(
        &self,
        batch: &Batch,
        rows: Range<usize>,
        logits: PartMut<Vec<T>>,
        losses: PartMut<Vec<T>>,
    ) -> Done {
        let targets = &batch.tokens.targets[rows];
        cross_entropy::losses(logits.slice(), targets, losses.slice());
        Ok(())
    }
}
