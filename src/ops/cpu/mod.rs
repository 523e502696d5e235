//! The CPU as a [`Backend`]: the bodies of this room over slices.

pub mod adamw;
pub mod attention;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod layer_norm;
pub mod linear;
mod memory;
mod run;

pub use memory::allocate;

use crate::memory::{AllocationError, Memory, Refused};
use crate::ops::backend::{
    Accept, Backend, BatchHeader, Buffer, BufferSpec, DecayRun, Done, Ended, Frame, GradientWrite,
    Op, ReadTokens, Recording, TrainingState, Update, ValuesMut, token_specs,
};
use crate::ops::clock::{Clock, HostClock};
use crate::ops::gemm::{Cpu, Products, Table, TrainingGemm};
use crate::ops::loops::Element;
use crate::terms::{Engine, Inputs, NamedChoice, Precision};
use memory::{values, zeros};

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

    /// A CPU that computes every GEMM by its fallback.
    pub fn untuned(threads: usize) -> Self {
        Self::new(threads, Products::untuned(Cpu::default()))
    }
}

/// Token ids, (B, T) each.
struct Batch {
    inputs: Vec<u32>,
    targets: Vec<u32>,
    header: BatchHeader,
}

/// The loss so far, and the parameters that decay, and those that do not.
struct Numbers {
    loss: f64,
    decays: Vec<DecayRun>,
}

impl<T: Element> Backend for OnCpu<T> {
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

    fn prepare(&self, gemms: &[TrainingGemm], room: Option<u64>) {
        self.products.prepare(gemms, room);
    }

    fn gemm_table(&self) -> Table {
        self.products.table()
    }

    fn take_choices(&self) -> Vec<NamedChoice> {
        self.products.take_choices()
    }

    fn clock(&self) -> Box<dyn Clock> {
        Box::new(HostClock::default())
    }

    fn allocate(&self, spec: &BufferSpec, memory: &mut Memory) -> Result<Buffer, AllocationError> {
        allocate::<T>(spec, memory)
    }

    fn batch(&self, rows: usize, memory: &mut Memory) -> Result<Buffer, AllocationError> {
        let [inputs, targets] = token_specs(rows);
        Ok(Buffer::new(Batch {
            inputs: zeros(&inputs, 0, memory)?,
            targets: zeros(&targets, 0, memory)?,
            header: BatchHeader::default(),
        }))
    }

    fn numbers(&self, decays: &[DecayRun]) -> Result<Buffer, Refused> {
        Ok(Buffer::new(Numbers {
            loss: 0.0,
            decays: decays.to_vec(),
        }))
    }

    fn load(&self, batch: &Buffer, _: usize, header: BatchHeader, read: &mut ReadTokens) -> Done {
        let batch = &mut *batch.write::<Batch>();
        batch.header = header;
        read(&mut batch.inputs, &mut batch.targets);
        Ok(())
    }

    /// Looks for an interruption first: one operation of a large model takes a second.
    fn run(&self, op: &Op, frame: &Frame) -> Done {
        if self.products.is_interrupted() {
            return Err(Refused::Interrupted);
        }
        self.compute(op, frame);
        Ok(())
    }

    fn record(&self, _: &mut Recording, work: &mut dyn FnMut() -> Done) -> Done {
        work()
    }

    fn update(
        &self,
        numbers: &Buffer,
        state: TrainingState,
        update: &Update,
        accept: Option<Accept>,
    ) -> Result<Ended, Refused> {
        let numbers = numbers.read::<Numbers>();
        let gradients = state.gradients.read::<Vec<T>>();
        let ended = Ended {
            loss: numbers.loss,
            gradient_norm: adamw::norm(&gradients),
        };
        if !ended.is_finite() || accept.is_some_and(|accept| !accept(&ended)) {
            return Ok(ended);
        }
        let [weights, m, v] = [state.weights, state.m, state.v];
        let mut weights = weights.write::<Vec<T>>();
        let (mut m, mut v) = (m.write::<Vec<T>>(), v.write::<Vec<T>>());
        for DecayRun { elements, decays } in &numbers.decays {
            let run = || elements.clone();
            let rule = update.rule(*decays, update.clip_factor(ended.gradient_norm));
            let (m, v) = (&mut m[run()], &mut v[run()]);
            rule.update(&mut weights[run()], m, v, &gradients[run()]);
        }
        Ok(ended)
    }

    fn loss(&self, numbers: &Buffer) -> Result<f64, Refused> {
        Ok(numbers.read::<Numbers>().loss)
    }

    fn values<'a>(&'a self, buffer: &'a mut Buffer) -> Box<dyn ValuesMut + 'a> {
        values::<T>(buffer)
    }

    /// Does nothing: there are no master weights.
    fn round(&self, _master: &Buffer, _weights: &Buffer) -> Done {
        Ok(())
    }
}

/// Zeroes small gradients that are to be overwritten, so that all may add to them.
fn zero_if_overwritten<T: Element>(gradients: &mut [T], write: GradientWrite) {
    if write == GradientWrite::Overwrite {
        gradients.fill(T::ZERO);
    }
}
