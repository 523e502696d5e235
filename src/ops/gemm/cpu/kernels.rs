//! The candidates of the CPU at work.

use rayon::prelude::*;

use super::matrix::{Matrix, MatrixMut, Output, TileShape, call, gemm_sequential};
use super::{BFLOAT16_TILES, Candidate, bf16};
use crate::ops::gemm::candidate::Unavailable;
use crate::ops::gemm::problem::Problem;
use crate::ops::loops::Element;
use crate::ops::loops::parallel::{for_element_blocks, for_row_blocks};
use crate::terms::Effort;

/// Rows of the largest tile.
pub(super) const TILE_ROWS: usize = 384;

/// Rows of a part of a cut K that one thread computes.
const SPLIT_ROWS: usize = 192;

/// The most parts that K is cut into.
pub(super) const MOST_PARTS: usize = 4;

/// The `gemm` crate packs `a` at once, up to this many of its columns at a time.
const PACKED_COLUMNS: usize = 512;

/// It packs `b` at once where that has few columns, up to about this many.
const PACKED_STRIP: usize = 768;

/// Rows of `a` are given to it in panels of about this size, so that what it packs stays in the
/// cache and is known: for the gradient of GPT-2's embedding it would be 100 MiB. The parts of a cut
/// K take no more together.
const PANEL_BYTES: usize = 8 << 20;

/// Rows of a panel of (M, K) elements of `element_bytes`: a multiple of every kernel's tile.
fn panel_rows(k: usize, element_bytes: usize) -> usize {
    let row_bytes = k.clamp(1, PACKED_COLUMNS) * element_bytes;
    (PANEL_BYTES / row_bytes).next_multiple_of(192)
}

/// Bytes that the `gemm` crate takes for `problem` beside its operands, on `threads` threads with the candidates of
/// `effort`: packed operands, and the parts of a cut K.
pub(super) fn packed_bytes(
    problem: &Problem,
    threads: usize,
    effort: Effort,
    element_bytes: usize,
) -> usize {
    let (m, k) = (problem.m, problem.k);
    let packed = |rows: usize| m.min(rows) * k.min(PACKED_COLUMNS) * element_bytes;
    let whole = packed(panel_rows(k, element_bytes));
    // Each thread packs both operands; its allocator keeps that apart from what `whole` packed.
    let tile = m.min(TILE_ROWS) + problem.n.min(PACKED_STRIP);
    let tiles = threads.saturating_mul(tile * k.min(PACKED_COLUMNS) * element_bytes);
    let parts = (2..=MOST_PARTS)
        .map(|parts| parts_bytes(problem, parts, element_bytes))
        .filter(|&bytes| bytes <= PANEL_BYTES);
    match effort {
        Effort::Off => whole,
        Effort::Limited => whole.saturating_add(tiles),
        Effort::Full => whole.saturating_add(tiles) + parts.max().unwrap_or(0),
    }
}

fn parts_bytes(problem: &Problem, parts: usize, element_bytes: usize) -> usize {
    parts * problem.m * problem.n * element_bytes
}

impl Candidate {
    pub(super) fn available(
        self,
        problem: &Problem,
        element_bytes: usize,
    ) -> Result<(), Unavailable> {
        let because = match self {
            Candidate::Whole => return Ok(()),
            Candidate::Bfloat16 { rows, columns } | Candidate::InPieces { rows, columns } => {
                let first = TileShape { rows, columns } == BFLOAT16_TILES[0];
                if self.method().is_none() {
                    "this CPU does not multiply in bf16".to_owned()
                } else if first || problem.m > rows || problem.n > columns {
                    return Ok(());
                } else {
                    "C is a single tile".to_owned()
                }
            }
            Candidate::Tiles { rows, columns } => {
                let columns = columns.unwrap_or(problem.n);
                if problem.m > rows || problem.n > columns {
                    return Ok(());
                }
                "C is a single tile".to_owned()
            }
            Candidate::SplitK(parts) => {
                let bytes = parts_bytes(problem, parts, element_bytes);
                if problem.k < parts {
                    "K is too short".to_owned()
                } else if bytes > PANEL_BYTES {
                    let [bytes, most] = [bytes, PANEL_BYTES].map(|n| crate::units::bytes(n as u64));
                    format!("the parts would take {bytes}, {most} are planned for them")
                } else {
                    return Ok(());
                }
            }
        };
        Err(Unavailable(because))
    }

    /// The way to multiply in bf16; `None` for other candidates, and where the CPU has no instructions for it.
    fn method(self) -> Option<bf16::Method> {
        match self {
            Candidate::Bfloat16 { .. } => bf16::Method::rounded(),
            Candidate::InPieces { .. } => bf16::Method::in_pieces(),
            Candidate::Whole | Candidate::Tiles { .. } | Candidate::SplitK(_) => None,
        }
    }

    /// `c (M, N) = a (M, K) b (K, N)`, or `+=`, on all threads of the current pool.
    pub(super) fn compute<T: Element>(
        self,
        c: &mut [T],
        output: Output,
        a: Matrix<T>,
        b: Matrix<T>,
        packed: &mut bf16::PackedB,
    ) {
        assert_eq!(c.len(), a.rows() * b.columns(), "output of a product");
        match self {
            Candidate::Whole => whole(c, output, a, b),
            Candidate::Tiles { rows, columns } => {
                let columns = columns.unwrap_or(b.columns());
                tiles(c, output, a, b, TileShape { rows, columns });
            }
            Candidate::Bfloat16 { rows, columns } | Candidate::InPieces { rows, columns } => {
                let Some(method) = self.method() else {
                    unreachable!("offered where there are instructions for it");
                };
                let c = MatrixMut::new(c, a.rows(), b.columns());
                in_bfloat16(c, output, a, b, |product| {
                    bf16::gemm(method, product, TileShape { rows, columns }, packed);
                });
            }
            Candidate::SplitK(parts) => split_k(c, output, a, b, parts),
        }
    }
}

fn whole<T: Element>(c: &mut [T], output: Output, a: Matrix<T>, b: Matrix<T>) {
    let (n, panel) = (b.columns(), panel_rows(a.columns(), size_of::<T>()));
    for (index, c) in c.chunks_mut(panel * n.max(1)).enumerate() {
        let rows = c.len() / n;
        let first = index * panel;
        let a = a.panel(first..first + rows);
        let c = MatrixMut::new(c, rows, n);
        call(c, output, a, b, ::gemm::Parallelism::Rayon(0));
    }
}

fn tiles<T: Element>(c: &mut [T], output: Output, a: Matrix<T>, b: Matrix<T>, shape: TileShape) {
    let c = MatrixMut::new(c, a.rows(), b.columns());
    c.into_tiles(shape).for_each(|tile| {
        let (a, b) = (a.panel(tile.rows), b.strip(tile.columns));
        gemm_sequential(tile.c, output, a, b);
    });
}

/// Lets `multiply` compute a GEMM of f32.
pub(super) fn in_bfloat16<T: Element>(
    c: MatrixMut<T>,
    output: Output,
    a: Matrix<T>,
    b: Matrix<T>,
    multiply: impl FnOnce(bf16::Product),
) {
    assert_eq!(
        (a.rows(), a.columns(), b.columns()),
        (c.rows(), b.rows(), c.columns()),
        "shapes of a product: (M, K, N)"
    );
    let (Some(c), Some(a), Some(b)) = (c.in_f32(), a.in_f32(), b.in_f32()) else {
        unreachable!("offered for f32 alone");
    };
    multiply(bf16::Product { c, output, a, b });
}

/// Computes each part of K into a matrix of its own, and sums those in their order.
fn split_k<T: Element>(c: &mut [T], output: Output, a: Matrix<T>, b: Matrix<T>, parts: usize) {
    let (m, n, k) = (a.rows(), b.columns(), a.columns());
    let depth = k.div_ceil(parts);
    let shape = TileShape {
        rows: SPLIT_ROWS,
        columns: n,
    };
    let mut sums = vec![T::ZERO; parts * m * n];
    let of_parts = sums.par_chunks_mut((m * n).max(1)).enumerate();
    of_parts.for_each(|(part, sum)| {
        let depth = (part * depth).min(k)..((part + 1) * depth).min(k);
        let b = b.panel(depth.clone());
        MatrixMut::new(sum, m, n)
            .into_tiles(shape)
            .for_each(|tile| {
                let a = a.panel(tile.rows).strip(depth.clone());
                gemm_sequential(tile.c, Output::Replace, a, b);
            });
    });
    for_element_blocks(c, |start, c| {
        for (index, c) in c.iter_mut().enumerate() {
            let sums = (0..parts).map(|part| sums[part * m * n + start + index]);
            let sum = sums.sum();
            match output {
                Output::Replace => *c = sum,
                Output::Accumulate => *c += sum,
            }
        }
    });
}

/// Sets every row of `c` (M, N) to `row` (N).
pub(super) fn fill_rows<T: Element>(c: &mut [T], row: &[T]) {
    for_row_blocks(c, row.len(), |_, rows| {
        for c in rows.chunks_exact_mut(row.len()) {
            c.copy_from_slice(row);
        }
    });
}
