//! The operations of the backward on the CPU: operands become slices, and the functions of this room compute.

use std::ops::Range;

use super::{
    Batch, OnCpu, attention, cross_entropy, dropout, embedding, layer_norm, linear, weight_dropout,
};
use crate::memory::Refused;
use crate::ops::backend::{
    AttentionSaved, Backward, BatchHeader, Done, EmbeddingGradients, GradientWrite, Gradients,
    Mask, NormSaved, Part, PartMut, RowShape, Shape,
};
use crate::ops::loops::Element;
use crate::terms::Gelu;

impl<T: Element> Backward for OnCpu<T> {
    fn begin(&self, _gradients: &mut Vec<T>) -> Result<GradientWrite, Refused> {
        Ok(GradientWrite::Overwrite)
    }

    fn cross_entropy_gradients(
        &self,
        batch: &Batch,
        rows: Range<usize>,
        logits: PartMut<Vec<T>>,
        losses: PartMut<Vec<T>>,
    ) -> Done {
        let targets = &batch.tokens.targets[rows];
        let scale = T::of(batch.header.scale);
        cross_entropy::losses_and_gradients(logits.slice(), targets, scale, losses.slice());
        Ok(())
    }

    fn input_gradients(
        &self,
        weight: Part<Vec<T>>,
        dy: Part<Vec<T>>,
        dx: PartMut<Vec<T>>,
        columns: usize,
    ) -> Done {
        let (dy, weight) = (dy.slice(), weight.slice());
        linear::backward_input(&self.products, dy, weight, dx.slice(), columns);
        Ok(())
    }

    fn gelu_input_gradients(
        &self,
        form: Gelu,
        weight: Part<Vec<T>>,
        dy: Part<Vec<T>>,
        x: Part<Vec<T>>,
        dx: PartMut<Vec<T>>,
        columns: usize,
    ) -> Done {
        let (products, dy, weight) = (&self.products, dy.slice(), weight.slice());
        linear::backward_gelu_input(products, form, dy, weight, x.slice(), dx.slice(), columns);
        Ok(())
    }

    fn weight_gradients(
        &self,
        dy: Part<Vec<T>>,
        x: Part<Vec<T>>,
        into: Gradients<Vec<T>>,
        columns: usize,
        _partials: &mut Vec<T>,
    ) -> Done {
        let (write, (dweight, dbias)) = (into.write, into.slices());
        let (products, dy, x) = (&self.products, dy.slice(), x.slice());
        linear::backward_weight(products, dy, x, dweight, dbias, write, columns);
        Ok(())
    }

    fn attention_gradients(
        &self,
        shape: Shape,
        dout: Part<Vec<T>>,
        saved: AttentionSaved<Vec<T>, Vec<T>>,
        dqkv: PartMut<Vec<T>>,
        mask: Option<Mask<BatchHeader>>,
        scratch: &mut Vec<T>,
    ) -> Done {
        let saved = attention::AttentionSavedSlices {
            qkv: saved.qkv.slice(),
            out: saved.out.slice(),
            lse: saved.lse.slice(),
        };
        let dropout = mask.map(weight_dropout);
        let work = self.attention_work(scratch);
        attention::backward(dout.slice(), saved, dqkv.slice(), shape, dropout, work);
        Ok(())
    }

    fn norm_gradients(
        &self,
        dout: Part<Vec<T>>,
        saved: NormSaved<Vec<T>, Vec<T>>,
        dx: PartMut<Vec<T>>,
        into: Gradients<Vec<T>>,
        partials: &mut Vec<T>,
    ) -> Done {
        let saved = layer_norm::NormSavedSlices {
            x: saved.x.slice(),
            weight: saved.weight.slice(),
            mean: saved.mean.slice(),
            rstd: saved.rstd.slice(),
        };
        let (write, (dweight, dbias)) = (into.write, into.slices());
        layer_norm::backward(
            dout.slice(),
            saved,
            dx.slice(),
            dweight,
            dbias,
            write,
            partials,
        );
        Ok(())
    }

    fn drop(
        &self,
        x: Part<Vec<T>>,
        out: PartMut<Vec<T>>,
        shape: RowShape,
        Mask { masks, site }: Mask<BatchHeader>,
    ) -> Done {
        let RowShape { columns, positions } = shape;
        let out = out.slice();
        out.copy_from_slice(x.slice());
        dropout::mask_in_place(out, columns, positions, masks.dropout(), site);
        Ok(())
    }

    fn embedding_gradients(
        &self,
        batch: &Batch,
        dx: PartMut<Vec<T>>,
        into: EmbeddingGradients<Vec<T>>,
        shape: RowShape,
        mask: Option<Mask<BatchHeader>>,
        _partials: &mut Vec<T>,
    ) -> Done {
        let RowShape { columns, positions } = shape;
        let dx = dx.slice();
        if let Some(Mask { masks, site }) = mask {
            dropout::mask_in_place(dx, columns, positions, masks.dropout(), site);
        }
        let (dwte, dwpe) = into.buffer.split_at_mut(into.wpe.start);
        let (dwte, dwpe) = (&mut dwte[into.wte], &mut dwpe[..into.wpe.len()]);
        let (tokens, write) = (&batch.tokens.inputs, into.write_positions);
        embedding::backward(tokens, dx, dwte, dwpe, write, positions, columns);
        Ok(())
    }
}
