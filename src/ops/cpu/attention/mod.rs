//! Causal self-attention over packed queries, keys and values.
//!
//! For every sequence and head, with scale = 1 / sqrt(D): `P = dropout(softmax(scale * Q K^T))`
//! over keys at or before the query, `out = P V`. Queries are taken in blocks, and a block reads
//! only the keys that it may see: no (T, T) matrix exists and the masked half is hardly computed.
//! The forward saves the log of each row's sum of exponentials, (B, H, T), from which the backward
//! recomputes the weights (Dao et al. 2022, FlashAttention, for the idea).

pub mod cached;
mod oracle;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::dropout::{Dropout, MaskRow};
use crate::ops::backend::{DropoutSite, Shape};
use crate::ops::gemm::cpu::{Matrix, MatrixMut, Output, Sequential};
use crate::ops::loops::Element;
use crate::ops::loops::element::{max, sum};
use crate::ops::loops::parallel::SharedMut;
use crate::ops::loops::vectorised::vectorised;

pub use oracle::attention_ref;

/// Queries of one block.
pub const QUERY_BLOCK: usize = 64;
/// Queries of one block of a long sequence: keys are packed half as often, and little more of the masked half is
/// computed.
const LONG_QUERY_BLOCK: usize = 128;
/// Fewest positions of a long sequence.
const LONG: usize = 512;

/// Dropout of the weights of one layer's attention.
#[derive(Clone, Copy, Debug)]
pub struct WeightDropout {
    pub dropout: Dropout,
    pub layer: usize,
}

impl Shape {
    fn columns(self) -> usize {
        self.heads * self.head_size
    }

    fn qkv_len(self) -> usize {
        self.sequences * self.positions * 3 * self.columns()
    }

    fn scale<T: Element>(self) -> T {
        T::of(1.0 / (self.head_size as f64).sqrt())
    }

    /// Elements of the scratch that [`forward`] and [`backward`] need on `threads` threads.
    pub fn scratch_len(self, threads: usize) -> usize {
        threads * self.thread_scratch_len()
    }

    fn query_block(self) -> usize {
        match self.positions {
            LONG.. => LONG_QUERY_BLOCK,
            _ => QUERY_BLOCK,
        }
    }

    /// Elements of one thread's scratch: two blocks of (queries, keys), for the weights and their gradients, and one
    /// value per query.
    fn thread_scratch_len(self) -> usize {
        self.query_block() * (2 * self.positions + 1)
    }
}

/// Scratch of one call, and its GEMM.
pub struct AttentionWorkspace<'a, T> {
    /// [`Shape::scratch_len`] elements.
    pub scratch: &'a mut [T],
    pub products: Sequential,
}

/// One (sequence, head) pair and the strided matrices that belong to it.
#[derive(Clone, Copy)]
struct Head {
    shape: Shape,
    sequence: usize,
    head: usize,
    products: Sequential,
}

impl Head {
    /// Head number `task` of `sequences * heads`.
    fn of(shape: Shape, task: usize, products: Sequential) -> Self {
        Self {
            shape,
            products,
            sequence: task / shape.heads,
            head: task % shape.heads,
        }
    }

    /// Offset in a (B, T, 3C) array of part 0 (queries), 1 (keys) or 2 (values) of `row`.
    fn packed_offset(self, part: usize, row: usize) -> usize {
        let columns = self.shape.columns();
        (self.sequence * self.shape.positions + row) * 3 * columns
            + part * columns
            + self.head * self.shape.head_size
    }

    /// Offset in a (B, T, C) array of this head's part of `row`.
    fn offset(self, row: usize) -> usize {
        (self.sequence * self.shape.positions + row) * self.shape.columns()
            + self.head * self.shape.head_size
    }

    /// Rows `from..to` of part `part` of a packed array: (to - from, D).
    fn packed<T>(self, qkv: &[T], part: usize, from: usize, to: usize) -> Matrix<'_, T> {
        let data = &qkv[self.packed_offset(part, from)..];
        let stride = 3 * self.shape.columns();
        Matrix::strided(data, to - from, self.shape.head_size, stride)
    }

    /// Rows `from..to` of a (B, T, C) array: (to - from, D).
    fn rows<T>(self, x: &[T], from: usize, to: usize) -> Matrix<'_, T> {
        let data = &x[self.offset(from)..];
        Matrix::strided(data, to - from, self.shape.head_size, self.shape.columns())
    }

    /// Computes `out = a b` into contiguous scratch.
    fn product<T: Element>(self, out: &mut [T], a: Matrix<T>, b: Matrix<T>) {
        let (rows, columns) = (a.rows(), b.columns());
        assert_eq!(out.len(), rows * columns);
        // SAFETY: `out` is exclusively borrowed and has rows * columns elements.
        let out = unsafe { MatrixMut::from_raw(out.as_mut_ptr(), rows, columns, columns) };
        self.products.gemm(out, Output::Replace, a, b);
    }

    /// Offset in a (B, H, T) array of `row`.
    fn lse_offset(self, row: usize) -> usize {
        (self.sequence * self.shape.heads + self.head) * self.shape.positions + row
    }

    /// Row of the dropout mask for the weights of query `row`.
    fn mask(self, layer: usize, row: usize) -> MaskRow {
        MaskRow {
            site: DropoutSite::Attention {
                layer,
                head: self.head,
            },
            sample: self.sequence,
            row,
            width: self.shape.positions,
        }
    }
}

/// Runs `body(head, scratch)` for every head, each thread with a scratch of its own.
fn for_heads<T: Element>(
    shape: Shape,
    workspace: AttentionWorkspace<T>,
    body: impl Fn(Head, &mut [T]) + Sync,
) {
    let AttentionWorkspace { scratch, products } = workspace;
    let tasks = shape.sequences * shape.heads;
    let next = AtomicUsize::new(0);
    scratch
        .par_chunks_mut(shape.thread_scratch_len())
        .for_each(|scratch| {
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= tasks {
                    return;
                }
                body(Head::of(shape, task, products), scratch);
            }
        });
}

/// Computes `out` (B, T, C) and `lse` (B, H, T) from `qkv` (B, T, 3C), for the queries in `queries`.
///
/// Training asks for all queries, generation for the new ones.
pub fn forward<T: Element>(
    qkv: &[T],
    out: &mut [T],
    lse: &mut [T],
    shape: Shape,
    queries: Range<usize>,
    dropout: Option<WeightDropout>,
    workspace: AttentionWorkspace<T>,
) {
    assert_eq!(qkv.len(), shape.qkv_len(), "packed queries, keys, values");
    assert_eq!(out.len() * 3, qkv.len(), "attention output");
    assert_eq!(
        lse.len() * shape.head_size,
        out.len(),
        "log-sum-exp of attention"
    );
    let (out, lse) = (SharedMut::new(out), SharedMut::new(lse));
    for_heads(shape, workspace, |head, scratch| {
        let block = shape.query_block();
        for from in queries.clone().step_by(block) {
            let to = (from + block).min(queries.end);
            forward_block(qkv, out, lse, head, from..to, dropout, scratch);
        }
    });
}

fn forward_block<T: Element>(
    qkv: &[T],
    out: SharedMut<T>,
    lse: SharedMut<T>,
    head: Head,
    queries: Range<usize>,
    dropout: Option<WeightDropout>,
    scratch: &mut [T],
) {
    let (from, to) = (queries.start, queries.end);
    let (shape, size) = (head.shape, head.shape.head_size);
    let (weights, rest) = scratch.split_at_mut((to - from) * to);
    head.product(
        weights,
        head.packed(qkv, 0, from, to),
        head.packed(qkv, 1, 0, to).t(),
    );
    let inverse_sums = &mut rest[..to - from];
    // SAFETY: the rows of this head and block are written by this task alone.
    let lse = unsafe { std::slice::from_raw_parts_mut(lse.at(head.lse_offset(from)), to - from) };
    weigh(weights, head, from, dropout, lse, inverse_sums);
    // SAFETY: the rows and columns of this head and block are written by this task alone.
    let block =
        unsafe { MatrixMut::from_raw(out.at(head.offset(from)), to - from, size, shape.columns()) };
    let weights = Matrix::new(weights, to - from, to);
    let values = head.packed(qkv, 2, 0, to);
    head.products.gemm(block, Output::Replace, weights, values);
    for (i, &inverse_sum) in inverse_sums.iter().enumerate() {
        // SAFETY: as above; `size` elements of one row.
        let row = unsafe { std::slice::from_raw_parts_mut(out.at(head.offset(from + i)), size) };
        row.iter_mut().for_each(|x| *x *= inverse_sum);
    }
}

vectorised! {
    /// Turns scores into weights for queries from number `first` on: after dropout, and before the division by
    /// their sums. `inverse_sums` are the inverses of these sums, `lse` the log-sum-exps of the scores.
    fn weigh<T: Element>(
        weights: &mut [T],
        head: Head,
        first: usize,
        dropout: Option<WeightDropout>,
        lse: &mut [T],
        inverse_sums: &mut [T],
    ) {
        let keys = weights.len() / lse.len();
        let rows = (first..).zip(weights.chunks_exact_mut(keys));
        for ((row, weights), (lse, inverse_sum)) in rows.zip(lse.iter_mut().zip(inverse_sums)) {
            let (max, total) = exponentials(weights, row + 1, head.shape.scale());
            *inverse_sum = T::ONE / total;
            *lse = max + total.ln();
            if let Some(WeightDropout { dropout, layer }) = dropout {
                dropout.for_strips(head.mask(layer, row), row + 1, |strip, factors: &[T]| {
                    multiply(&mut weights[strip], factors)
                });
            }
        }
    }
}

/// Turns the first `visible` scores of a row into `exp(scale * score - m)` with m their scaled
/// maximum, the rest into zero. Returns m and the sum.
#[inline(always)]
fn exponentials<T: Element>(row: &mut [T], visible: usize, scale: T) -> (T, T) {
    let (seen, hidden) = row.split_at_mut(visible);
    hidden.fill(T::ZERO);
    let top = max(seen) * scale;
    for x in seen.iter_mut() {
        *x = x.mul_add(scale, -top).exp();
    }
    (top, sum([seen], |[x]| x))
}

#[inline(always)]
fn multiply<T: Element>(x: &mut [T], factors: &[T]) {
    for (x, &factor) in x.iter_mut().zip(factors) {
        *x *= factor;
    }
}

/// Input and saved results of the forward.
#[derive(Clone, Copy)]
pub struct AttentionSavedSlices<'a, T> {
    pub qkv: &'a [T], // (B, T, 3C)
    pub out: &'a [T], // (B, T, C)
    pub lse: &'a [T], // (B, H, T)
}

/// Computes `dqkv` (B, T, 3C) from `dout` (B, T, C).
///
/// With P the weights before and P' after dropout: `dV = P'^T dO`, `dP' = dO V^T`,
/// `dS = P * (mask(dP') - rowsum(dO * O))`, `dQ = scale * dS K`, `dK = scale * dS^T Q`.
pub fn backward<T: Element>(
    dout: &[T],
    saved: AttentionSavedSlices<T>,
    dqkv: &mut [T],
    shape: Shape,
    dropout: Option<WeightDropout>,
    workspace: AttentionWorkspace<T>,
) {
    assert_eq!(
        saved.qkv.len(),
        shape.qkv_len(),
        "packed queries, keys, values"
    );
    assert_eq!(dqkv.len(), saved.qkv.len(), "gradient of qkv");
    assert_eq!(dout.len() * 3, saved.qkv.len(), "gradient of attention");
    let dqkv = SharedMut::new(dqkv);
    for_heads(shape, workspace, |head, scratch| {
        // From the last block to the first: see `backward_block`.
        let size = shape.query_block();
        for block in (0..shape.positions.div_ceil(size)).rev() {
            let from = block * size;
            let to = (from + size).min(shape.positions);
            backward_block(dout, saved, dqkv, head, from..to, dropout, scratch);
        }
    });
}

/// Computes dQ of `queries`, and their share of dK and dV. The last block sees every key: it initialises dK and dV,
/// and the others add to them.
fn backward_block<T: Element>(
    dout: &[T],
    saved: AttentionSavedSlices<T>,
    dqkv: SharedMut<T>,
    head: Head,
    queries: Range<usize>,
    dropout: Option<WeightDropout>,
    scratch: &mut [T],
) {
    let (from, to) = (queries.start, queries.end);
    let (weights, rest) = scratch.split_at_mut((to - from) * to);
    let dscores = &mut rest[..(to - from) * to];
    let (q, k) = (
        head.packed(saved.qkv, 0, from, to),
        head.packed(saved.qkv, 1, 0, to),
    );
    let v = head.packed(saved.qkv, 2, 0, to);
    let d = head.rows(dout, from, to);
    head.product(weights, q, k.t());
    head.product(dscores, d, v.t());
    differentiate(dout, saved, head, queries, dropout, weights, dscores);
    let weights = Matrix::new(weights, to - from, to);
    let dscores = Matrix::new(dscores, to - from, to);
    let gradient = |part, row, rows| {
        let offset = head.packed_offset(part, row);
        let stride = 3 * head.shape.columns();
        // SAFETY: the rows of this head in dQ, dK and dV are written by this task alone.
        unsafe { MatrixMut::from_raw(dqkv.at(offset), rows, head.shape.head_size, stride) }
    };
    let output = if to == head.shape.positions {
        Output::Replace
    } else {
        Output::Accumulate
    };
    let products = head.products;
    products.gemm(gradient(2, 0, to), output, weights.t(), d);
    products.gemm(gradient(1, 0, to), output, dscores.t(), q);
    products.gemm(gradient(0, from, to - from), Output::Replace, dscores, k);
}

vectorised! {
    /// Applies [`score_gradients`] to every query of `queries`.
    fn differentiate<T: Element>(
        dout: &[T],
        saved: AttentionSavedSlices<T>,
        head: Head,
        queries: Range<usize>,
        dropout: Option<WeightDropout>,
        weights: &mut [T],
        dscores: &mut [T],
    ) {
        let keys = queries.end;
        let rows = weights.chunks_exact_mut(keys).zip(dscores.chunks_exact_mut(keys));
        for (row, (weights, dscores)) in queries.zip(rows) {
            score_gradients(dout, saved, head, row, dropout, weights, dscores);
        }
    }
}

/// Turns the scores of one query into P', the weights after dropout, and its dP' into `scale * dS`.
#[inline(always)]
fn score_gradients<T: Element>(
    dout: &[T],
    saved: AttentionSavedSlices<T>,
    head: Head,
    row: usize,
    dropout: Option<WeightDropout>,
    weights: &mut [T],
    dscores: &mut [T],
) {
    let visible = row + 1;
    let size = head.shape.head_size;
    let scale: T = head.shape.scale();
    weights[visible..].fill(T::ZERO);
    dscores[visible..].fill(T::ZERO);
    let (weights, dscores) = (&mut weights[..visible], &mut dscores[..visible]);
    let lse = saved.lse[head.lse_offset(row)];
    let part = head.offset(row)..head.offset(row) + size;
    let row_dot = sum([&dout[part.clone()], &saved.out[part]], |[d, out]| d * out);
    for weight in weights.iter_mut() {
        *weight = weight.mul_add(scale, -lse).exp();
    }
    match dropout {
        None => {
            for (dscore, &weight) in dscores.iter_mut().zip(weights.iter()) {
                *dscore = weight * scale * (*dscore - row_dot);
            }
        }
        Some(WeightDropout { dropout, layer }) => {
            let mask = head.mask(layer, row);
            dropout.for_strips(mask, visible, |strip, factors: &[T]| {
                let (weights, dscores) = (&mut weights[strip.clone()], &mut dscores[strip]);
                for ((dscore, weight), &factor) in dscores.iter_mut().zip(weights).zip(factors) {
                    *dscore = *weight * scale * (*dscore * factor - row_dot);
                    *weight *= factor;
                }
            });
        }
    }
}
