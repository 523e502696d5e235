//! The CPU as a [`Backend`]: the bodies of this room over slices.

pub mod adamw;
pub mod attention;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod layer_norm;
pub mod linear;
mod memory;
mod values;

pub use memory::Host;

use std::ops::Range;

use crate::memory::{AllocationError, Memory, Refused};
use crate::ops::backend::{
    Affine, AttentionOut, AttentionSaved, Backend, BatchHeader, Done, DropoutSite,
    EmbeddingGradients, EmbeddingTables, Ended, GradientWrite, Gradients, LoadError, Mask, Masks,
    NormSaved, NormStats, Part, PartMut, ReadTokens, Residual, Shape, Tokens, TrainingState,
    Update,
};
use crate::ops::gemm::{Cpu, Products, Table, TrainingGemm};
use crate::ops::loops::{Element, gelu, parallel};
use crate::terms::{Engine, Gelu, Inputs, NamedChoice, Precision};
use attention::{AttentionWorkspace, WeightDropout};
use dropout::{Dropout, SiteDropout};

/// Computes in `T` on the threads of the current pool: f32, or f64 in tests.
pub struct OnCpu<T: Element> {
    products: Products<T>,
    threads: usize,
}

impl<T: Element> OnCpu<T> {
    /// `threads` are those of the pool that operations will run in.
    pub fn new(threads: usize, products: Products<T>) -> Self {
        Self { products, threads }
    }

    fn attention_work<'a>(&self, scratch: &'a mut [T]) -> AttentionWorkspace<'a, T> {
        AttentionWorkspace {
            scratch,
            products: self.products.sequential(),
        }
    }

    /// Every product by its fallback.
    pub fn untuned(threads: usize) -> Self {
        Self::new(threads, Products::untuned(Cpu::default()))
    }
}

/// Token ids, (B, T) each.
pub struct Batch {
    tokens: Tokens<Vec<u32>>,
    header: BatchHeader,
}

/// The loss so far, and which parameters decay.
pub struct Tally {
    loss: f64,
    decays: Vec<(Range<usize>, bool)>,
}

impl Batch {
    pub fn new(inputs: Vec<u32>, targets: Vec<u32>, header: BatchHeader) -> Self {
        Self {
            tokens: Tokens { inputs, targets },
            header,
        }
    }

    /// These inputs, for generating.
    pub fn of(inputs: &[u32]) -> Self {
        Self::new(inputs.to_vec(), Vec::new(), BatchHeader::default())
    }
}

impl<'a, T> Part<'a, Vec<T>> {
    pub fn slice(self) -> &'a [T] {
        &self.buffer[self.range()]
    }
}

impl<'a, T> PartMut<'a, Vec<T>> {
    fn slice(self) -> &'a mut [T] {
        let range = self.range();
        &mut self.buffer[range]
    }
}

impl<'a, T> Gradients<'a, Vec<T>> {
    /// A bias lies behind its weight.
    fn slices(self) -> (&'a mut [T], Option<&'a mut [T]>) {
        let (weights, rest) = self.buffer[self.weight.start..].split_at_mut(self.weight.len());
        let bias = self.bias.map(|bias| {
            let start = bias.start - self.weight.end;
            &mut rest[start..start + bias.len()]
        });
        (weights, bias)
    }
}

impl<'a, T> NormStats<'a, Vec<T>> {
    fn slices(self) -> layer_norm::NormStatsSlices<'a, T> {
        layer_norm::NormStatsSlices {
            mean: self.mean.slice(),
            rstd: self.rstd.slice(),
        }
    }
}

impl Masks<'_, BatchHeader> {
    fn dropout(self) -> Dropout {
        Dropout {
            p: self.p,
            seed: self.seed,
            step: self.header.step,
            first_sample: self.header.first_sample,
        }
    }
}

/// The dropout of attention's weights.
fn weight_dropout(mask: Mask<BatchHeader>) -> WeightDropout {
    let DropoutSite::Attention { layer, .. } = mask.site else {
        unreachable!("attention's weights have a site of their own");
    };
    WeightDropout {
        dropout: mask.masks.dropout(),
        layer,
    }
}

impl<T: Element> Backend for OnCpu<T> {
    type Compute = Vec<T>;
    type Full = Vec<T>;
    type Batch = Batch;
    type Header = BatchHeader;
    type Tally = Tally;
    type Recording = ();
    type Allocator<'a> = Host<'a, T>;

    fn engine(&self) -> Engine {
        Engine::Cpu {
            threads: self.threads,
        }
    }

    fn precision(&self) -> Precision {
        Precision::Float32
    }

    fn inputs(&self) -> Inputs {
        self.products.inputs()
    }

    fn allocator<'a>(&'a self, memory: &'a mut Memory) -> Host<'a, T> {
        Host::new(memory)
    }

    fn prepare(&self, gemms: &[TrainingGemm], room: Option<u64>) {
        self.products.prepare(gemms, room);
    }

    fn products(&self) -> Table {
        self.products.table()
    }

    fn take_choices(&self) -> Vec<NamedChoice> {
        self.products.take_choices()
    }

    fn batch(&self, rows: usize, memory: &mut Memory) -> Result<Batch, AllocationError> {
        Ok(Batch {
            tokens: Tokens::new(rows, &mut Host::<T>::new(memory))?,
            header: BatchHeader::default(),
        })
    }

    fn load<E>(
        &self,
        batch: &mut Batch,
        _rows: usize,
        header: BatchHeader,
        read: &mut ReadTokens<E>,
    ) -> Result<(), LoadError<E>> {
        batch.header = header;
        read(&mut batch.tokens.inputs, &mut batch.tokens.targets).map_err(LoadError::Read)
    }

    fn header(batch: &Batch) -> &BatchHeader {
        &batch.header
    }

    fn record(&self, _recording: &mut (), mut work: impl FnMut() -> Done) -> Done {
        work()
    }

    fn begin(&self, _gradients: &mut Vec<T>) -> Result<GradientWrite, Refused> {
        Ok(GradientWrite::Overwrite)
    }

    fn clear(&self, part: PartMut<Vec<T>>) -> Done {
        parallel::zero(part.slice());
        Ok(())
    }

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
        let (sum, (dweight, dbias)) = (into.sum, into.slices());
        let (products, dy, x) = (&self.products, dy.slice(), x.slice());
        linear::backward_weight(products, dy, x, dweight, dbias, sum, columns);
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
        let (sum, (dweight, dbias)) = (into.sum, into.slices());
        layer_norm::backward(
            dout.slice(),
            saved,
            dx.slice(),
            dweight,
            dbias,
            sum,
            partials,
        );
        Ok(())
    }

    fn drop(
        &self,
        x: Part<Vec<T>>,
        out: PartMut<Vec<T>>,
        (columns, positions): (usize, usize),
        Mask { masks, site }: Mask<BatchHeader>,
    ) -> Done {
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
        (columns, positions): (usize, usize),
        mask: Option<Mask<BatchHeader>>,
        _partials: &mut Vec<T>,
    ) -> Done {
        let dx = dx.slice();
        if let Some(Mask { masks, site }) = mask {
            dropout::mask_in_place(dx, columns, positions, masks.dropout(), site);
        }
        let (dwte, dwpe) = into.buffer.split_at_mut(into.wpe.start);
        let (dwte, dwpe) = (&mut dwte[into.wte], &mut dwpe[..into.wpe.len()]);
        let (tokens, sum) = (&batch.tokens.inputs, into.positions);
        embedding::backward(tokens, dx, dwte, dwpe, sum, positions, columns);
        Ok(())
    }

    fn tally(&self, decays: &[(Range<usize>, bool)]) -> Result<Tally, Refused> {
        Ok(Tally {
            loss: 0.0,
            decays: decays.to_vec(),
        })
    }

    fn reset(&self, tally: &mut Tally) -> Done {
        tally.loss = 0.0;
        Ok(())
    }

    fn add_losses(&self, losses: Part<Vec<T>>, positions: usize, tally: &mut Tally) -> Done {
        for sample in losses.slice().chunks_exact(positions) {
            tally.loss += sample.iter().map(|loss| loss.widen()).sum::<f64>();
        }
        Ok(())
    }

    fn loss(&self, tally: &Tally) -> Result<f64, Refused> {
        Ok(tally.loss)
    }

    fn update(
        &self,
        state: TrainingState<Self>,
        update: &Update,
        tally: &mut Tally,
    ) -> Result<Ended, Refused> {
        let ended = Ended {
            loss: tally.loss,
            gradient_norm: adamw::norm(state.gradients),
        };
        if !ended.is_finite() {
            return Ok(ended);
        }
        for (run, decays) in &tally.decays {
            let rule = update.rule(*decays, update.clip_factor(ended.gradient_norm));
            let (m, v) = (&mut state.m[run.clone()], &mut state.v[run.clone()]);
            let gradients = &state.gradients[run.clone()];
            rule.update(&mut state.weights[run.clone()], m, v, gradients);
        }
        Ok(ended)
    }
}

/// Zeroes gradients whose sum is not begun; for small ones that are no product.
fn begin<T: Element>(gradients: &mut [T], sum: GradientWrite) {
    if sum == GradientWrite::Overwrite {
        gradients.fill(T::ZERO);
    }
}
