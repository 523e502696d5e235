//! Strided views of matrices on the CPU, and the `gemm` crate called on them: `C = A B` or `C += A B`.
//!
//! With strides no transpose is ever copied, and gradients accumulate in place.

use std::any::TypeId;
use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use crate::ops::loops::Element;
use crate::ops::loops::vectorised::vectorised;

/// A matrix that is read: rows, columns, and the distance in elements between neighbours.
///
/// Element (r, c) is `data[r * row_stride + c * column_stride]`. That is in bounds for every r below `rows` and c
/// below `columns`.
#[derive(Clone, Copy)]
pub struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// A row-major (rows, columns) matrix at the start of `data`.
    pub fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// A matrix with `row_stride` elements from one row to the next.
    pub fn strided(data: &'a [T], rows: usize, columns: usize, row_stride: usize) -> Self {
        let extent = |rows: usize| {
            (rows - 1)
                .saturating_mul(row_stride)
                .saturating_add(columns)
        };
        assert!(
            rows == 0 || columns == 0 || extent(rows) <= data.len(),
            "a {rows} x {columns} matrix of stride {row_stride} does not fit in {} elements",
            data.len()
        );
        Self {
            data,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The rows of this range.
    pub fn panel(self, rows: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.rows);
        Self {
            // A panel without elements may begin behind the last one.
            data: self
                .data
                .get(rows.start * self.row_stride..)
                .unwrap_or_default(),
            rows: rows.len(),
            ..self
        }
    }

    /// The columns of this range.
    pub fn strip(self, columns: Range<usize>) -> Self {
        self.t().panel(columns).t()
    }

    /// The same matrix, if T is f32.
    pub(super) fn in_f32(self) -> Option<Matrix<'a, f32>>
    where
        T: 'static,
    {
        is_f32::<T>().then(|| Matrix {
            // SAFETY: T is f32, so this is the same slice.
            data: unsafe { std::slice::from_raw_parts(self.data.as_ptr().cast(), self.data.len()) },
            rows: self.rows,
            columns: self.columns,
            row_stride: self.row_stride,
            column_stride: self.column_stride,
        })
    }

    /// The elements, and the distances between rows and between columns.
    pub(super) fn parts(self) -> (&'a [T], usize, usize) {
        (self.data, self.row_stride, self.column_stride)
    }

    #[cfg(test)]
    pub(super) fn at(&self, row: usize, column: usize) -> T
    where
        T: Copy,
    {
        self.data[row * self.row_stride + column * self.column_stride]
    }

    /// The transpose; nothing is moved.
    pub fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

fn is_f32<T: 'static>() -> bool {
    TypeId::of::<T>() == TypeId::of::<f32>()
}

/// A row-major matrix that is written: what `&mut [T]` is to a slice.
///
/// Row r is the `columns` elements at `data + r * row_stride`. For `'a`, the elements of all rows are initialised,
/// valid for reads and writes, and accessed through this value alone. Rows do not overlap.
pub struct MatrixMut<'a, T> {
    data: *mut T,
    rows: usize,
    columns: usize,
    row_stride: usize,
    elements: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer stands for a `&mut [T]`, which may go to another thread if T may.
unsafe impl<T: Send> Send for MatrixMut<'_, T> {}
// SAFETY: a shared reference gives access to no element.
unsafe impl<T: Sync> Sync for MatrixMut<'_, T> {}

/// Rows and columns of the tiles that a matrix is cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TileShape {
    pub rows: usize,
    pub columns: usize,
}

/// A tile of a matrix, and which rows and columns of the matrix it is.
pub(super) struct Tile<'a, T> {
    pub rows: Range<usize>,
    pub columns: Range<usize>,
    pub c: MatrixMut<'a, T>,
}

impl<'a, T> MatrixMut<'a, T> {
    /// All of `data` as a row-major (rows, columns) matrix.
    pub(in crate::ops) fn new(data: &'a mut [T], rows: usize, columns: usize) -> Self {
        assert_eq!(rows.checked_mul(columns), Some(data.len()), "elements");
        // SAFETY: the rows follow each other in `data`, which is borrowed exclusively for `'a`.
        unsafe { Self::from_raw(data.as_mut_ptr(), rows, columns, columns) }
    }

    /// # Safety
    /// For `'a`, the `columns` elements at `data`, and those at each further `row_stride` for `rows` rows, are
    /// initialised, valid for reads and writes, and accessed through the returned value alone. They lie in one
    /// allocation. `row_stride` is at least `columns`.
    pub(in crate::ops) unsafe fn from_raw(
        data: *mut T,
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Self {
        debug_assert!(columns <= row_stride);
        Self {
            data,
            rows,
            columns,
            row_stride,
            elements: PhantomData,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// The same matrix, if T is f32.
    pub(super) fn in_f32(self) -> Option<MatrixMut<'a, f32>>
    where
        T: 'static,
    {
        is_f32::<T>().then_some(MatrixMut {
            data: self.data.cast(),
            rows: self.rows,
            columns: self.columns,
            row_stride: self.row_stride,
            elements: PhantomData,
        })
    }

    /// The elements of one row.
    #[inline(always)]
    pub(super) fn row_mut(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows);
        // SAFETY: one of its rows, as it is borrowed exclusively.
        unsafe {
            std::slice::from_raw_parts_mut(self.data.add(row * self.row_stride), self.columns)
        }
    }

    /// The first element, and the distance between rows in elements.
    pub(super) fn address(&mut self) -> (*mut T, usize) {
        (self.data, self.row_stride)
    }

    /// The part in these rows and columns. The matrix is borrowed until the part is done.
    pub(super) fn part(&mut self, rows: Range<usize>, columns: Range<usize>) -> MatrixMut<'_, T> {
        // SAFETY: the part borrows the matrix exclusively, so nothing else accesses its elements meanwhile.
        unsafe { self.alias(rows, columns) }
    }

    /// Tiles of this shape, smaller at the edges, row after row. They may be written on several threads at a time.
    pub(super) fn into_tiles(
        self,
        shape: TileShape,
    ) -> impl IndexedParallelIterator<Item = Tile<'a, T>>
    where
        T: Send + Sync,
    {
        let (height, width) = (shape.rows.max(1), shape.columns.max(1));
        let (down, across) = (self.rows.div_ceil(height), self.columns.div_ceil(width));
        (0..down * across).into_par_iter().map(move |index| {
            let (row, column) = (index / across * height, index % across * width);
            let rows = row..self.rows.min(row + height);
            let columns = column..self.columns.min(column + width);
            // SAFETY: the matrix was moved in here and has no other use. Tiles of two indices have no element in
            // common, and every index comes once: the iterator cannot be cloned, for the matrix cannot.
            let c = unsafe { self.alias(rows.clone(), columns.clone()) };
            Tile { rows, columns, c }
        })
    }

    /// # Safety
    /// For `'b`, the elements in these rows and columns are accessed through the returned value alone.
    unsafe fn alias<'b>(&self, rows: Range<usize>, columns: Range<usize>) -> MatrixMut<'b, T>
    where
        'a: 'b,
    {
        assert!(rows.start <= rows.end && rows.end <= self.rows);
        assert!(columns.start <= columns.end && columns.end <= self.columns);
        MatrixMut {
            // One without elements may begin behind the last one.
            data: self
                .data
                .wrapping_add(rows.start * self.row_stride + columns.start),
            rows: rows.len(),
            columns: columns.len(),
            row_stride: self.row_stride,
            elements: PhantomData,
        }
    }
}

vectorised! {
    /// Overwrites `to` with the first elements of every row of `from`, or accumulates them. Rows of `from` are
    /// `stride` apart.
    fn take_rows<T: Element>(to: &mut MatrixMut<T>, from: &[T], stride: usize, output: Output) {
        for (row, from) in from.chunks_exact(stride).take(to.rows).enumerate() {
            // SAFETY: one of its rows, as it is borrowed exclusively.
            let to = unsafe {
                std::slice::from_raw_parts_mut(to.data.add(row * to.row_stride), to.columns)
            };
            match output {
                Output::Replace => to.copy_from_slice(&from[..to.len()]),
                Output::Accumulate => to.iter_mut().zip(from).for_each(|(to, &from)| *to += from),
            }
        }
    }
}

impl<T: Element> MatrixMut<'_, T> {
    /// Overwrites the matrix with the first elements of every row of `from`, or accumulates them. Rows of `from` are
    /// `stride` apart.
    pub(super) fn take(&mut self, from: &[T], stride: usize, output: Output) {
        take_rows(self, from, stride, output);
    }
}

/// Whether a GEMM overwrites its output or accumulates into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Replace,
    Accumulate,
}

/// `c (M, N) = a (M, K) b (K, N)`, or `+=`, on the calling thread alone.
pub(super) fn gemm_sequential<T: Element>(
    c: MatrixMut<T>,
    output: Output,
    a: Matrix<T>,
    b: Matrix<T>,
) {
    call(c, output, a, b, ::gemm::Parallelism::None);
}

/// `c (M, N) = a (M, K) b (K, N)`, or `+=`.
pub fn call<T: Element>(
    c: MatrixMut<T>,
    output: Output,
    a: Matrix<T>,
    b: Matrix<T>,
    parallelism: ::gemm::Parallelism,
) {
    assert_eq!(
        (a.rows, a.columns, b.columns),
        (c.rows, b.rows, c.columns),
        "shapes of a product: (M, K, N)"
    );
    // SAFETY: the shapes agree, and every element of the three views is in bounds of what they borrow. `c` overlaps
    // neither operand because it is borrowed exclusively.
    unsafe {
        ::gemm::gemm(
            c.rows,
            c.columns,
            a.columns,
            c.data,
            1,
            c.row_stride as isize,
            output == Output::Accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            parallelism,
        );
    }
}
