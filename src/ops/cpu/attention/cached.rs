//! Causal self-attention of new rows over cached keys and values.
//!
//! A cache has slots, each with room for the T positions of one sequence: (slots, 2, H, T, D), keys before values. The
//! place of a row is `slot * T + position`. Rows of one call may be of several slots and any positions. The result of a
//! row has the same bits whatever rows are computed with it.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::exponentials;
use crate::ops::backend::Shape;
use crate::ops::gemm::cpu::{Matrix, MatrixMut, dots, mix};
use crate::ops::loops::Element;
use crate::ops::loops::parallel::SharedMut;
use crate::ops::loops::vectorised::vectorised;

/// Rows of one task: keys and values are read once for them, if they are of one slot.
const TASK_ROWS: usize = 8;

/// Elements of the scratch of [`forward`] on `threads` threads, for positions up to `positions`.
pub fn scratch_len(positions: usize, threads: usize) -> usize {
    threads * TASK_ROWS * positions
}

/// Elements of a slot before the keys (`part` 0) or values (1) of a head.
fn offset(shape: Shape, place: usize, part: usize, head: usize) -> usize {
    let slot = place / shape.positions;
    ((2 * slot + part) * shape.heads + head) * shape.positions * shape.head_size
}

/// The keys (`part` 0) or values (1) of one place and head.
fn of_place(shape: Shape, place: usize, part: usize, head: usize) -> Range<usize> {
    let position = place % shape.positions;
    let start = offset(shape, place, part, head) + position * shape.head_size;
    start..start + shape.head_size
}

/// Copies the keys and values of `qkv` (R, 3C) into the cache, at the places of the rows.
pub fn store<T: Element>(qkv: &[T], places: &[u32], cache: &mut [T], shape: Shape) {
    let columns = shape.heads * shape.head_size;
    for (row, &place) in qkv.chunks_exact(3 * columns).zip(places) {
        for part in 0..2 {
            let row = &row[(1 + part) * columns..][..columns];
            for (head, from) in row.chunks_exact(shape.head_size).enumerate() {
                cache[of_place(shape, place as usize, part, head)].copy_from_slice(from);
            }
        }
    }
}

/// Copies keys and values from places to places of the cache.
pub fn copy<T: Element>(cache: &mut [T], from: &[u32], to: &[u32], shape: Shape) {
    for (&from, &to) in from.iter().zip(to) {
        for part in 0..2 {
            for head in 0..shape.heads {
                let from = of_place(shape, from as usize, part, head);
                let to = of_place(shape, to as usize, part, head);
                cache.copy_within(from, to.start);
            }
        }
    }
}

/// Computes `out` (R, C) from the queries of `qkv` (R, 3C) at `places` (R) and the cache, which has the keys and values of
/// every position up to theirs. `scratch` has [`scratch_len`] elements.
pub fn forward<T: Element>(
    qkv: &[T],
    places: &[u32],
    cache: &[T],
    out: &mut [T],
    shape: Shape,
    scratch: &mut [T],
) {
    assert_eq!(out.len() * 3, qkv.len(), "attention output");
    let columns = shape.heads * shape.head_size;
    assert_eq!(out.len(), places.len() * columns, "places of the rows");
    let blocks = places.len().div_ceil(TASK_ROWS);
    let (out, next) = (SharedMut::new(out), AtomicUsize::new(0));
    scratch
        .par_chunks_mut(TASK_ROWS * shape.positions)
        .for_each(|scratch| {
            loop {
                let task = next.fetch_add(1, Ordering::Relaxed);
                if task >= blocks * shape.heads {
                    return;
                }
                let (head, first) = (task / blocks, task % blocks * TASK_ROWS);
                let last = (first + TASK_ROWS).min(places.len());
                for rows in runs(places, first..last, shape.positions) {
                    attend(qkv, places, cache, out, (shape, head), rows, scratch);
                }
            }
        });
}

/// Cuts `rows` where the slot changes or a position does not follow the one before it.
fn runs(
    places: &[u32],
    rows: Range<usize>,
    positions: usize,
) -> impl Iterator<Item = Range<usize>> {
    let mut start = rows.start;
    std::iter::from_fn(move || {
        if start == rows.end {
            return None;
        }
        let follows = |&row: &usize| {
            let place = places[row] as usize;
            place == places[row - 1] as usize + 1 && !place.is_multiple_of(positions)
        };
        let end = start + 1 + (start + 1..rows.end).take_while(follows).count();
        Some(std::mem::replace(&mut start, end)..end)
    })
}

/// Computes one head of rows that follow each other in one slot.
fn attend<T: Element>(
    qkv: &[T],
    places: &[u32],
    cache: &[T],
    out: SharedMut<T>,
    (shape, head): (Shape, usize),
    rows: Range<usize>,
    scratch: &mut [T],
) {
    let (size, columns) = (shape.head_size, shape.heads * shape.head_size);
    let first = places[rows.start] as usize;
    let seen = first % shape.positions + rows.len();
    let part = |part| Matrix::new(&cache[offset(shape, first, part, head)..], seen, size);
    let (scores, inverse_sums) = (&mut scratch[..rows.len() * seen], &mut [T::ZERO; TASK_ROWS]);
    let queries = &qkv[rows.start * 3 * columns + head * size..];
    let queries = Matrix::strided(queries, rows.len(), size, 3 * columns);
    dots(
        MatrixMut::new(scores, rows.len(), seen),
        queries,
        part(0),
        &[],
    );
    weigh(scores, seen, shape.scale(), inverse_sums);
    // SAFETY: this head of these rows is written by this task alone.
    let to = unsafe {
        MatrixMut::from_raw(
            out.at(rows.start * columns + head * size),
            rows.len(),
            size,
            columns,
        )
    };
    mix(to, Matrix::new(scores, rows.len(), seen), part(1));
    for (row, &mut inverse_sum) in rows.zip(inverse_sums) {
        // SAFETY: as above; `size` elements of one row.
        let row =
            unsafe { std::slice::from_raw_parts_mut(out.at(row * columns + head * size), size) };
        row.iter_mut().for_each(|x| *x *= inverse_sum);
    }
}

vectorised! {
    /// Turns the scores (R, seen) of rows that follow each other, the last of which sees all, into weights before the
    /// division by their sums, whose inverses go to `inverse_sums`.
    fn weigh<T: Element>(scores: &mut [T], seen: usize, scale: T, inverse_sums: &mut [T]) {
        let first = seen + 1 - scores.len() / seen;
        let rows = scores.chunks_exact_mut(seen).zip(inverse_sums);
        for (index, (row, inverse_sum)) in rows.enumerate() {
            let (_, total) = exponentials(row, first + index, scale);
            *inverse_sum = T::ONE / total;
        }
    }
}
