//! The linear layer: `y = x weight^T + bias`, with the weight (out, in) as PyTorch keeps it.

use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

use super::Element;
use super::gemm::{Matrix, Output, gemm};
use super::parallel::{BLOCK_ROWS, for_row_blocks};
use super::vectorised::vectorised;

/// `x` is (R, in), `weight` (out, in), `bias` (out), `y` (R, out).
pub fn forward<T: Element>(x: &[T], weight: &[T], bias: Option<&[T]>, y: &mut [T], inputs: usize) {
    let outputs = weight.len() / inputs;
    let rows = x.len() / inputs;
    let output = match bias {
        Some(bias) => {
            for_row_blocks(y, outputs, |_, rows| {
                for row in rows.chunks_exact_mut(outputs) {
                    row.copy_from_slice(bias);
                }
            });
            Output::Accumulate
        }
        None => Output::Replace,
    };
    let x = Matrix::new(x, rows, inputs);
    gemm(y, output, x, Matrix::new(weight, outputs, inputs).t());
}

/// `dx (R, in) = dy weight`.
pub fn backward_input<T: Element>(dy: &[T], weight: &[T], dx: &mut [T], inputs: usize) {
    let outputs = weight.len() / inputs;
    let dy = Matrix::new(dy, dy.len() / outputs, outputs);
    gemm(
        dx,
        Output::Replace,
        dy,
        Matrix::new(weight, outputs, inputs),
    );
}

/// `dweight (out, in) += dy^T x` and `dbias (out) += sum over rows of dy`.
pub fn backward_weight<T: Element>(
    dy: &[T],
    x: &[T],
    dweight: &mut [T],
    dbias: Option<&mut [T]>,
    inputs: usize,
) {
    let outputs = dweight.len() / inputs;
    let rows = x.len() / inputs;
    let transposed = Matrix::new(dy, rows, outputs).t();
    gemm(
        dweight,
        Output::Accumulate,
        transposed,
        Matrix::new(x, rows, inputs),
    );
    if let Some(dbias) = dbias {
        add_column_sums(dy, dbias);
    }
}

/// Columns that one task of [`add_column_sums`] keeps in registers and cache.
const COLUMN_BLOCK: usize = 64;

/// `total (N) += sum over rows of x (R, N)`, block of rows by block of rows to keep f32 sums exact.
fn add_column_sums<T: Element>(x: &[T], total: &mut [T]) {
    let columns = total.len();
    total
        .par_chunks_mut(COLUMN_BLOCK)
        .enumerate()
        .for_each(|(block, total)| column_sums(x, columns, block * COLUMN_BLOCK, total));
}

vectorised! {
    fn column_sums<T: Element>(x: &[T], columns: usize, start: usize, total: &mut [T]) {
        for rows in x.chunks(BLOCK_ROWS * columns) {
            let mut sums = [T::ZERO; COLUMN_BLOCK];
            for row in rows.chunks_exact(columns) {
                let row = &row[start..start + total.len()];
                for (sum, &value) in sums.iter_mut().zip(row) {
                    *sum += value;
                }
            }
            for (total, &sum) in total.iter_mut().zip(&sums) {
                *total += sum;
            }
        }
    }
}

/// The oracle. `x` is (..., in).
pub fn linear_ref(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    let inputs = x.dim(D::Minus1)?;
    let flat = x.reshape(((), inputs))?.matmul(&weight.t()?)?;
    if let Some(last) = shape.last_mut() {
        *last = weight.dim(0)?;
    }
    let y = flat.reshape(shape)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}
