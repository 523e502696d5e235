//! The operations of the forward on a GPU: operands become views, and kernels are launched.

use std::ops::Range;

use super::OnGpu;
use super::batch::Batch;
use super::views::MaskWithHeader;
use super::{attention, cross_entropy, embedding, layer_norm};
use crate::ops::backend::{
    Affine, AttentionOut, Done, EmbeddingTables, Forward, Mask, NormStats, Part, PartMut, Residual,
    Shape,
};
use crate::ops::gemm::ptx::DeviceOperands;
use crate::ops::gemm::{Epilogue, Problem};
use crate::ops::launch::{GpuElement, gelu};
use crate::terms::Gelu;
use cudarc::driver::CudaSlice;

impl<T: GpuElement> Forward for OnGpu<T> {
    fn embed(
        &self,
        batch: &Batch,
        tables: EmbeddingTables<CudaSlice<T>>,
        out: PartMut<CudaSlice<T>>,
        mask: Option<Mask<CudaSlice<u32>>>,
    ) -> Done {
        let (mask, mut out) = (mask.map(MaskWithHeader::new), out.view());
        let rows = out.len() / tables.columns;
        let (wte, wpe) = (tables.wte.view(), tables.wpe.view());
        let positions = tables.positions;
        let tables = embedding::EmbeddingTableViews {
            wte: &wte,
            wpe: &wpe,
        };
        let tokens = &batch.inputs(rows);
        Ok(embedding::forward(
            &self.gpu,
            tokens,
            tables,
            &mut out,
            positions,
            mask.as_ref().map(MaskWithHeader::view),
        )?)
    }

    fn norm(
        &self,
        norm: Affine<CudaSlice<T>>,
        x: Part<CudaSlice<T>>,
        out: PartMut<CudaSlice<T>>,
        stats: NormStats<CudaSlice<f32>>,
    ) -> Done {
        let (weight, bias) = (norm.weight.view(), norm.bias.map(Part::view));
        let affine = layer_norm::AffineViews {
            weight: &weight,
            bias: bias.as_ref(),
        };
        let stats = layer_norm::NormStatsViews {
            mean: &mut stats.mean.view(),
            rstd: &mut stats.rstd.view(),
        };
        Ok(layer_norm::forward(
            &self.gpu,
            &x.view(),
            affine,
            &mut out.view(),
            stats,
        )?)
    }

    fn residual_norm(
        &self,
        residual: Residual<CudaSlice<T>>,
        mask: Option<Mask<CudaSlice<u32>>>,
        norm: Affine<CudaSlice<T>>,
        out: PartMut<CudaSlice<T>>,
        stats: NormStats<CudaSlice<f32>>,
    ) -> Done {
        let mask = mask.map(MaskWithHeader::new);
        let (weight, bias) = (norm.weight.view(), norm.bias.map(Part::view));
        let affine = layer_norm::AffineViews {
            weight: &weight,
            bias: bias.as_ref(),
        };
        let stats = layer_norm::NormStatsViews {
            mean: &mut stats.mean.view(),
            rstd: &mut stats.rstd.view(),
        };
        let residual = layer_norm::ResidualViews {
            x: &residual.x.view(),
            branch: &residual.branch.view(),
            after: &mut residual.out.view(),
            positions: residual.positions,
        };
        let (gpu, out) = (&self.gpu, &mut out.view());
        Ok(layer_norm::residual_forward(
            gpu,
            residual,
            mask.as_ref().map(MaskWithHeader::view),
            affine,
            out,
            stats,
        )?)
    }

    fn linear(
        &self,
        layer: Affine<CudaSlice<T>>,
        x: Part<CudaSlice<T>>,
        y: PartMut<CudaSlice<T>>,
        columns: usize,
    ) -> Done {
        let (weight, bias) = (layer.weight.view(), layer.bias.map(Part::view));
        let (x, mut y) = (x.view(), y.view());
        let (rows, outputs) = (x.len() / columns, weight.len() / columns);
        let epilogue = match bias {
            Some(_) => Epilogue::Bias,
            None => Epilogue::None,
        };
        let problem = Problem::forward(rows, outputs, columns, self.inputs, epilogue);
        let operands = DeviceOperands {
            a: self.read(&x, columns),
            b: self.read(&weight, columns),
            c: self.write(&mut y, outputs),
            bias: bias.as_ref().map(|bias| self.read(bias, outputs)),
            aux: None,
        };
        self.run(&problem, operands)
    }

    fn linear_gelu(
        &self,
        form: Gelu,
        layer: Affine<CudaSlice<T>>,
        x: Part<CudaSlice<T>>,
        y: PartMut<CudaSlice<T>>,
        activated: PartMut<CudaSlice<T>>,
        columns: usize,
    ) -> Done {
        let Some(bias) = layer.bias else {
            let (range, buffer) = (y.range(), y.buffer);
            self.linear(layer, x, PartMut::new(&mut *buffer, range.clone()), columns)?;
            return self.gelu(form, Part::new(buffer, range), activated);
        };
        let (weight, bias) = (layer.weight.view(), bias.view());
        let (x, mut y, mut activated) = (x.view(), y.view(), activated.view());
        let (rows, outputs) = (x.len() / columns, weight.len() / columns);
        let epilogue = Epilogue::BiasGelu(form);
        let problem = Problem::forward(rows, outputs, columns, self.inputs, epilogue);
        let operands = DeviceOperands {
            a: self.read(&x, columns),
            b: self.read(&weight, columns),
            c: self.write(&mut activated, outputs),
            bias: Some(self.read(&bias, outputs)),
            aux: Some(self.write(&mut y, outputs)),
        };
        self.run(&problem, operands)
    }

    fn gelu(&self, form: Gelu, x: Part<CudaSlice<T>>, out: PartMut<CudaSlice<T>>) -> Done {
        Ok(gelu::forward(&self.gpu, form, &x.view(), &mut out.view())?)
    }

    fn attention(
        &self,
        shape: Shape,
        queries: Range<usize>,
        qkv: Part<CudaSlice<T>>,
        into: AttentionOut<CudaSlice<T>, CudaSlice<f32>>,
        mask: Option<Mask<CudaSlice<u32>>>,
        _scratch: &mut CudaSlice<f32>,
    ) -> Done {
        assert_eq!(queries, 0..shape.positions, "a GPU computes every query");
        let mask = mask.map(MaskWithHeader::new);
        let (out, lse) = (&mut into.out.view(), &mut into.lse.view());
        Ok(attention::forward(
            &self.gpu,
            shape,
            mask.as_ref().map(MaskWithHeader::view),
            &qkv.view(),
            out,
            lse,
        )?)
    }

    fn cross_entropy(
        &self,
        batch: &Batch,
        rows: Range<usize>,
        logits: PartMut<CudaSlice<T>>,
        losses: PartMut<CudaSlice<f32>>,
    ) -> Done {
        let (logits, targets) = (logits.view(), batch.targets(rows));
        let losses = &mut losses.view();
        Ok(cross_entropy::losses(
            &self.gpu,
            &logits.as_view(),
            &targets,
            losses,
        )?)
    }
}
