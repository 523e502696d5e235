//! A GPU as a [`Backend`]: the kernels of this folder, and the products of `gemm`.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use candle_core::CudaDevice;
use cudarc::driver::{CudaSlice, CudaStream, CudaView, CudaViewMut, DriverError};

use super::batch::Batch;
use super::recording::Recording;
use super::tally::Tally;
use super::{attention, column_sums, cross_entropy, dropout, embedding, layer_norm, outcome};
use crate::memory::{AllocationError, Memory, Refused};
use crate::ops::backend::{
    Affine, AttentionOut, AttentionSaved, Backend, BatchHeader, Done, EmbeddingGradients,
    EmbeddingTables, Ended, GradientWrite, Gradients, LoadError, Mask, NormSaved, NormStats,
    Packets, Part, PartMut, ReadTokens, Residual, Shape, TrainingState, Update,
};
use crate::ops::cuda::GpuMemory;
use crate::ops::gemm::gpu::GpuError;
use crate::ops::gemm::ptx::{DeviceMatrix, DeviceOperands};
use crate::ops::gemm::{Dispatch, Epilogue, Problem, Table, TrainingGemm, gpu};
use crate::ops::launch::{Gpu, GpuElement, LaunchError, gelu};
use crate::terms::{Engine, Gelu, Inputs, NamedChoice, Precision};

/// What the training path on a GPU computes its products with.
pub type Products = Dispatch<gpu::GpuGemm>;

/// Computes in `T`, in one stream of a GPU.
pub struct OnGpu<T: GpuElement> {
    device: CudaDevice,
    gpu: Gpu,
    stream: Arc<CudaStream>,
    /// Copies micro-batches ahead.
    copies: Arc<CudaStream>,
    products: Products,
    inputs: Inputs,
    cuda_graph: bool,
    choices: RefCell<Vec<NamedChoice>>,
    element: std::marker::PhantomData<T>,
}

impl<T: GpuElement> OnGpu<T> {
    /// `products` are those of the same device, and multiply `inputs`, which lie in memory as `T`.
    ///
    /// # Errors
    /// The driver's, when it makes no second stream or does not tell what the GPU can do.
    pub fn new(
        device: &CudaDevice,
        products: Products,
        (inputs, cuda_graph): (Inputs, bool),
    ) -> Result<Self, DriverError> {
        let gpu = Gpu::new(device)?;
        let stream = gpu.stream().clone();
        Ok(Self {
            device: device.clone(),
            copies: stream.context().new_stream()?,
            gpu,
            stream,
            products,
            inputs,
            cuda_graph,
            choices: RefCell::default(),
            element: std::marker::PhantomData,
        })
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn read<'a, E: GpuElement>(
        &'a self,
        view: &'a CudaView<E>,
        columns: usize,
    ) -> DeviceMatrix<'a> {
        DeviceMatrix::read(view, columns, &self.stream)
    }

    fn write<'a, E: GpuElement>(
        &'a self,
        view: &'a mut CudaViewMut<E>,
        columns: usize,
    ) -> DeviceMatrix<'a> {
        DeviceMatrix::write(view, columns, &self.stream)
    }

    fn run(&self, problem: &Problem, mut operands: DeviceOperands) -> Done {
        Ok(self.products.run(problem, &mut operands)?)
    }
}

impl<'a, E> Part<'a, CudaSlice<E>> {
    fn view(self) -> CudaView<'a, E> {
        self.buffer.slice(self.range())
    }
}

impl<'a, E> PartMut<'a, CudaSlice<E>> {
    fn view(self) -> CudaViewMut<'a, E> {
        let range = self.range();
        self.buffer.slice_mut(range)
    }
}

/// A mask of one site, whose header is the head of a packet.
struct Held<'a> {
    mask: Mask<'a, CudaSlice<u32>>,
    header: CudaView<'a, u32>,
}

impl<'a> Held<'a> {
    fn new(mask: Mask<'a, CudaSlice<u32>>) -> Self {
        Self {
            header: mask.masks.header.slice(0..2),
            mask,
        }
    }

    fn mask(&self) -> dropout::MaskView<'_> {
        dropout::MaskView {
            p: self.mask.masks.p,
            seed: self.mask.masks.seed,
            site: self.mask.site,
            header: &self.header,
        }
    }
}

fn held<'a>(mask: Option<Mask<'a, CudaSlice<u32>>>) -> Option<Held<'a>> {
    mask.map(Held::new)
}

fn mask<'a>(held: &'a Option<Held>) -> Option<dropout::MaskView<'a>> {
    held.as_ref().map(Held::mask)
}

impl From<GpuError> for Refused {
    fn from(error: GpuError) -> Self {
        use crate::ops::gemm::candidate::GemmFailure;
        match error.is_out_of_memory() {
            true => Refused::OutOfMemory,
            false => Refused::Device(error.to_string()),
        }
    }
}

impl From<LaunchError> for Refused {
    fn from(error: LaunchError) -> Self {
        match error.is_out_of_memory() {
            true => Refused::OutOfMemory,
            false => Refused::Device(error.to_string()),
        }
    }
}

impl<T: GpuElement> Backend for OnGpu<T> {
    type Compute = CudaSlice<T>;
    type Full = CudaSlice<f32>;
    type Batch = Batch;
    type Header = CudaSlice<u32>;
    type Tally = Tally;
    type Recording = Recording;
    type Allocator<'a> = GpuMemory<'a, T>;

    fn engine(&self) -> Engine {
        Engine::Cuda
    }

    fn precision(&self) -> Precision {
        T::PRECISION
    }

    fn inputs(&self) -> Inputs {
        self.inputs
    }

    fn allocator<'a>(&'a self, memory: &'a mut Memory) -> GpuMemory<'a, T> {
        GpuMemory::new(&self.device, memory)
    }

    fn prepare(&self, gemms: &[TrainingGemm], room: Option<u64>) {
        self.products.prepare(gemms, room);
    }

    fn products(&self) -> Table {
        self.products.table()
    }

    fn take_choices(&self) -> Vec<NamedChoice> {
        let mut choices = self.products.take_choices();
        choices.append(&mut self.choices.borrow_mut());
        choices
    }

    fn batch(&self, rows: usize, memory: &mut Memory) -> Result<Batch, AllocationError> {
        let packets = Packets::new(rows, &mut self.allocator(memory))?;
        let batch = Batch::new(packets, rows, &self.stream);
        batch.map_err(|error| memory.refusal(crate::faults::Site::Launch, error.into()))
    }

    fn load<E>(
        &self,
        batch: &mut Batch,
        rows: usize,
        header: BatchHeader,
        read: &mut ReadTokens<E>,
    ) -> Result<(), LoadError<E>> {
        batch.load(&self.stream, &self.copies, rows, header, read)
    }

    fn header(batch: &Batch) -> &CudaSlice<u32> {
        batch.packet()
    }

    fn record(&self, recording: &mut Recording, mut work: impl FnMut() -> Done) -> Done {
        if !self.cuda_graph {
            return work();
        }
        if let Some(because) = recording.run(&self.stream, work)? {
            self.choices.borrow_mut().push(NamedChoice {
                name: "cuda graph".into(),
                value: "off".into(),
                because: format!("the driver did not record kernels: {because}"),
            });
        }
        Ok(())
    }

    /// One recording serves all micro-steps, so the first adds to zeros.
    fn begin(&self, gradients: &mut CudaSlice<f32>) -> Result<GradientWrite, Refused> {
        self.stream.memset_zeros(gradients)?;
        Ok(GradientWrite::Accumulate)
    }

    fn clear(&self, part: PartMut<CudaSlice<T>>) -> Done {
        Ok(self.stream.memset_zeros(&mut part.view())?)
    }

    fn embed(
        &self,
        batch: &Batch,
        tables: EmbeddingTables<CudaSlice<T>>,
        out: PartMut<CudaSlice<T>>,
        mask_of: Option<Mask<CudaSlice<u32>>>,
    ) -> Done {
        let (held, mut out) = (held(mask_of), out.view());
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
            mask(&held),
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
        mask_of: Option<Mask<CudaSlice<u32>>>,
        norm: Affine<CudaSlice<T>>,
        out: PartMut<CudaSlice<T>>,
        stats: NormStats<CudaSlice<f32>>,
    ) -> Done {
        let held = held(mask_of);
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
            mask(&held),
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
        mask_of: Option<Mask<CudaSlice<u32>>>,
        _scratch: &mut CudaSlice<f32>,
    ) -> Done {
        assert_eq!(queries, 0..shape.positions, "a GPU computes every query");
        let held = held(mask_of);
        let (out, lse) = (&mut into.out.view(), &mut into.lse.view());
        Ok(attention::forward(
            &self.gpu,
            shape,
            mask(&held),
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
        mask_of: Option<Mask<CudaSlice<u32>>>,
        scratch: &mut CudaSlice<f32>,
    ) -> Done {
        let held = held(mask_of);
        let saved = attention::AttentionSavedViews {
            qkv: &saved.qkv.view(),
            out: &saved.out.view(),
            lse: &saved.lse.view(),
        };
        let (dout, dqkv) = (&dout.view(), &mut dqkv.view());
        let scratch = &mut scratch.slice_mut(0..attention::scratch_len(shape));
        let (gpu, mask) = (&self.gpu, mask(&held));
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
        (columns, positions): (usize, usize),
        mask: Mask<CudaSlice<u32>>,
    ) -> Done {
        let (rows, held) = (dropout::Rows { columns, positions }, Held::new(mask));
        Ok(dropout::mask(
            &self.gpu,
            &x.view(),
            &mut out.view(),
            rows,
            held.mask(),
        )?)
    }

    fn embedding_gradients(
        &self,
        batch: &Batch,
        dx: PartMut<CudaSlice<T>>,
        into: EmbeddingGradients<CudaSlice<f32>>,
        (columns, positions): (usize, usize),
        mask: Option<Mask<CudaSlice<u32>>>,
        partials: &mut CudaSlice<f32>,
    ) -> Done {
        let mut dx = dx.view();
        if let Some(held) = held(mask) {
            let rows = dropout::Rows { columns, positions };
            dropout::mask_in_place(&self.gpu, &mut dx, rows, held.mask())?;
        }
        let rows = dx.len() / columns;
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
            &self.gpu, dx, sorted, dwte, dwpe, positions, heads,
        )?)
    }

    fn tally(&self, decays: &[(Range<usize>, bool)]) -> Result<Tally, Refused> {
        Ok(Tally::new(&self.stream, decays)?)
    }

    fn reset(&self, tally: &mut Tally) -> Done {
        Ok(self.stream.memset_zeros(tally.outcome())?)
    }

    fn add_losses(
        &self,
        losses: Part<CudaSlice<f32>>,
        positions: usize,
        tally: &mut Tally,
    ) -> Done {
        let outcome = &mut tally.outcome().as_view_mut();
        Ok(outcome::add_losses(
            &self.gpu,
            &losses.view(),
            positions,
            outcome,
        )?)
    }

    fn loss(&self, tally: &Tally) -> Result<f64, Refused> {
        Ok(tally.read(&self.stream)?.loss)
    }

    fn update(
        &self,
        state: TrainingState<Self>,
        update: &Update,
        tally: &mut Tally,
    ) -> Result<Ended, Refused> {
        tally.update(self, state, update)
    }
}
