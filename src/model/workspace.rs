//! The buffers of a program at one rung, and its runs.

use std::io;
use std::ops::Range;
use std::rc::Rc;

use super::{Executor, Program, State};
use crate::memory::{AllocationError, Memory, Refused};
use crate::ops::backend::{
    BatchHeader, Buffer, BufferId, Done, DropoutSettings, Frame, GradientWrite, ReadTokens,
    Recording, Span, Values, ValuesMut, chunks,
};

/// A function that looks at rows, and at values that begin with their logits.
pub type LookAtLogits<'a> = dyn FnMut(Range<usize>, &dyn Values) -> io::Result<()> + 'a;

/// The buffers of a program that depend on the rung. A micro-batch of full size is recorded and replayed.
pub struct Workspace {
    program: Program,
    executor: Rc<Executor>,
    buffers: Vec<Buffer>,
    batch: Buffer,
    forward: Recording,
    backward: Recording,
}

impl Workspace {
    /// # Errors
    /// The refusal of memory for a buffer; buffers made before it are released.
    pub fn new(
        program: Program,
        executor: &Rc<Executor>,
        memory: &mut Memory,
    ) -> Result<Self, AllocationError> {
        let backend = executor.backend();
        let specs = program.workspace().iter();
        let buffers = specs.map(|spec| backend.allocate(spec, memory));
        Ok(Self {
            buffers: buffers.collect::<Result<_, _>>()?,
            batch: backend.batch(program.rows(), memory)?,
            program,
            executor: executor.clone(),
            forward: Recording::default(),
            backward: Recording::default(),
        })
    }

    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Lets `read` write the inputs and targets of `rows` rows.
    ///
    /// # Errors
    /// The device's refusal.
    pub fn load(&mut self, rows: usize, header: BatchHeader, read: &mut ReadTokens) -> Done {
        self.executor.load(&self.batch, rows, header, read)
    }

    /// Prepares loss and gradients for a step. Returns how its first micro-step writes gradients.
    ///
    /// # Errors
    /// The device's refusal.
    pub fn begin(&self, state: &State) -> Result<GradientWrite, Refused> {
        self.reset(state)?;
        let frame = self.frame(state, self.span(0));
        self.executor.run(&self.program.begin, &frame)?;
        Ok(self.program.first_write)
    }

    /// Empties the loss so far.
    ///
    /// # Errors
    /// The device's refusal.
    pub fn reset(&self, state: &State) -> Done {
        let frame = self.frame(state, self.span(0));
        self.executor.run(&self.program.reset, &frame)
    }

    /// Computes everything up to and including the final norm for the first `sequences` of the micro-batch: all that
    /// [`Workspace::backward`] reads of them.
    ///
    /// # Errors
    /// The device's refusal.
    pub fn forward(
        &mut self,
        state: &State,
        sequences: usize,
        dropout: Option<DropoutSettings>,
    ) -> Done {
        self.recorded(
            sequences,
            |own| &mut own.forward,
            |own| {
                let frame = own.frame(state, own.span(sequences));
                own.executor
                    .run(&own.program.forward, &Frame { dropout, ..frame })
            },
        )
    }

    /// Adds the gradients of the sum of the losses times the batch's scale to those of the state, in the way of
    /// `write`, and the losses to the loss so far. Follows [`Workspace::forward`] with the same arguments.
    ///
    /// # Errors
    /// The device's refusal.
    ///
    /// # Panics
    /// If the program is for inference.
    pub fn backward(
        &mut self,
        state: &State,
        sequences: usize,
        dropout: Option<DropoutSettings>,
        write: GradientWrite,
    ) -> Done {
        self.recorded(
            sequences,
            |own| &mut own.backward,
            |own| {
                let frame = Frame {
                    dropout,
                    write,
                    ..own.frame(state, own.span(sequences))
                };
                let (executor, program) = (&own.executor, &own.program);
                for rows in program.chunks(frame.rows.clone()) {
                    let chunk = frame.chunk(rows);
                    executor.run(&program.head, &chunk)?;
                    executor.run(&program.chunk_gradients, &chunk)?;
                }
                executor.run(&program.backward, &frame)?;
                executor.run(&program.tally, &frame)
            },
        )
    }

    /// Computes the losses of the first `sequences` of the micro-batch, without dropout, and adds them to the loss so
    /// far.
    ///
    /// # Errors
    /// The device's refusal.
    pub fn evaluate(&mut self, state: &State, sequences: usize) -> Done {
        let frame = self.frame(state, self.span(sequences));
        let (executor, program) = (&self.executor, &self.program);
        executor.run(&program.forward, &frame)?;
        for rows in program.chunks(frame.rows.clone()) {
            let chunk = frame.chunk(rows);
            executor.run(&program.head, &chunk)?;
            executor.run(&program.chunk_losses, &chunk)?;
        }
        executor.run(&program.tally, &frame)
    }

    /// Computes the losses of the rows in `chunks` of a micro-batch of `span`, without dropout. `look` gets each chunk
    /// and the buffer that begins with its logits, (chunk, V).
    ///
    /// # Errors
    /// The device's refusal, and the errors of `look`.
    pub fn score(
        &mut self,
        state: &State,
        span: &Span,
        chunks: &[Range<usize>],
        mut look: Option<&mut LookAtLogits>,
    ) -> Done {
        let executor = self.executor.clone();
        executor.run(&self.program.forward, &self.frame(state, span.clone()))?;
        for rows in chunks {
            let chunk = self.frame(state, span.clone()).chunk(rows.clone());
            executor.run(&self.program.head, &chunk)?;
            if let Some(look) = &mut look {
                look(rows.clone(), &*self.values(self.program.logits.buffer))?;
            }
            let chunk = self.frame(state, span.clone()).chunk(rows.clone());
            executor.run(&self.program.chunk_losses, &chunk)?;
        }
        Ok(())
    }

    /// The sum of the losses of `rows`, in nats. Waits for the device.
    ///
    /// # Errors
    /// The device's refusal.
    pub fn sum_of_losses(&mut self, rows: Range<usize>) -> Result<f64, Refused> {
        let values = self.values(self.program.losses.buffer);
        let (mut piece, mut sum) = ([0.0; 1024], 0.0);
        for start in rows.clone().step_by(piece.len()) {
            let losses = &mut piece[..(rows.end - start).min(1024)];
            values.read(start, losses)?;
            sum += losses.iter().map(|&loss| f64::from(loss)).sum::<f64>();
        }
        Ok(sum)
    }

    /// The loss so far, in nats. Waits for the device.
    ///
    /// # Errors
    /// The device's refusal.
    pub fn loss(&self, state: &State) -> Result<f64, Refused> {
        self.executor.backend().loss(&state.numbers)
    }

    /// The logits (V) that follow `tokens`, at most a block of them. The first `known` tokens must be those of the call
    /// before, whose keys and values are still in the buffers if the program keeps them.
    ///
    /// # Errors
    /// The device's refusal.
    pub fn next_logits(
        &mut self,
        state: &State,
        tokens: &[u32],
        known: usize,
    ) -> Result<Vec<f32>, Refused> {
        let known = if self.program.keeps_keys { known } else { 0 };
        let new = &tokens[known..];
        self.load(new.len(), BatchHeader::default(), &mut |inputs, targets| {
            inputs[..new.len()].copy_from_slice(new);
            targets[..new.len()].fill(0);
            true
        })?;
        let span = Span {
            sequences: 1,
            positions: known..tokens.len(),
        };
        let frame = self.frame(state, span);
        let last = frame.chunk(tokens.len() - 1..tokens.len());
        self.executor.run(&self.program.forward, &frame)?;
        self.executor.run(&self.program.head, &last)?;
        let mut logits = vec![0.0; self.program.logits.columns];
        let BufferId(index) = self.program.logits.buffer;
        let buffer = &mut self.buffers[index - self.program.lasting().len()];
        let values = self.executor.backend().values(buffer);
        for range in chunks(0..logits.len()) {
            values.read(range.start, &mut logits[range])?;
        }
        Ok(logits)
    }

    /// The losses of the rows computed last, (R).
    pub fn losses(&self) -> &Buffer {
        self.buffer(self.program.losses.buffer)
    }

    /// The logits computed last: a chunk of them, (rung.logits_rows, V).
    pub fn logits(&self) -> &Buffer {
        self.buffer(self.program.logits.buffer)
    }

    fn values(&mut self, BufferId(index): BufferId) -> Box<dyn ValuesMut + '_> {
        let buffer = &mut self.buffers[index - self.program.lasting().len()];
        self.executor.backend().values(buffer)
    }

    fn buffer(&self, BufferId(index): BufferId) -> &Buffer {
        &self.buffers[index - self.program.lasting().len()]
    }

    fn span(&self, sequences: usize) -> Span {
        Span::whole(sequences, self.program.block_size)
    }

    fn frame<'a>(&'a self, state: &'a State, span: Span) -> Frame<'a> {
        Frame {
            state: &state.buffers,
            workspace: &self.buffers,
            gradients: state.gradients(),
            batch: &self.batch,
            numbers: &state.numbers,
            rows: span.rows(),
            span,
            dropout: None,
            write: GradientWrite::Accumulate,
        }
    }

    /// Does `work`, which is the same for every micro-batch of full size, recorded if it is of one.
    fn recorded(
        &mut self,
        sequences: usize,
        recording: impl Fn(&mut Self) -> &mut Recording,
        work: impl Fn(&Self) -> Done,
    ) -> Done {
        if sequences != self.program.rung.micro_batch {
            return work(self);
        }
        // Taken out, so that the work may look at the rest.
        let mut taken = std::mem::take(recording(self));
        let done = self.executor.record(&mut taken, &mut || work(self));
        *recording(self) = taken;
        done
    }
}
