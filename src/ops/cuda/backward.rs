//! The operations of the backward on a GPU: operands become views, and kernels are launched.

use std::ops::Range;

use super::OnGpu;
use super::batch::Batch;
use super::views::MaskWithHeader;
use super::{attention, column_sums, cross_entropy, dropout, embedding, layer_norm};
use crate::memory::Refused;
use crate::ops::backend::{
    AttentionSaved, Backward, Done, EmbeddingGradients, GradientWrite, Gradients, Mask, NormSaved,
    Part, PartMut, RowShape, Shape,
};
use crate::ops::gemm::ptx::DeviceOperands;
use crate::ops::gemm::{Epilogue, Problem};
use crate::ops::launch::GpuElement;
use crate::terms::Gelu;
use cudarc::driver::CudaSlice;

impl<T: GpuElement> Backward for OnGpu<T> {
    /// One recording serves all micro-steps, so the first adds to zeros.
    fn begin(&self, gradients: &mut CudaSlice<f32>) -> Result<GradientWrite, Refused> {
        self.stream.memset_zeros(gradients)?;
        Ok(GradientWrite::Accumulate)
    }

    fn cross_entropy_gradients(
        &self,
        batch: &Batch,
        rows: Range<usize>,
        logits: PartMut<CudaSlice<T>>,
        losses: PartMut<CudaSlice<f32>>,
    ) -> Done {
        let (targets, scale) = (batch.targets(rows), batch.scale());
        let (gpu, logits, losses) = (&self.gpu, &mut logits.view(), &mut losses.view());
        Ok(cross_entropy::losses_and_gradients(
            gpu, logits, &targets, &scale, losses,
        )?)
    }

    fn input_gradients(
        &self,
        weight: Part<CudaSlice<T>>,
        dy: Part<CudaSlice<T>>,
        dx: PartMut<CudaSlice<T>>,
        columns: usize,
    ) -> Done {
        let (weight, dy, mut dx) = (weight.view(), dy.view(), dx.view());
        let (rows, outputs) = (dx.len() / columns, weight.len() / columns);
        let none = Epilogue::None;
        let problem = Problem::input_gradient(rows, outputs, columns, self.inputs, none);
        let operands = DeviceOperands {
            a: self.read(&dy, outputs),
            b: self.read(&weight, columns),
            c: self.write(&mut dx, columns),
            bias: None,
            aux: None,
        };
        self.run(&problem, operands)
    }

    fn gelu_input_gradients(
        &self,
        form: Gelu,
        weight: Part<CudaSlice<T>>,
        dy: Part<CudaSlice<T>>,
        x: Part<CudaSlice<T>>,
        dx: PartMut<CudaSlice<T>>,
        columns: usize,
    ) -> Done {
        let (weight, dy, x, mut dx) = (weight.view(), dy.view(), x.view(), dx.view());
        let (rows, outputs) = (dx.len() / columns, weight.len() / columns);
        let slope = Epilogue::GeluBackward(form);
        let problem = Problem::input_gradient(rows, outputs, columns, self.inputs, slope);
        let operands = DeviceOperands {
            a: self.read(&dy, outputs),
            b: self.read(&weight, columns),
            c: self.write(&mut dx, columns),
            bias: None,
            aux: Some(self.read(&x, columns)),
        };
        self.run(&problem, operands)
    }

    fn weight_gradients(
        &self,
        dy: Part<CudaSlice<T>>,
        x: Part<CudaSlice<T>>,
        into: Gradients<CudaSlice<f32>>,
        columns: usize,
        partials: &mut CudaSlice<f32>,
    ) -> Done {
        let (dy, x) = (dy.view(), x.view());
        let mut dweight = into.buffer.slice_mut(into.weight.clone());
        let (rows, outputs) = (x.len() / columns, dweight.len() / columns);
        let problem = Problem::weight_gradient(rows, outputs, columns, self.inputs);
        let operands = DeviceOperands {
            a: self.read(&dy, outputs),
            b: self.read(&x, columns),
            c: self.write(&mut dweight, columns),
            bias: None,
            aux: None,
        };
        self.run(&problem, operands)?;
        let Some(bias) = into.bias else {
            return Ok(());
        };
        let (dbias, partials) = (
            &mut into.buffer.slice_mut(bias),
            &mut partials.as_view_mut(),
        );
        Ok(column_sums::add_column_sums(
            &self.gpu, &dy, dbias, partials,
        )?)
    }

    fn attention_gradients(
        &self,
        shape: Shape,
        dout: Part<CudaSlice<T>>,
        saved: AttentionSaved<CudaSlice<T>, CudaSlice<f32>>,
        dqkv: PartMut<CudaSlice<T>>,
        mask: Option<Mask<CudaSlice<u32>>>,
        scratch: &mut CudaSlice<f32>,
    ) -> Done {
        let mask = mask.map(MaskWithHeader::new);
        let saved = attention::AttentionSavedViews {
            qkv: &saved.qkv.view(),
            out: &saved.out.view(),
            lse: &saved.lse.view(),
        };
        let (dout, dqkv) = (&dout.view(), &mut dqkv.view());
        let scratch = &mut scratch.slice_mut(0..attention::scratch_len(shape));
        let (gpu, mask) = (&self.gpu, mask.as_ref().map(MaskWithHeader::view));
        Ok(attention::backward(
            gpu, shape, mask, dout, saved, dqkv, scratch,
        )?)
    }

    fn norm_gradients(
        &self,
        dout: Part<CudaSlice<T>>,
        saved: NormSaved<CudaSlice<T>, CudaSlice<f32>>,
        dx: PartMut<CudaSlice<T>>,
        into: Gradients<CudaSlice<f32>>,
        partials: &mut CudaSlice<f32>,
    ) -> Done {
        let saved = layer_norm::NormSavedViews {
            x: &saved.x.view(),
            weight: &saved.weight.view(),
            mean: &saved.mean.view(),
            rstd: &saved.rstd.view(),
        };
        // A bias lies behind its weight.
        let (mut weights, mut rest) = into.buffer.split_at_mut(into.weight.end);
        let mut dbias = into.bias.map(|bias| {
            let start = bias.start - into.weight.end;
            rest.slice_mut(start..start + bias.len())
        });
        let dweight = &mut weights.slice_mut(into.weight);
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

    fn drop(
        &self,
        x: Part<CudaSlice<T>>,
        out: PartMut<CudaSlice<T>>,
        shape: RowShape,
        mask: Mask<CudaSlice<u32>>,
    ) -> Done {
        let mask = MaskWithHeader::new(mask);
        Ok(dropout::mask(
            &self.gpu,
            &x.view(),
            &mut out.view(),
            shape,
            mask.view(),
        )?)
    }

    fn embedding_gradients(
        &self,
        batch: &Batch,
        dx: PartMut<CudaSlice<T>>,
        into: EmbeddingGradients<CudaSlice<f32>>,
        shape: RowShape,
        mask: Option<Mask<CudaSlice<u32>>>,
        partials: &mut CudaSlice<f32>,
    ) -> Done {
        let mut dx = dx.view();
        if let Some(mask) = mask.map(MaskWithHeader::new) {
            dropout::mask_in_place(&self.gpu, &mut dx, shape, mask.view())?;
        }
        let rows = dx.len() / shape.columns;
        let sorted = embedding::Sorted {
            tokens: &batch.inputs(rows),
            order: &batch.order(rows),
        };
        let (mut wte, mut rest) = into.buffer.split_at_mut(into.wpe.start);
        let dwte = &mut wte.slice_mut(into.wte);
        let dwpe = &mut rest.slice_mut(0..into.wpe.len());
        let heads = &mut partials.as_view_mut();
        let dx = &dx.as_view();
        Ok(embedding::backward(
            &self.gpu,
            dx,
            sorted,
            dwte,
            dwpe,
            shape.positions,
            heads,
        )?)
    }
}
