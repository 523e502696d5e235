//! The CPU as a [`Backend`]: the bodies of this room over slices.

pub mod adamw;
pub mod attention;
mod backward;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
mod forward;
pub mod layer_norm;
pub mod linear;
mod memory;
mod values;

pub use memory::Host;

use crate::memory::{AllocationError, Memory, Refused};
use crate::ops::backend::{
    Backend, BatchHeader, Buffers, DecayRun, Done, DropoutSite, Ended, GradientWrite, Gradients,
    LoadError, Mask, Masks, NormStats, Part, PartMut, ReadTokens, Tokens, TrainingState, Update,
};
use crate::ops::gemm::{Cpu, Products, Table, TrainingGemm};
use crate::ops::loops::{Element, parallel};
use crate::terms::{Engine, Inputs, NamedChoice, Precision};
use attention::{AttentionWorkspace, WeightDropout};
use dropout::Dropout;

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

    /// A CPU that computes every GEMM by its fallback.
    pub fn untuned(threads: usize) -> Self {
        Self::new(threads, Products::untuned(Cpu::default()))
    }
}

/// Token ids, (B, T) each.
pub struct Batch {
    tokens: Tokens<Vec<u32>>,
    header: BatchHeader,
}

/// The loss so far.
pub struct Tally {
    loss: f64,
}

/// The parameters that decay, and those that do not.
pub struct Optimizer {
    decays: Vec<DecayRun>,
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

impl<T: Element> Buffers for OnCpu<T> {
    type Compute = Vec<T>;
    type Full = Vec<T>;
    type Batch = Batch;
    type Header = BatchHeader;
    type Allocator<'a> = Host<'a, T>;

    fn engine(&self) -> Engine {
        Engine::Cpu {
            threads: self.threads,
        }
    }

    fn precision(&self) -> Precision {
        Precision::Float32
    }

    fn allocator<'a>(&'a self, memory: &'a mut Memory) -> Host<'a, T> {
        Host::new(memory)
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

    fn clear(&self, part: PartMut<Vec<T>>) -> Done {
        parallel::zero(part.slice());
        Ok(())
    }
}

impl<T: Element> Backend for OnCpu<T> {
    type Tally = Tally;
    type Optimizer = Optimizer;
    type Recording = ();

    fn inputs(&self) -> Inputs {
        self.products.inputs()
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

    fn record(&self, _recording: &mut (), mut work: impl FnMut() -> Done) -> Done {
        work()
    }

    fn tally(&self) -> Result<Tally, Refused> {
        Ok(Tally { loss: 0.0 })
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

    fn optimizer(&self, decays: &[DecayRun]) -> Result<Optimizer, Refused> {
        Ok(Optimizer {
            decays: decays.to_vec(),
        })
    }

    fn update(
        &self,
        optimizer: &mut Optimizer,
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
        for DecayRun { elements, decays } in &optimizer.decays {
            let run = || elements.clone();
            let rule = update.rule(*decays, update.clip_factor(ended.gradient_norm));
            let (m, v) = (&mut state.m[run()], &mut state.v[run()]);
            let gradients = &state.gradients[run()];
            rule.update(&mut state.weights[run()], m, v, gradients);
        }
        Ok(ended)
    }
}

/// Zeroes small gradients that are to be overwritten, so that all may add to them.
fn zero_if_overwritten<T: Element>(gradients: &mut [T], write: GradientWrite) {
    if write == GradientWrite::Overwrite {
        gradients.fill(T::ZERO);
    }
}
