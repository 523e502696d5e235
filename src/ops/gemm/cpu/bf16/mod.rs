//! Products of fp32 matrices that are multiplied in bf16 and summed in fp32, on CPUs with instructions for
//! that: AMX tiles, or AVX512_BF16.
//!
//! Operands are rounded to bf16 (to nearest, even; denormals to zero) while they are packed, two neighbours
//! in K to a word, into blocks that stay in the level-2 cache of one core. Both kernels read the same
//! blocks. K is summed in one order: how C is cut changes no bit.

mod amx;
mod avx512;
mod pack;

use std::cell::RefCell;

use super::matrix::{Matrix, MatrixMut, Output};
use pack::{Block, Lines};

/// Rows of A, columns of B and depth of the blocks that are packed at a time.
const BLOCK_ROWS: usize = 256;
const BLOCK_COLUMNS: usize = 512;
const BLOCK_DEPTH: usize = 512;

/// Rows and columns of C that a kernel computes at a time.
const KERNEL: usize = 32;

/// The instructions that a CPU has for this, fastest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    Amx,
    Avx512,
}

/// What this CPU has, and the operating system lets it use.
pub fn extension() -> Option<Extension> {
    if !avx512::is_there() {
        return None;
    }
    match amx::is_there() {
        true => Some(Extension::Amx),
        false => Some(Extension::Avx512),
    }
}

/// What each thread packs.
pub const PACKED_BYTES: usize = 2 * BLOCK_DEPTH * (BLOCK_ROWS + BLOCK_COLUMNS);

/// The packed blocks of one thread.
struct Packed {
    a: Block,
    b: Block,
}

thread_local! {
    static PACKED: RefCell<Packed> = const {
        RefCell::new(Packed {
            a: Block::new(),
            b: Block::new(),
        })
    };
}

/// `c (M, N) = a (M, K) b (K, N)`, or `+=`, on the calling thread alone.
pub(super) fn gemm_sequential(
    extension: Extension,
    c: MatrixMut<f32>,
    output: Output,
    a: Matrix<f32>,
    b: Matrix<f32>,
) {
    let (m, n, k) = (a.rows(), b.columns(), a.columns());
    let (a, b) = (Lines::rows_of(a), Lines::columns_of(b));
    PACKED.with_borrow_mut(|packed| {
        for depth in (0..k.max(1)).step_by(BLOCK_DEPTH) {
            let depth = depth..k.min(depth + BLOCK_DEPTH);
            let output = match depth.start {
                0 => output,
                _ => Output::Accumulate,
            };
            for column in (0..n).step_by(BLOCK_COLUMNS) {
                let columns = BLOCK_COLUMNS.min(n - column);
                let lines = column..column + columns;
                packed.b.pack_pairs_first(&b, lines, depth.clone());
                for row in (0..m).step_by(BLOCK_ROWS) {
                    let rows = BLOCK_ROWS.min(m - row);
                    // A single block of rows stays packed for all columns.
                    if rows < m || column == 0 {
                        let lines = row..row + rows;
                        packed.a.pack_lines_first(&a, lines, depth.clone());
                    }
                    let c = c.part(row, rows, column, columns);
                    multiply(extension, c, output, &packed.a, &packed.b);
                }
            }
        }
    });
}

/// `c += a b` of packed blocks, or `=`.
fn multiply(extension: Extension, c: MatrixMut<f32>, output: Output, a: &Block, b: &Block) {
    let _in_use = match extension {
        Extension::Amx => Some(amx::Tiles::configure()),
        Extension::Avx512 => None,
    };
    let (rows, columns) = (c.rows(), c.columns());
    for column in (0..columns).step_by(KERNEL) {
        for row in (0..rows).step_by(KERNEL) {
            let part = c.part(
                row,
                KERNEL.min(rows - row),
                column,
                KERNEL.min(columns - column),
            );
            let (a, b) = (a.pair(row / KERNEL), b.pair(column / KERNEL));
            if part.rows() == KERNEL && part.columns() == KERNEL {
                kernel(extension, &part, output, a, b);
                continue;
            }
            let mut edge = [0f32; KERNEL * KERNEL];
            // SAFETY: `edge` is as large, and used by nothing else until it is added below.
            let whole = unsafe { MatrixMut::from_raw(edge.as_mut_ptr(), KERNEL, KERNEL, KERNEL) };
            kernel(extension, &whole, Output::Replace, a, b);
            part.take(&edge, KERNEL, output);
        }
    }
}

/// 32 x 32 of C from 32 lines of each operand.
fn kernel(
    extension: Extension,
    c: &MatrixMut<f32>,
    output: Output,
    a: [&[u32]; 2],
    b: [&[u32]; 2],
) {
    match extension {
        Extension::Amx => amx::kernel(c, output, a, b),
        Extension::Avx512 => avx512::kernel(c, output, a, b),
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    fn noise(len: usize, salt: u32) -> Vec<f32> {
        let value = |i: usize| {
            let mixed = (i as u32 ^ salt << 20).wrapping_mul(0x9e37_79b9);
            let mixed = (mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca6b);
            (mixed >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(value).collect()
    }

    /// In f64, of operands rounded to bf16.
    fn expected(c: &[f32], output: Output, a: &Matrix<f32>, b: &Matrix<f32>) -> Vec<f64> {
        let n = b.columns();
        let round = |x: f32| f64::from(bf16::from_f32(x));
        (0..a.rows() * n)
            .map(|i| {
                let (row, column) = (i / n, i % n);
                let terms = (0..a.columns()).map(|k| round(a.at(row, k)) * round(b.at(k, column)));
                let sum: f64 = terms.sum();
                match output {
                    Output::Replace => sum,
                    Output::Accumulate => f64::from(c[i]) + sum,
                }
            })
            .collect()
    }

    fn extensions() -> Vec<Extension> {
        match extension() {
            None => Vec::new(),
            Some(Extension::Avx512) => vec![Extension::Avx512],
            Some(Extension::Amx) => vec![Extension::Avx512, Extension::Amx],
        }
    }

    fn check(extension: Extension, [m, n, k]: [usize; 3], transposed: [bool; 2], output: Output) {
        let (a, b) = (noise(m * k, 1), noise(k * n, 2));
        let a = match transposed[0] {
            false => Matrix::new(&a, m, k),
            true => Matrix::new(&a, k, m).t(),
        };
        let b = match transposed[1] {
            false => Matrix::new(&b, k, n),
            true => Matrix::new(&b, n, k).t(),
        };
        let mut c = noise(m * n, 3);
        let want = expected(&c, output, &a, &b);
        // SAFETY: `c` has m * n elements and is used by nothing else.
        let view = unsafe { MatrixMut::from_raw(c.as_mut_ptr(), m, n, n) };
        gemm_sequential(extension, view, output, a, b);
        for (got, want) in c.iter().zip(&want) {
            let error = (f64::from(*got) - want).abs();
            let allowed = 4e-7 * (k as f64).sqrt().max(4.0) * 2.0;
            assert!(
                error <= allowed,
                "{extension:?} {m} x {n} x {k}: {got} {want}"
            );
        }
    }

    #[test]
    fn products_are_those_of_rounded_operands_whatever_the_shape_and_layout() {
        let shapes = [
            [1, 1, 1],
            [32, 32, 32],
            [33, 31, 65],
            [7, 100, 3],
            [64, 48, 600],
            [300, 40, 34],
            [40, 600, 70],
        ];
        for extension in extensions() {
            for shape in shapes {
                for a in [false, true] {
                    for b in [false, true] {
                        check(extension, shape, [a, b], Output::Replace);
                        check(extension, shape, [a, b], Output::Accumulate);
                    }
                }
            }
        }
    }
}
