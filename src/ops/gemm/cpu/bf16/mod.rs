//! GEMMs of fp32 matrices that multiply in bf16 and accumulate in fp32, on CPUs with AMX or AVX512_BF16.
//!
//! Either operands are rounded to bf16, or every value is split into three bf16 pieces that sum to it exactly
//! (8 + 8 + 8 bits of fraction), and six of the nine products of pieces are summed. The other three add at most about
//! 2^-24 of a product of two values, no more than an fp32 multiplication may round away: fp32 in all but name, and
//! AMX does it faster than fused multiply-adds do (Henry, Tang and Heinecke 2019, arXiv:1904.06376, for the idea).
//! Values are rounded to nearest, ties to even. Denormals count as zero, those among the pieces too.
//!
//! Operands are packed, two neighbours in K to a word. All threads pack B together; each thread packs the rows of A
//! that it multiplies. The kernels of both instruction sets read the same blocks. K is summed in one order: how C is
//! cut changes no bit.

mod amx;
mod avx512;
mod pack;
mod pack_avx512;

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::matrix::{Matrix, MatrixMut, Output, TileShape};
use crate::device::{Amx, Avx512Bf16};
use pack::{Lines, PackedBlock};

/// Columns of B that all threads pack at a time.
const PACKED_COLUMNS: usize = 4096;
/// Rows of A and columns of B that one thread packs at a time in [`gemm_sequential`].
const ROWS_ALONE: usize = 128;
const COLUMNS_ALONE: usize = 512;
/// Values of K that are packed at a time; their sum is accumulated into C.
const PACKED_DEPTH: usize = 768;

/// Pieces of a value that is not rounded.
pub(super) const PIECES: usize = 3;

/// Rows and columns of C that a kernel computes in one call.
const KERNEL: usize = 32;

/// The instruction set that multiplies, with the proof that it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isa {
    Avx512(Avx512Bf16),
    Amx(Amx),
}

impl Isa {
    /// The fastest that this process may use.
    pub fn probe() -> Option<Self> {
        let avx512 = || Avx512Bf16::probe().map(Isa::Avx512);
        Amx::probe().map(Isa::Amx).or_else(avx512)
    }
}

/// A way to multiply fp32 values in bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// Each value rounded to bf16.
    Rounded(Isa),
    /// Each value split into [`PIECES`].
    InPieces(Amx),
}

impl Method {
    /// The fastest that this process may use.
    pub fn rounded() -> Option<Self> {
        Isa::probe().map(Method::Rounded)
    }

    pub fn in_pieces() -> Option<Self> {
        Amx::probe().map(Method::InPieces)
    }

    /// Proof of the instructions that pack operands.
    fn avx512(self) -> Avx512Bf16 {
        match self {
            Method::Rounded(Isa::Avx512(avx512)) => avx512,
            Method::Rounded(Isa::Amx(amx)) | Method::InPieces(amx) => amx.avx512_bf16(),
        }
    }
}

/// Bytes that each thread packs of A, in tiles of `rows` rows, and that all of them together pack of B for the GEMM
/// (M, K) (K, N), where every value is split into `pieces`.
pub(super) fn packed_bytes([m, n, k]: [usize; 3], rows: usize, pieces: usize) -> [usize; 2] {
    let depth = depth_at_a_time(k);
    [m.min(rows), n.min(PACKED_COLUMNS)].map(|lines| PackedBlock::bytes(lines, depth, pieces))
}

/// The kernel of a method, ready to run on this thread.
enum Kernel {
    Avx512(Avx512Bf16),
    Amx(amx::Tiles),
    AmxInPieces(amx::Tiles),
}

impl Kernel {
    /// # Safety
    /// No other kernel lives on this thread until this one is dropped.
    unsafe fn set_up(method: Method) -> Self {
        // SAFETY: the tiles of a kernel are configured with it and released with it, so the promise made here is
        // theirs.
        let tiles = |amx| unsafe { amx::Tiles::configure(amx) };
        match method {
            Method::Rounded(Isa::Avx512(avx512)) => Kernel::Avx512(avx512),
            Method::Rounded(Isa::Amx(amx)) => Kernel::Amx(tiles(amx)),
            Method::InPieces(amx) => Kernel::AmxInPieces(tiles(amx)),
        }
    }

    /// `c` (32, 32) `= a b` from 32 lines of each operand.
    fn compute(&self, c: MatrixMut<f32>, a: [&[u32]; 2], b: [&[u32]; 2]) {
        match self {
            Kernel::Avx512(avx512) => avx512::rounded(*avx512, c, a, b),
            Kernel::Amx(tiles) => amx::rounded(tiles, c, a, b),
            Kernel::AmxInPieces(tiles) => amx::in_pieces(tiles, c, a, b),
        }
    }
}

/// Packed columns of B. The memory is kept from one GEMM to the next.
#[derive(Debug, Default)]
pub(super) struct PackedB(PackedBlock);

thread_local! {
    /// Packed rows of A of this thread. They stay in its level-2 cache.
    static ROWS: RefCell<PackedBlock> = RefCell::default();
    /// Packed columns of B of this thread, in [`gemm_sequential`].
    static COLUMNS: RefCell<PackedBlock> = RefCell::default();
}

/// The operands of `c (M, N) = a (M, K) b (K, N)`, or `+=`.
pub(super) struct Product<'a> {
    pub c: MatrixMut<'a, f32>,
    pub output: Output,
    pub a: Matrix<'a, f32>,
    pub b: Matrix<'a, f32>,
}

/// Computes `product` on all threads of the current pool, each of which computes one tile of C at a time.
pub(super) fn gemm(method: Method, product: Product, tile: TileShape, packed: &mut PackedB) {
    match method {
        Method::Rounded(_) => in_blocks::<1>(method, product, tile, packed),
        Method::InPieces(_) => in_blocks::<PIECES>(method, product, tile, packed),
    }
}

fn in_blocks<const PIECES: usize>(
    method: Method,
    product: Product,
    tile: TileShape,
    PackedB(packed): &mut PackedB,
) {
    assert!(tile.columns.is_multiple_of(KERNEL), "columns of a tile");
    let Product {
        mut c,
        output,
        a,
        b,
    } = product;
    let (m, n, k) = (a.rows(), b.columns(), a.columns());
    let avx512 = method.avx512();
    let (a, b) = (Lines::rows_of(a), Lines::columns_of(b));
    for depth in parts(0..k.max(1), depth_at_a_time(k)) {
        let output = match depth.start {
            0 => output,
            _ => Output::Accumulate,
        };
        let depth = depth.start..depth.end.min(k);
        for columns in parts(0..n, PACKED_COLUMNS) {
            packed.pack_pairs_first_together::<PIECES>(avx512, &b, columns.clone(), depth.clone());
            let packed = &*packed;
            c.part(0..m, columns).into_tiles(tile).for_each(|tile| {
                ROWS.with_borrow_mut(|block| {
                    block.pack_lines_first::<PIECES>(avx512, &a, tile.rows, depth.clone());
                    multiply(method, tile.c, output, block, packed, tile.columns.start);
                });
            });
        }
    }
}

/// Computes `product` on the calling thread alone, with rounded operands.
pub(super) fn gemm_sequential(isa: Isa, product: Product) {
    COLUMNS.with_borrow_mut(|packed| alone(Method::Rounded(isa), product, packed));
}

fn alone(method: Method, product: Product, packed: &mut PackedBlock) {
    let Product {
        mut c,
        output,
        a,
        b,
    } = product;
    let (m, n, k) = (a.rows(), b.columns(), a.columns());
    let avx512 = method.avx512();
    let (a, b) = (Lines::rows_of(a), Lines::columns_of(b));
    for depth in parts(0..k.max(1), depth_at_a_time(k)) {
        let output = match depth.start {
            0 => output,
            _ => Output::Accumulate,
        };
        let depth = depth.start..depth.end.min(k);
        for columns in parts(0..n, COLUMNS_ALONE) {
            packed.pack_pairs_first::<1>(avx512, &b, columns.clone(), depth.clone());
            for rows in parts(0..m, ROWS_ALONE) {
                let c = c.part(rows.clone(), columns.clone());
                ROWS.with_borrow_mut(|block| {
                    block.pack_lines_first::<1>(avx512, &a, rows, depth.clone());
                    multiply(method, c, output, block, packed, 0);
                });
            }
        }
    }
}

/// Values of K in each part: the fewest parts of at most [`PACKED_DEPTH`], of about the same size, in whole tiles.
fn depth_at_a_time(k: usize) -> usize {
    let parts = k.div_ceil(PACKED_DEPTH).max(1);
    k.div_ceil(parts).next_multiple_of(pack::TILE_DEPTH).max(1)
}

/// Parts of `size` of a range; the last one may be shorter.
fn parts(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let starts = range.clone().step_by(size);
    starts.map(move |start| start..range.end.min(start + size))
}

/// `c = a b` of packed blocks, or `+=`. The first column of `c` is line `first` of `b`.
fn multiply(
    method: Method,
    mut c: MatrixMut<f32>,
    output: Output,
    a: &PackedBlock,
    b: &PackedBlock,
    first: usize,
) {
    // SAFETY: the only kernel of this thread: nothing that is called here sets one up.
    let kernel = unsafe { Kernel::set_up(method) };
    for columns in parts(0..c.columns(), KERNEL) {
        let b = b.pair((first + columns.start) / KERNEL);
        for rows in parts(0..c.rows(), KERNEL) {
            let a = a.pair(rows.start / KERNEL);
            multiply_part(&kernel, c.part(rows, columns.clone()), output, a, b);
        }
    }
}

/// `part = a b`, or `+=`, for at most 32 x 32 of C.
fn multiply_part(
    kernel: &Kernel,
    mut part: MatrixMut<f32>,
    output: Output,
    a: [&[u32]; 2],
    b: [&[u32]; 2],
) {
    let whole = part.rows() == KERNEL && part.columns() == KERNEL && !a[0].is_empty();
    if whole && output == Output::Replace {
        return kernel.compute(part, a, b);
    }
    // Summed apart, so that adding to a large C rounds but once.
    let mut sum = [0f32; KERNEL * KERNEL];
    if !a[0].is_empty() {
        kernel.compute(MatrixMut::new(&mut sum, KERNEL, KERNEL), a, b);
    }
    part.take(&sum, KERNEL, output);
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

    /// C in f64, from the operands as they are multiplied.
    fn expected(
        method: Method,
        c: &[f32],
        output: Output,
        a: &Matrix<f32>,
        b: &Matrix<f32>,
    ) -> Vec<f64> {
        let n = b.columns();
        let round = |x: f32| match method {
            Method::Rounded(_) => f64::from(bf16::from_f32(x)),
            Method::InPieces(_) => f64::from(x),
        };
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

    fn methods() -> Vec<Method> {
        let avx512 = Avx512Bf16::probe().map(|avx512| Method::Rounded(Isa::Avx512(avx512)));
        let amx = Amx::probe().map(|amx| [Method::Rounded(Isa::Amx(amx)), Method::InPieces(amx)]);
        avx512
            .into_iter()
            .chain(amx.into_iter().flatten())
            .collect()
    }

    fn check(method: Method, [m, n, k]: [usize; 3], transposed: [bool; 2], output: Output) {
        let (a, b) = (noise(m * k, 1), noise(k * n, 2));
        let a = if transposed[0] {
            Matrix::new(&a, k, m).t()
        } else {
            Matrix::new(&a, m, k)
        };
        let b = if transposed[1] {
            Matrix::new(&b, n, k).t()
        } else {
            Matrix::new(&b, k, n)
        };
        let mut c = noise(m * n, 3);
        let want = expected(method, &c, output, &a, &b);
        let product = Product {
            c: MatrixMut::new(&mut c, m, n),
            output,
            a,
            b,
        };
        let tile = TileShape {
            rows: 64,
            columns: 96,
        };
        gemm(method, product, tile, &mut PackedB::default());
        for (got, want) in c.iter().zip(&want) {
            let error = (f64::from(*got) - want).abs();
            let allowed = 4e-7 * (k as f64).sqrt().max(4.0) * 2.0;
            assert!(error <= allowed, "{method:?} {m} x {n} x {k}: {got} {want}");
        }
    }

    #[test]
    fn products_are_exact_but_for_the_operands_rounding_whatever_the_shape_and_layout() {
        let shapes = [
            [1, 1, 1],
            [32, 32, 32],
            [33, 31, 65],
            [7, 100, 3],
            [64, 48, 600],
            [300, 40, 34],
            [40, 600, 70],
            [40, 7, 0],
        ];
        for method in methods() {
            for shape in shapes {
                for a in [false, true] {
                    for b in [false, true] {
                        check(method, shape, [a, b], Output::Replace);
                        check(method, shape, [a, b], Output::Accumulate);
                    }
                }
            }
        }
    }
}
