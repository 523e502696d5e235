//! Matrix products over strided views: `C = A B` or `C += A B`.
//!
//! On the CPU this is the `gemm` crate called directly, with strides, so that no transpose is ever
//! copied and gradients accumulate in place.

use crate::ops::Element;

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
    fn panel(self, first: usize, rows: usize) -> Self {
        Self {
            data: &self.data[first * self.row_stride..],
            rows,
            ..self
        }
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
}

/// Whether a product replaces what its output holds or is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Replace,
    Accumulate,
}

/// The `gemm` crate packs `a` at once, up to this many of its columns at a time.
const PACKED_COLUMNS: usize = 512;

/// Rows of `a` are given to it in panels of about this size, so that what it packs stays in the
/// cache and is known: for the gradient of GPT-2's embedding it would be 100 MiB.
const PANEL_BYTES: usize = 8 << 20;

/// Rows of a panel of (M, K) elements of `element_bytes`: a multiple of every kernel's tile.
fn panel_rows(k: usize, element_bytes: usize) -> usize {
    let row_bytes = k.clamp(1, PACKED_COLUMNS) * element_bytes;
    (PANEL_BYTES / row_bytes).next_multiple_of(192)
}

/// What a product of (M, K) and (K, N) packs, in bytes.
pub fn packed_bytes(m: usize, k: usize, element_bytes: usize) -> usize {
    m.min(panel_rows(k, element_bytes)) * k.min(PACKED_COLUMNS) * element_bytes
}

/// `c (M, N) = a (M, K) b (K, N)`, or `+=`, on all threads of the current pool. `c` is row-major.
pub fn gemm<T: Element>(c: &mut [T], output: Output, a: Matrix<T>, b: Matrix<T>) {
    assert_eq!(c.len(), a.rows * b.columns, "output of a product");
    let panel = panel_rows(a.columns, size_of::<T>());
    for (index, c) in c.chunks_mut(panel * b.columns.max(1)).enumerate() {
        let rows = c.len() / b.columns;
        let a = a.panel(index * panel, rows);
        // SAFETY: `c` is borrowed mutably for the call and has exactly rows * columns elements.
        let c = unsafe { MatrixMut::from_raw(c.as_mut_ptr(), rows, b.columns, b.columns) };
        call(c, output, a, b, ::gemm::Parallelism::Rayon(0));
    }
}

/// As [`gemm`], on the calling thread alone, into a strided output.
pub(in crate::ops) fn gemm_sequential<T: Element>(
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
