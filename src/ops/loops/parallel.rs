//! Loops over blocks on several threads.

use rayon::prelude::*;

/// Rows of one block of work. Blocks depend on the number of rows alone, never on the threads.
pub const BLOCK_ROWS: usize = 32;

/// Calls `body(first_row, rows)` for every block of [`BLOCK_ROWS`] rows of `out` (R, columns), in parallel.
pub(in crate::ops) fn for_row_blocks<T: Send>(
    out: &mut [T],
    columns: usize,
    body: impl Fn(usize, &mut [T]) + Sync,
) {
    out.par_chunks_mut(BLOCK_ROWS * columns)
        .enumerate()
        .for_each(|(block, rows)| body(block * BLOCK_ROWS, rows));
}

/// Calls `body(first_row, rows of a, rows of b)` for every block of [`BLOCK_ROWS`] rows of two arrays,
/// `a` (R, a_columns) and `b` (R, b_columns), in parallel.
pub(in crate::ops) fn for_row_blocks2<T: Send, U: Send>(
    a: &mut [T],
    a_columns: usize,
    b: &mut [U],
    b_columns: usize,
    body: impl Fn(usize, &mut [T], &mut [U]) + Sync,
) {
    a.par_chunks_mut(BLOCK_ROWS * a_columns)
        .zip(b.par_chunks_mut(BLOCK_ROWS * b_columns))
        .enumerate()
        .for_each(|(block, (a, b))| body(block * BLOCK_ROWS, a, b));
}

/// Sets every element to zero, on all threads.
pub(in crate::ops) fn zero<T: super::Element>(x: &mut [T]) {
    for_element_blocks(x, |_, x| x.fill(T::ZERO));
}

/// Elements of one block of an element-wise pass.
const BLOCK_ELEMENTS: usize = 1 << 14;

/// Calls `body(offset, elements)` for every block of `out`, in parallel.
pub(in crate::ops) fn for_element_blocks<T: Send>(
    out: &mut [T],
    body: impl Fn(usize, &mut [T]) + Sync,
) {
    out.par_chunks_mut(BLOCK_ELEMENTS)
        .enumerate()
        .for_each(|(block, out)| body(block * BLOCK_ELEMENTS, out));
}

/// Sum of `partial(range)` over blocks of `len` elements, computed in parallel and added in block order.
pub(in crate::ops) fn sum_blocks(
    len: usize,
    partial: impl Fn(std::ops::Range<usize>) -> f64 + Sync,
) -> f64 {
    let blocks = len.div_ceil(BLOCK_ELEMENTS);
    // A fixed tree: rayon splits `blocks` by index, and the partial sums are added left to right.
    let sums: Vec<f64> = (0..blocks)
        .into_par_iter()
        .map(|block| {
            let start = block * BLOCK_ELEMENTS;
            partial(start..(start + BLOCK_ELEMENTS).min(len))
        })
        .collect();
    sums.iter().sum()
}

/// A pointer that threads share to write disjoint elements.
#[derive(Clone, Copy)]
pub(in crate::ops) struct SharedMut<T>(*mut T);

// SAFETY: a plain pointer; every dereference is at a site that states why its elements are written
// by one thread only.
unsafe impl<T: Send> Send for SharedMut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<T> {}

impl<T> SharedMut<T> {
    pub fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// Address of the element number `offset`.
    ///
    /// # Safety
    /// `offset` lies within the slice that this was made from.
    pub unsafe fn at(self, offset: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}
