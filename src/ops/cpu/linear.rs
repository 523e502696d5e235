//! The linear layer: `y = x weight^T + bias`, with the weight (out, in) as PyTorch keeps it.

use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

use super::zero_if_overwritten;
use crate::ops::backend::GradientWrite;
use crate::ops::gemm::cpu::{Aux, Operands, multiply_rows};
use crate::ops::gemm::{Epilogue, Problem, Products};
use crate::ops::loops::parallel::BLOCK_ROWS;
use crate::ops::loops::vectorised::vectorised;
use crate::ops::loops::{Element, gelu};
use crate::terms::Gelu;

/// Computes `y` (R, out) from `x` (R, in), `weight` (out, in) and `bias` (out).
pub fn forward<T: Element>(
    products: &Products<T>,
    x: &[T],
    weight: &[T],
    bias: Option<&[T]>,
    y: &mut [T],
    inputs: usize,
) {
    let epilogue = match bias {
        Some(_) => Epilogue::Bias,
        None => Epilogue::None,
    };
    let operands = Operands {
        bias: bias.unwrap_or_default(),
        ..Operands::new(x, weight, y)
    };
    products.compute(
        forward_problem(products, x, weight, inputs, epilogue),
        operands,
    );
}

/// Computes what [`forward`] does, each row with the bits that it has alone.
pub fn forward_rows<T: Element>(
    x: &[T],
    weight: &[T],
    bias: Option<&[T]>,
    y: &mut [T],
    inputs: usize,
) {
    multiply_rows(y, x, weight, bias.unwrap_or_default(), inputs);
}

/// Results of a linear layer with GELU, (R, out) each.
pub struct GeluOutputs<'a, T> {
    /// The layer's output, before GELU.
    pub y: &'a mut [T],
    pub activated: &'a mut [T],
}

/// Computes a linear layer, as [`forward`] does, and GELU of its output.
pub fn forward_gelu<T: Element>(
    products: &Products<T>,
    form: Gelu,
    x: &[T],
    weight: &[T],
    bias: Option<&[T]>,
    GeluOutputs { y, activated }: GeluOutputs<T>,
    inputs: usize,
) {
    let Some(bias) = bias else {
        forward(products, x, weight, None, y, inputs);
        return gelu::forward(form, y, activated);
    };
    let problem = forward_problem(products, x, weight, inputs, Epilogue::BiasGelu(form));
    let operands = Operands {
        bias,
        aux: Aux::Written(y),
        ..Operands::new(x, weight, activated)
    };
    products.compute(problem, operands);
}

fn forward_problem<T: Element>(
    products: &Products<T>,
    x: &[T],
    weight: &[T],
    inputs: usize,
    epilogue: Epilogue,
) -> Problem {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    Problem::forward(rows, outputs, inputs, products.inputs(), epilogue)
}

/// Computes `dx (R, in) = dy weight`.
pub fn backward_input<T: Element>(
    products: &Products<T>,
    dy: &[T],
    weight: &[T],
    dx: &mut [T],
    inputs: usize,
) {
    let problem = input_problem(products, dy, weight, inputs, Epilogue::None);
    products.compute(problem, Operands::new(dy, weight, dx));
}

/// Computes the gradient of an input that was GELU of `x` (R, in): `dx (R, in) = dy weight * gelu'(x)`.
pub fn backward_gelu_input<T: Element>(
    products: &Products<T>,
    form: Gelu,
    dy: &[T],
    weight: &[T],
    x: &[T],
    dx: &mut [T],
    inputs: usize,
) {
    let problem = input_problem(products, dy, weight, inputs, Epilogue::GeluBackward(form));
    let operands = Operands {
        aux: Aux::Read(x),
        ..Operands::new(dy, weight, dx)
    };
    products.compute(problem, operands);
}

fn input_problem<T: Element>(
    products: &Products<T>,
    dy: &[T],
    weight: &[T],
    inputs: usize,
    epilogue: Epilogue,
) -> Problem {
    let outputs = weight.len() / inputs;
    let rows = dy.len() / outputs;
    Problem::input_gradient(rows, outputs, inputs, products.inputs(), epilogue)
}

/// Computes `dweight (out, in) += dy^T x` and `dbias (out) += sum over rows of dy`, or `=`, by `write`.
pub fn backward_weight<T: Element>(
    products: &Products<T>,
    dy: &[T],
    x: &[T],
    dweight: &mut [T],
    dbias: Option<&mut [T]>,
    write: GradientWrite,
    inputs: usize,
) {
    let (rows, outputs) = (x.len() / inputs, dweight.len() / inputs);
    let problem = Problem::weight_gradient(rows, outputs, inputs, products.inputs());
    let operands = Operands {
        c_is_empty: write == GradientWrite::Overwrite,
        ..Operands::new(dy, x, dweight)
    };
    products.compute(problem, operands);
    if let Some(dbias) = dbias {
        zero_if_overwritten(dbias, write);
        add_column_sums(dy, dbias);
    }
}

/// Columns that one task of [`add_column_sums`] keeps in registers and cache.
const COLUMN_BLOCK: usize = 64;

/// Computes `total (N) += sum over rows of x (R, N)`, block of rows by block of rows to keep f32 sums exact.
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

/// Oracle of [`forward`]. `x` is (..., in).
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
