//! Matrix products over strided views: `C = A B` or `C += A B`.
//!
//! On the CPU this is the `gemm` crate called directly, with strides, so that no transpose is ever
//! copied and gradients accumulate in place.

use super::Element;

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

impl<T> MatrixMut<T> {
    /// # Safety
    /// Until the product that writes it has returned, the `columns` elements at `data`, and those
    /// at each further `row_stride` for `rows` rows, are valid and touched by nothing else.
    pub(super) unsafe fn from_raw(
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
}

/// Whether a product replaces what its output holds or is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Replace,
    Accumulate,
}

/// `c (M, N) = a (M, K) b (K, N)`, or `+=`, on all threads of the current pool. `c` is row-major.
pub fn gemm<T: Element>(c: &mut [T], output: Output, a: Matrix<T>, b: Matrix<T>) {
    assert_eq!(c.len(), a.rows * b.columns, "output of a product");
    // SAFETY: `c` is borrowed mutably for the call and has exactly rows * columns elements.
    let c = unsafe { MatrixMut::from_raw(c.as_mut_ptr(), a.rows, b.columns, b.columns) };
    call(c, output, a, b, ::gemm::Parallelism::Rayon(0));
}

/// As [`gemm`], on the calling thread alone, into a strided output.
pub(super) fn gemm_sequential<T: Element>(
    c: MatrixMut<T>,
    output: Output,
    a: Matrix<T>,
    b: Matrix<T>,
) {
    call(c, output, a, b, ::gemm::Parallelism::None);
}

fn call<T: Element>(
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
