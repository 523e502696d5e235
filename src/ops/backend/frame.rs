//! All that operations of one run have in common.

use std::ops::Range;

use super::{Buffer, BufferId, DropoutSettings, DropoutSite, GradientWrite, Matrix, Shape, Span};
use crate::ops::backend::op::attention_shape;

/// The buffers and the rows of one run of some operations.
#[derive(Clone)]
pub struct Frame<'a> {
    /// Buffers that last from step to step, in the program's order; weights come first.
    pub state: &'a [Buffer],
    /// The buffers of a rung, in the program's order behind the state.
    pub workspace: &'a [Buffer],
    /// Place of the gradients in the state.
    pub gradients: Option<BufferId>,
    /// The micro-batch, from [`Backend::batch`](super::Backend::batch).
    pub batch: &'a Buffer,
    /// The loss so far, from [`Backend::numbers`](super::Backend::numbers).
    pub numbers: &'a Buffer,
    pub span: Span,
    /// The rows that are computed: those of the span, or a chunk of them.
    pub rows: Range<usize>,
    /// `None` to drop nothing.
    pub dropout: Option<DropoutSettings>,
    pub write: GradientWrite,
    /// Whether a CPU computes every row with the bits that it has alone, whatever rows there are beside it.
    pub rows_alone: bool,
}

impl<'a> Frame<'a> {
    pub fn buffer(&self, id: BufferId) -> &'a Buffer {
        match id.0.checked_sub(self.state.len()) {
            Some(index) => &self.workspace[index],
            None => &self.state[id.0],
        }
    }

    /// A part of the rows. Behind the first part, gradients are added to.
    pub fn chunk(&self, rows: Range<usize>) -> Self {
        let write = if rows.start == self.rows.start {
            self.write
        } else {
            GradientWrite::Accumulate
        };
        Self {
            rows,
            write,
            ..self.clone()
        }
    }

    pub fn weights(&self) -> &'a Buffer {
        &self.state[0]
    }

    /// # Panics
    /// If the program has no gradients: a defect of the caller.
    pub fn gradients(&self) -> &'a Buffer {
        match self.gradients {
            Some(id) => self.buffer(id),
            None => unreachable!("a program for inference was asked for gradients"),
        }
    }

    /// Elements of a matrix that belong to the rows that are computed.
    pub fn range(&self, matrix: Matrix) -> Range<usize> {
        let Range { start, end } = self.rows;
        let columns = matrix.columns;
        if matrix.is_chunk {
            0..(end - start) * columns
        } else {
            start * columns..end * columns
        }
    }

    /// Elements of a matrix from the first position to the last that is computed: what attention sees.
    pub fn seen(&self, matrix: Matrix) -> Range<usize> {
        0..self.rows.end * matrix.columns
    }

    pub fn attention_shape(&self, heads: usize, out: &Matrix) -> Shape {
        attention_shape(heads, out, &self.span)
    }

    /// Rows of one sample that are computed.
    pub fn positions(&self) -> usize {
        self.span.positions.len()
    }

    /// The dropout at `site`, in a run with dropout.
    pub fn mask(&self, site: DropoutSite) -> Option<Mask> {
        self.dropout.map(|settings| Mask { settings, site })
    }
}

/// The dropout at one site.
#[derive(Clone, Copy, Debug)]
pub struct Mask {
    pub settings: DropoutSettings,
    pub site: DropoutSite,
}
