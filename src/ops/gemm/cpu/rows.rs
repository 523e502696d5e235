//! GEMMs whose rows have the bits that each would have alone, for generation: a text must not depend on the texts beside it.
//!
//! The sum of an element is taken over K in eight running sums, whatever the tile and whoever computes it. Both operands of
//! [`dots`] are read along K, so nothing is packed: a few rows cost one pass over the weights.

use rayon::prelude::*;

use super::matrix::{Matrix, MatrixMut, TileShape};
use crate::ops::loops::Element;
use crate::ops::loops::vectorised::vectorised;

/// Running sums of one element.
const LANES: usize = 8;
/// Rows of a tile. With [`TILE_COLUMNS`] its running sums are 12 vectors of AVX2, which has 16.
const TILE_ROWS: usize = 4;
const TILE_COLUMNS: usize = 3;

/// Columns of C that one task computes.
const TASK_COLUMNS: usize = 24;
/// Elements of A that one task reads again for every few columns; as f32, half of a small L2.
const TASK_ELEMENTS: usize = 32 * 1024;

/// Computes `c (M, N) = x (M, K) w (N, K)^T + bias (N)` on all threads; without a bias it is empty.
pub(in crate::ops) fn multiply_rows<T: Element>(
    c: &mut [T],
    x: &[T],
    w: &[T],
    bias: &[T],
    depth: usize,
) {
    let (rows, columns) = (x.len() / depth, w.len() / depth);
    let (x, w) = (Matrix::new(x, rows, depth), Matrix::new(w, columns, depth));
    let shape = TileShape {
        rows: (TASK_ELEMENTS / depth)
            .next_multiple_of(TILE_ROWS)
            .max(TILE_ROWS),
        columns: TASK_COLUMNS,
    };
    MatrixMut::new(c, rows, columns)
        .into_tiles(shape)
        .for_each(|tile| {
            let bias = bias.get(tile.columns.clone()).unwrap_or_default();
            dots(tile.c, x.panel(tile.rows), w.panel(tile.columns), bias);
        });
}

/// Computes `c (M, N) = x (M, K) w (N, K)^T + bias (N)` on the calling thread; without a bias it is empty.
pub(in crate::ops) fn dots<T: Element>(
    mut c: MatrixMut<T>,
    x: Matrix<T>,
    w: Matrix<T>,
    bias: &[T],
) {
    assert_eq!(
        (x.rows(), x.columns(), w.rows()),
        (c.rows(), w.columns(), c.columns()),
        "shapes of a product: (M, K, N)"
    );
    assert!(bias.is_empty() || bias.len() == c.columns(), "bias");
    dots_in_tiles(&mut c, Rows::of(x), Rows::of(w), bias);
}

/// Computes `c (M, D) = weights (M, K) values (K, D)` on the calling thread, in the order of K.
pub(in crate::ops) fn mix<T: Element>(mut c: MatrixMut<T>, weights: Matrix<T>, values: Matrix<T>) {
    assert_eq!(
        (weights.rows(), weights.columns(), values.columns()),
        (c.rows(), values.rows(), c.columns()),
        "shapes of a product: (M, K, D)"
    );
    mix_in_tiles(&mut c, Rows::of(weights), Rows::of(values));
}

/// A matrix whose rows are slices.
#[derive(Clone, Copy)]
struct Rows<'a, T> {
    data: &'a [T],
    stride: usize,
    count: usize,
    len: usize,
}

impl<'a, T: Copy> Rows<'a, T> {
    fn of(matrix: Matrix<'a, T>) -> Self {
        let (data, stride, column_stride) = matrix.parts();
        assert_eq!(column_stride, 1, "rows that are slices");
        Self {
            data,
            stride,
            count: matrix.rows(),
            len: matrix.columns(),
        }
    }

    #[inline(always)]
    fn row(&self, index: usize) -> &'a [T] {
        &self.data[index * self.stride..][..self.len]
    }

    /// N rows from `first` on.
    #[inline(always)]
    fn rows<const N: usize>(&self, first: usize) -> [&'a [T]; N] {
        let mut rows = [&[][..]; N];
        for (index, row) in rows.iter_mut().enumerate() {
            *row = self.row(first + index);
        }
        rows
    }
}

vectorised! {
    fn dots_in_tiles<T: Element>(c: &mut MatrixMut<T>, x: Rows<T>, w: Rows<T>, bias: &[T]) {
        let mut column = 0;
        // Fewer rows wait for memory, which is fastest where the weights are read from end to end.
        while x.count >= TILE_ROWS && column + TILE_COLUMNS <= w.count {
            dots_of_columns::<T, TILE_COLUMNS>(c, x, w, bias, column);
            column += TILE_COLUMNS;
        }
        while column < w.count {
            dots_of_columns::<T, 1>(c, x, w, bias, column);
            column += 1;
        }
    }
}

#[inline(always)]
fn dots_of_columns<T: Element, const N: usize>(
    c: &mut MatrixMut<T>,
    x: Rows<T>,
    w: Rows<T>,
    bias: &[T],
    column: usize,
) {
    let mut row = 0;
    while row + TILE_ROWS <= x.count {
        dots_of_tile::<T, TILE_ROWS, N>(c, x, w, bias, row, column);
        row += TILE_ROWS;
    }
    while row < x.count {
        dots_of_tile::<T, 1, N>(c, x, w, bias, row, column);
        row += 1;
    }
}

#[inline(always)]
fn dots_of_tile<T: Element, const M: usize, const N: usize>(
    c: &mut MatrixMut<T>,
    x: Rows<T>,
    w: Rows<T>,
    bias: &[T],
    row: usize,
    column: usize,
) {
    let sums = sums_of_tile(x.rows::<M>(row), w.rows::<N>(column));
    for (i, sums) in sums.iter().enumerate() {
        let to = c.row_mut(row + i);
        for (j, &sum) in sums.iter().enumerate() {
            let at = column + j;
            to[at] = match bias.get(at) {
                Some(&bias) => sum + bias,
                None => sum,
            };
        }
    }
}

/// The dot products of every row of `x` with every row of `w`, which are of one length.
#[inline(always)]
fn sums_of_tile<T: Element, const M: usize, const N: usize>(
    x: [&[T]; M],
    w: [&[T]; N],
) -> [[T; N]; M] {
    let len = x[0].len();
    let chunks = len / LANES;
    let (x_chunks, w_chunks) = (
        x.map(|row| &row.as_chunks::<LANES>().0[..chunks]),
        w.map(|row| &row.as_chunks::<LANES>().0[..chunks]),
    );
    let mut lanes = [[[T::ZERO; LANES]; N]; M];
    for at in 0..chunks {
        let mut w = [[T::ZERO; LANES]; N];
        for (w, chunks) in w.iter_mut().zip(w_chunks) {
            // SAFETY: every row was cut to so many chunks. With a check here the sums would leave their registers.
            *w = unsafe { *chunks.get_unchecked(at) };
        }
        for i in 0..M {
            // SAFETY: as above.
            let x = unsafe { *x_chunks[i].get_unchecked(at) };
            for j in 0..N {
                for lane in 0..LANES {
                    lanes[i][j][lane] = x[lane].mul_add(w[j][lane], lanes[i][j][lane]);
                }
            }
        }
    }
    let mut sums = [[T::ZERO; N]; M];
    for i in 0..M {
        for j in 0..N {
            let mut sum = folded(lanes[i][j]);
            for at in chunks * LANES..len {
                sum = x[i][at].mul_add(w[j][at], sum);
            }
            sums[i][j] = sum;
        }
    }
    sums
}

#[inline(always)]
fn folded<T: Element>(mut lanes: [T; LANES]) -> T {
    for width in [4, 2, 1] {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
    }
    lanes[0]
}

vectorised! {
    fn mix_in_tiles<T: Element>(c: &mut MatrixMut<T>, weights: Rows<T>, values: Rows<T>) {
        let mut row = 0;
        while row + TILE_ROWS <= weights.count {
            let column = mix_of_rows::<T, TILE_ROWS, 16>(c, weights, values, row, 0);
            mix_of_rows::<T, TILE_ROWS, 1>(c, weights, values, row, column);
            row += TILE_ROWS;
        }
        while row < weights.count {
            let column = mix_of_rows::<T, 1, 64>(c, weights, values, row, 0);
            let column = mix_of_rows::<T, 1, 16>(c, weights, values, row, column);
            mix_of_rows::<T, 1, 1>(c, weights, values, row, column);
            row += 1;
        }
    }
}

/// Computes M rows of [`mix`] from `column` on, in strips of W columns, and returns the first column that is left.
#[inline(always)]
fn mix_of_rows<T: Element, const M: usize, const W: usize>(
    c: &mut MatrixMut<T>,
    weights: Rows<T>,
    values: Rows<T>,
    row: usize,
    mut column: usize,
) -> usize {
    let factors = weights.rows::<M>(row);
    while column + W <= values.len {
        let mut sums = [[T::ZERO; W]; M];
        for at in 0..values.count {
            let value = &values.row(at)[column..column + W];
            for i in 0..M {
                // SAFETY: a row of weights has one for every value.
                let factor = unsafe { *factors[i].get_unchecked(at) };
                for lane in 0..W {
                    sums[i][lane] = factor.mul_add(value[lane], sums[i][lane]);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            c.row_mut(row + i)[column..column + W].copy_from_slice(sums);
        }
        column += W;
    }
    column
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        let number = |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1000.0 - 1.0;
        (0..len).map(number).collect()
    }

    fn product(rows: usize, columns: usize, depth: usize) -> Vec<f32> {
        let (x, w) = (numbers(rows * depth, 1), numbers(columns * depth, 2));
        let (bias, mut c) = (numbers(columns, 3), vec![f32::NAN; rows * columns]);
        multiply_rows(&mut c, &x, &w, &bias, depth);
        for (index, c) in c.iter().enumerate() {
            let (row, column) = (index / columns, index % columns);
            let terms = (0..depth)
                .map(|at| f64::from(x[row * depth + at]) * f64::from(w[column * depth + at]));
            let want = terms.sum::<f64>() + f64::from(bias[column]);
            assert!((f64::from(*c) - want).abs() < 1e-4, "{index}: {c}, {want}");
        }
        c
    }

    #[test]
    fn a_row_has_the_bits_that_it_has_alone() {
        for (columns, depth) in [(1, 1), (7, 18), (50, 64), (31, 100)] {
            let alone = product(1, columns, depth);
            for rows in [2, 3, 4, 5, 16, 33] {
                let many = product(rows, columns, depth);
                assert_eq!(many[..columns], alone, "{rows} rows");
            }
        }
    }

    #[test]
    fn a_mix_has_the_bits_that_it_has_alone_and_zeros_add_nothing() {
        for (depth, columns) in [(1, 1), (5, 18), (40, 64), (9, 100)] {
            let values = numbers(depth * columns, 4);
            let mixed = |rows: usize, depth: usize| {
                // All rows have one row's weights; those behind `depth` are zero.
                let mut weights = numbers(depth, 5);
                weights.resize(values.len() / columns, 0.0);
                let weights = weights.repeat(rows);
                let mut c = vec![f32::NAN; rows * columns];
                let (k, to) = (
                    values.len() / columns,
                    MatrixMut::new(&mut c, rows, columns),
                );
                let values = Matrix::new(&values, k, columns);
                mix(to, Matrix::new(&weights, rows, k), values);
                c
            };
            let alone = mixed(1, depth);
            for (column, &got) in alone.iter().enumerate() {
                let weights = numbers(depth, 5);
                let terms = (0..depth)
                    .map(|at| f64::from(weights[at]) * f64::from(values[at * columns + column]));
                let want: f64 = terms.sum();
                assert!((f64::from(got) - want).abs() < 1e-4, "{column}: {got}");
            }
            for rows in [2, 4, 7] {
                assert_eq!(mixed(rows, depth)[..columns], alone, "{rows} rows");
            }
        }
    }
}
