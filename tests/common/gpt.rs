//! A model with given weights, computed a micro-batch at a time: all that a trainer does beneath its steps.

use std::rc::Rc;

use taper::memory::Memory;
use taper::model::{Executor, Placed, Program, State, Workspace, gpt2};
use taper::ops::backend::{Backend, BatchHeader, DropoutSettings};
use taper::ops::loops::Element;
use taper::terms::{ModelDims, Purpose, Rung};

use super::parity::write_all;

pub struct Gpt {
    pub workspace: Workspace,
    pub state: State,
    executor: Rc<Executor>,
}

impl Gpt {
    pub fn new(
        dims: &ModelDims,
        rung: Rung,
        backend: Box<dyn Backend>,
        purpose: Purpose,
        weights: &[f32],
    ) -> Self {
        let program = gpt2(dims, rung, purpose, backend.engine(), backend.precision());
        Self::of(program, backend, weights)
    }

    /// Up to `sequences` sequences, of which all logits are there at once.
    pub fn of_logits(
        dims: &ModelDims,
        rung: Rung,
        backend: Box<dyn Backend>,
        weights: &[f32],
    ) -> Self {
        let rung = Rung {
            logits_rows: rung.micro_batch * dims.block_size,
            ..rung
        };
        let (engine, precision) = (backend.engine(), backend.precision());
        let mut program = gpt2(dims, rung, Purpose::Inference, engine, precision);
        // The losses would overwrite them.
        program.chunk_losses.clear();
        program.tally.clear();
        Self::of(program, backend, weights)
    }

    fn of(program: Program, backend: Box<dyn Backend>, weights: &[f32]) -> Self {
        let (executor, mut memory) = (Rc::new(Executor::new(backend)), Memory::default());
        let mut state = State::allocate(&program, &executor, &mut memory).unwrap();
        write_all(&mut *state.weights(executor.backend()), weights);
        Self {
            workspace: Workspace::new(program, &executor, &mut memory).unwrap(),
            state,
            executor,
        }
    }

    /// Makes whole sequences the micro-batch, and tells how many there are.
    fn load(&mut self, inputs: &[u32], targets: &[u32], header: BatchHeader) -> usize {
        let rows = inputs.len();
        let loaded = self.workspace.load(rows, header, &mut |to, to_targets| {
            to[..rows].copy_from_slice(inputs);
            to_targets[..rows].copy_from_slice(targets);
            true
        });
        loaded.unwrap();
        rows / self.workspace.program().block_size
    }

    /// The losses of every row, and the gradients of all parameters, over whatever `gradients` were there before.
    pub fn train<T: Element>(
        &mut self,
        inputs: &[u32],
        targets: &[u32],
        header: BatchHeader,
        dropout: Option<DropoutSettings>,
        gradients: f32,
    ) -> (Vec<T>, Vec<T>) {
        let parameters = self.workspace.program().params.len;
        let mut values = self.state.gradient_values(self.executor.backend());
        write_all(&mut *values, &vec![gradients; parameters]);
        drop(values);
        let count = self.load(inputs, targets, header);
        let (workspace, state) = (&mut self.workspace, &self.state);
        let write = workspace.begin(state).unwrap();
        workspace.forward(state, count, dropout).unwrap();
        workspace.backward(state, count, dropout, write).unwrap();
        let gradients = state.training().gradients.read::<Vec<T>>().clone();
        (self.losses(inputs.len()), gradients)
    }

    /// The losses of every row, without dropout.
    pub fn evaluate<T: Element>(&mut self, inputs: &[u32], targets: &[u32]) -> Vec<T> {
        let count = self.load(inputs, targets, BatchHeader::default());
        self.workspace.evaluate(&self.state, count).unwrap();
        self.losses(inputs.len())
    }

    fn losses<T: Element>(&self, rows: usize) -> Vec<T> {
        self.workspace.losses().read::<Vec<T>>()[..rows].to_vec()
    }

    /// The logits of every row, (R, V), of a model for them.
    pub fn logits<T: Element>(&mut self, inputs: &[u32]) -> Vec<T> {
        let count = self.load(inputs, inputs, BatchHeader::default());
        self.workspace.evaluate(&self.state, count).unwrap();
        let values = inputs.len() * self.workspace.program().logits.columns;
        self.workspace.logits().read::<Vec<T>>()[..values].to_vec()
    }

    /// Computes rows of a program for generation, each a slot, a position and a token, and tells the logits (V) of the
    /// last `wanted` of them.
    pub fn generate<T: Element>(
        &mut self,
        rows: &[(usize, usize, u32)],
        wanted: usize,
    ) -> Vec<Vec<T>> {
        let told = self.generate_f32(rows, wanted);
        let columns = self.workspace.program().logits.columns;
        let logits = self.workspace.logits().read::<Vec<T>>();
        let logits = logits.chunks(columns).take(wanted).map(<[T]>::to_vec);
        let logits: Vec<Vec<T>> = logits.collect();
        let rounded = logits.concat().into_iter().map(|x| x.widen() as f32);
        assert_eq!(told.concat(), rounded.collect::<Vec<f32>>());
        logits
    }

    /// See [`Gpt::generate`]; on any backend.
    pub fn generate_f32(&mut self, rows: &[(usize, usize, u32)], wanted: usize) -> Vec<Vec<f32>> {
        let (program, mut logits) = (self.workspace.program(), Vec::new());
        let (positions, columns) = (program.block_size, program.logits.columns);
        let placed = rows.iter().map(|&(slot, position, token)| Placed {
            token,
            place: (slot * positions + position) as u32,
        });
        let rows: Vec<Placed> = placed.collect();
        let generated = self
            .workspace
            .generate(&self.state, &rows, wanted, &mut logits);
        generated.unwrap();
        logits.chunks(columns).map(<[f32]>::to_vec).collect()
    }
}
