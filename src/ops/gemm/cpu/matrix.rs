//! Strided views of matrices on the CPU, and the `gemm` crate called on them: `C = A B` or `C += A B`.
//!
//! With strides no transpose is ever copied, and gradients accumulate in place.

use candle_core::DType;

use crate::ops::cpu::Element;
use crate::ops::cpu::vectorised::vectorised;

/// A matrix that is read: rows, columns, and the distance in elements between neighbours.
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

    /// As `new`, with `row_stride` elements from one row to the next.
    pub fn strided(data: &'a [T], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(
            rows == 0 || columns == 0 || (rows - 1) * row_stride + columns <= data.len(),
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

    /// `rows` rows from `first` on.
    pub fn panel(self, first: usize, rows: usize) -> Self {
        Self {
            data: &self.data[first * self.row_stride..],
            rows,
            ..self
        }
    }

    /// `columns` columns from `first` on.
    pub fn strip(self, first: usize, columns: usize) -> Self {
        self.t().panel(first, columns).t()
    }

    /// The same matrix, if T is f32.
    pub(super) fn in_f32(self) -> Option<Matrix<'a, f32>>
    where
        T: Element,
    {
        (T::DTYPE == DType::F32).then(|| Matrix {
            // SAFETY: that type is f32's alone.
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

/// A row-major matrix that is written.
pub struct MatrixMut<T> {
    data: *mut T,
    rows: usize,
    columns: usize,
    row_stride: usize,
}

// SAFETY: a pointer; who writes to parts of the matrix on several threads does so to disjoint ones.
unsafe impl<T: Send> Send for MatrixMut<T> {}
unsafe impl<T: Send> Sync for MatrixMut<T> {}

impl<T> MatrixMut<T> {
    /// # Safety
    /// Until the product that writes it has returned, the `columns` elements at `data`, and those
    /// at each further `row_stride` for `rows` rows, are valid and touched by nothing else.
    pub(in crate::ops) unsafe fn from_raw(
        data: *mut T,
        rows: usize,
        columns: usize,
        row_stride: usize,
    ) -> Self {
        Self {
            data,
            rows,
            columns,
            row_stride,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// The same matrix, if T is f32.
    pub(super) fn in_f32(self) -> Option<MatrixMut<f32>>
    where
        T: Element,
    {
        (T::DTYPE == DType::F32).then_some(MatrixMut {
            data: self.data.cast(),
            rows: self.rows,
            columns: self.columns,
            row_stride: self.row_stride,
        })
    }

    /// Where it begins, and the distance between rows.
    pub(super) fn address(&self) -> (*mut T, usize) {
        (self.data, self.row_stride)
    }

    /// So many rows and columns of it, from these on. The whole is not to be written before the part is done.
    pub(super) fn part(&self, row: usize, rows: usize, column: usize, columns: usize) -> Self {
        assert!(row + rows <= self.rows && column + columns <= self.columns);
        Self {
            // SAFETY: within the matrix.
            data: unsafe { self.data.add(row * self.row_stride + column) },
            rows,
            columns,
            row_stride: self.row_stride,
        }
    }
}

vectorised! {
    /// Sets `to` to the first elements of every row of `from`, or adds them. Rows of `from` are `stride` apart.
    fn take_rows<T: Element>(to: &MatrixMut<T>, from: &[T], stride: usize, output: Output) {
        for (row, from) in from.chunks_exact(stride).take(to.rows).enumerate() {
            // SAFETY: a row of the matrix, which is this value's alone.
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

impl<T: Element> MatrixMut<T> {
    /// Takes the first elements of every row of `from`, which are `stride` apart.
    pub(super) fn take(&self, from: &[T], stride: usize, output: Output) {
        take_rows(self, from, stride, output);
    }
}

/// Whether a product replaces what its output holds or is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Replace,
    Accumulate,
}

/// `c (M, N) = a (M, K) b (K, N)`, or `+=`, on the calling thread alone.
pub(in crate::ops) fn gemm_sequential<T: Element>(
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
    // SAFETY: the views hold valid extents (checked by `Matrix::strided`, promised for
    // `MatrixMut`), and `c` overlaps neither operand because it is exclusively borrowed.
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
