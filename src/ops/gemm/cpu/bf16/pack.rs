//! fp32 matrices packed as bf16, in the order in which kernels read them.
//!
//! A tile is 16 lines (rows of A, columns of B) by 32 values of K: 16 x 16 words, each two neighbours in K, in
//! 1 KiB. AMX decides on the order of the words: the words of a line are adjacent in A, those of a pair in K are
//! adjacent in B.

use std::ops::Range;

use rayon::prelude::*;

use super::pack_avx512::{self, Strided};
use crate::device::Avx512Bf16;
use crate::ops::gemm::cpu::matrix::Matrix;

/// Lines, and words of a line, of a tile.
pub(super) const TILE: usize = 16;
/// Words of a tile.
pub(super) const TILE_WORDS: usize = TILE * TILE;
/// Values of K of a tile.
pub(super) const TILE_DEPTH: usize = 2 * TILE;

/// Bytes of a cache line, and of a row of a tile.
const ALIGNMENT: usize = 64;

/// Strips that one thread packs at a time.
const STRIPS_PER_TASK: usize = 8;

/// Rows of A or columns of B: lines of values along K.
#[derive(Clone, Copy)]
pub(super) struct Lines<'a> {
    data: &'a [f32],
    line_stride: usize,
    depth_stride: usize,
}

impl<'a> Lines<'a> {
    pub fn rows_of(a: Matrix<'a, f32>) -> Self {
        let (data, line_stride, depth_stride) = a.parts();
        Self {
            data,
            line_stride,
            depth_stride,
        }
    }

    pub fn columns_of(b: Matrix<'a, f32>) -> Self {
        Self::rows_of(b.t())
    }

    fn at(&self, line: usize, depth: usize) -> f32 {
        self.data[line * self.line_stride + depth * self.depth_stride]
    }
}

/// Packed lines: the tiles of 16 lines along K (a strip), then those of the next 16. Where values are split into
/// pieces, the tiles of all pieces of the same values follow each other, the largest piece first.
#[derive(Debug, Default)]
pub(super) struct PackedBlock {
    /// Begins somewhere in the first 64 bytes of `store`, so that no row of a tile crosses a cache line.
    store: Vec<u32>,
    start: usize,
    words_per_strip: usize,
}

impl PackedBlock {
    /// Bytes of a block of `lines` lines with `depth` values each, every value in `pieces` pieces.
    pub fn bytes(lines: usize, depth: usize, pieces: usize) -> usize {
        let tiles = lines.div_ceil(2 * TILE) * 2 * depth.div_ceil(TILE_DEPTH);
        size_of::<u32>() * pieces * tiles * TILE_WORDS + ALIGNMENT
    }

    /// Packs lines for A: the words of a line are adjacent. The last 32 lines and the last tile are filled up with
    /// zeros.
    pub fn pack_lines_first<const PIECES: usize>(
        &mut self,
        avx512: Avx512Bf16,
        from: &Lines,
        lines: Range<usize>,
        depth: Range<usize>,
    ) {
        let transposed = from.depth_stride != 1;
        let packing = Packing::<PIECES>::new(avx512, from, lines, depth, transposed);
        packing.strips(0, self.room_for(&packing));
    }

    /// Packs lines for B: the words of a pair in K are adjacent. It fills up as [`Self::pack_lines_first`].
    pub fn pack_pairs_first<const PIECES: usize>(
        &mut self,
        avx512: Avx512Bf16,
        from: &Lines,
        lines: Range<usize>,
        depth: Range<usize>,
    ) {
        let transposed = from.depth_stride == 1;
        let packing = Packing::<PIECES>::new(avx512, from, lines, depth, transposed);
        packing.strips(0, self.room_for(&packing));
    }

    /// Does [`Self::pack_pairs_first`] on all threads together.
    pub fn pack_pairs_first_together<const PIECES: usize>(
        &mut self,
        avx512: Avx512Bf16,
        from: &Lines,
        lines: Range<usize>,
        depth: Range<usize>,
    ) {
        let transposed = from.depth_stride == 1;
        let packing = Packing::<PIECES>::new(avx512, from, lines, depth, transposed);
        let words = STRIPS_PER_TASK * packing.words_per_strip();
        let tasks = self.room_for(&packing).par_chunks_mut(words.max(1));
        tasks.enumerate().for_each(|(task, to)| {
            packing.strips(task * STRIPS_PER_TASK, to);
        });
    }

    /// Strips `2 * index` and `2 * index + 1`.
    pub fn pair(&self, index: usize) -> [&[u32]; 2] {
        let words = self.words_per_strip;
        let start = self.start + 2 * index * words;
        let (first, second) = self.store[start..start + 2 * words].split_at(words);
        [first, second]
    }

    fn room_for<const PIECES: usize>(&mut self, packing: &Packing<PIECES>) -> &mut [u32] {
        self.words_per_strip = packing.words_per_strip();
        let strips = packing.lines.len().div_ceil(2 * TILE) * 2;
        let words = strips * self.words_per_strip;
        let needed = words + ALIGNMENT / size_of::<u32>();
        if self.store.len() < needed {
            // A plain `resize` would hold the old values and the new ones at the same time.
            self.store = Vec::new();
            self.store.resize(needed, 0);
        }
        self.start = self.store.as_ptr().align_offset(ALIGNMENT);
        &mut self.store[self.start..][..words]
    }
}

/// The task of packing one block.
struct Packing<'a, const PIECES: usize> {
    avx512: Avx512Bf16,
    from: &'a Lines<'a>,
    lines: Range<usize>,
    depth: Range<usize>,
    /// Whether tiles are transposed: their words are adjacent along the other side in memory.
    transposed: bool,
}

impl<'a, const PIECES: usize> Packing<'a, PIECES> {
    const WORDS: usize = PIECES * TILE_WORDS;

    fn new(
        avx512: Avx512Bf16,
        from: &'a Lines<'a>,
        lines: Range<usize>,
        depth: Range<usize>,
        transposed: bool,
    ) -> Self {
        Self {
            avx512,
            from,
            lines,
            depth,
            transposed,
        }
    }

    fn words_per_strip(&self) -> usize {
        self.depth.len().div_ceil(TILE_DEPTH) * Self::WORDS
    }

    /// Packs strips from number `first` on, as many as `to` has room for, in the order of the values in memory.
    fn strips(&self, first: usize, to: &mut [u32]) {
        let words = self.words_per_strip().max(1);
        if self.from.line_stride == 1 {
            for tile in 0..words / Self::WORDS {
                for (strip, to) in to.chunks_exact_mut(words).enumerate() {
                    let to = &mut to[tile * Self::WORDS..][..Self::WORDS];
                    self.tile(first + strip, tile, to);
                }
            }
        } else {
            for (strip, to) in to.chunks_exact_mut(words).enumerate() {
                for (tile, to) in to.chunks_exact_mut(Self::WORDS).enumerate() {
                    self.tile(first + strip, tile, to);
                }
            }
        }
    }

    fn tile(&self, strip: usize, tile: usize, to: &mut [u32]) {
        let line = self.lines.start + strip * TILE;
        let depth = self.depth.start + tile * TILE_DEPTH;
        let corner = Corner {
            line,
            lines: self.lines.end.saturating_sub(line).min(TILE),
            depth,
            depths: (self.depth.end - depth).min(TILE_DEPTH),
        };
        pack_tile::<PIECES>(self.avx512, self.from, corner, self.transposed, to);
    }
}

/// The first line and the first value in K of a tile, and how many of either the matrix has for it.
#[derive(Clone, Copy)]
struct Corner {
    line: usize,
    lines: usize,
    depth: usize,
    depths: usize,
}

fn pack_tile<const PIECES: usize>(
    proof: Avx512Bf16,
    from: &Lines,
    corner: Corner,
    transposed: bool,
    to: &mut [u32],
) {
    let Corner {
        line,
        lines,
        depth,
        depths,
    } = corner;
    let start = line * from.line_stride + depth * from.depth_stride;
    let whole = lines == TILE && depths == TILE_DEPTH;
    if whole && from.depth_stride == 1 {
        let from = Strided {
            values: &from.data[start..],
            stride: from.line_stride,
        };
        return pack_avx512::along_depth::<PIECES>(proof, from, transposed, to);
    }
    if whole && from.line_stride == 1 {
        let from = Strided {
            values: &from.data[start..],
            stride: from.depth_stride,
        };
        return pack_avx512::along_lines::<PIECES>(proof, from, transposed, to);
    }
    // Edges, and matrices with neither side contiguous: value by value.
    let depth_first = (from.depth_stride == 1) != transposed;
    for index in 0..TILE_WORDS {
        let (slow, fast) = (index / TILE, index % TILE);
        let (i, pair) = if depth_first {
            (slow, fast)
        } else {
            (fast, slow)
        };
        let value = |k: usize| {
            if i < lines && k < depths {
                split::<PIECES>(from.at(line + i, depth + k))
            } else {
                [0; PIECES]
            }
        };
        let (even, odd) = (value(2 * pair), value(2 * pair + 1));
        for piece in 0..PIECES {
            to[piece * TILE_WORDS + index] = u32::from(even[piece]) | u32::from(odd[piece]) << 16;
        }
    }
}

/// Splits a value: each piece is the remainder after the pieces before it, rounded.
fn split<const PIECES: usize>(mut value: f32) -> [u16; PIECES] {
    std::array::from_fn(|_| {
        let piece = rounded(value);
        value -= half::bf16::from_bits(piece).to_f32();
        piece
    })
}

/// Rounds to bf16 as VCVTNE2PS2BF16 does: to nearest, ties to even; denormals become zero.
fn rounded(value: f32) -> u16 {
    if value.is_subnormal() {
        (value.to_bits() >> 16) as u16 & 0x8000
    } else {
        half::bf16::from_f32(value).to_bits()
    }
}
