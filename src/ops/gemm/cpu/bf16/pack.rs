//! fp32 matrices as bf16 in the order in which kernels read them.
//!
//! A tile is 16 lines (rows of A, columns of B) by 32 values of K: 16 x 16 words, each two neighbours in
//! K, in 1 KiB. Of A a line's words lie side by side, of B those of one pair of K: what AMX wants.

use std::ops::Range;

use rayon::prelude::*;

use crate::device::Avx512Bf16;
use crate::ops::gemm::cpu::matrix::Matrix;

/// Lines, and words of a line, of a tile.
const TILE: usize = 16;
/// Words of a tile.
pub(super) const TILE_WORDS: usize = TILE * TILE;
/// Values of K of a tile.
pub(super) const TILE_DEPTH: usize = 2 * TILE;

/// Of cache lines and of rows of tiles, in bytes.
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

/// Tiles of a block, first those of 16 lines along K, then those of the next 16. Where values are split into
/// pieces, the tiles of all pieces of the same values follow each other, the largest piece first.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// Begins somewhere in the first 64 bytes of `store`, so that no row of a tile crosses a cache line.
    store: Vec<u32>,
    start: usize,
    words_per_strip: usize,
}

impl Block {
    /// What so many lines of so many values in so many pieces take.
    pub fn bytes(lines: usize, depth: usize, pieces: usize) -> usize {
        let tiles = lines.div_ceil(2 * TILE) * 2 * depth.div_ceil(TILE_DEPTH);
        size_of::<u32>() * pieces * tiles * TILE_WORDS + ALIGNMENT
    }

    /// As A is read. What is missing of the last 32 lines and the last tile is zero.
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

    /// As B is read.
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

    /// As B is read, by all threads together.
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

    /// Two neighbouring strips of 16 lines.
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
            // Not what it held as well.
            self.store = Vec::new();
            self.store.resize(needed, 0);
        }
        self.start = self.store.as_ptr().align_offset(ALIGNMENT);
        &mut self.store[self.start..][..words]
    }
}

/// What goes into a block.
struct Packing<'a, const PIECES: usize> {
    avx512: Avx512Bf16,
    from: &'a Lines<'a>,
    lines: Range<usize>,
    depth: Range<usize>,
    /// The words lie in memory the other way round than they are wanted.
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

    /// The strips from `first` on that `to` has room for, in the order in which values lie in memory.
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

/// Where a tile begins, and how much of it there is.
#[derive(Clone, Copy)]
struct Corner {
    line: usize,
    lines: usize,
    depth: usize,
    depths: usize,
}

fn pack_tile<const PIECES: usize>(
    _proof: Avx512Bf16,
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
        let from = (&from.data[start..], from.line_stride);
        // SAFETY: this process may execute what the function is compiled for, by the proof.
        return unsafe { along_depth::<PIECES>(from, transposed, to) };
    }
    if whole && from.line_stride == 1 {
        let from = (&from.data[start..], from.depth_stride);
        // SAFETY: as above.
        return unsafe { along_lines::<PIECES>(from, transposed, to) };
    }
    // The edges, a few in a product: value by value.
    let depth_first = (from.depth_stride == 1) != transposed;
    for index in 0..TILE_WORDS {
        let (slow, fast) = (index / TILE, index % TILE);
        let (i, pair) = if depth_first {
            (slow, fast)
        } else {
            (fast, slow)
        };
        let value = |k: usize| match i < lines && k < depths {
            true => split::<PIECES>(from.at(line + i, depth + k)),
            false => [0; PIECES],
        };
        let (even, odd) = (value(2 * pair), value(2 * pair + 1));
        for piece in 0..PIECES {
            to[piece * TILE_WORDS + index] = u32::from(even[piece]) | u32::from(odd[piece]) << 16;
        }
    }
}

/// Each piece is what those before it leave, rounded.
fn split<const PIECES: usize>(mut value: f32) -> [u16; PIECES] {
    std::array::from_fn(|_| {
        let piece = rounded(value);
        value -= half::bf16::from_bits(piece).to_f32();
        piece
    })
}

/// To nearest, ties to even; denormals become zero, as the instruction has it.
fn rounded(value: f32) -> u16 {
    match value.is_subnormal() {
        true => (value.to_bits() >> 16) as u16 & 0x8000,
        false => half::bf16::from_f32(value).to_bits(),
    }
}

#[cfg(target_arch = "x86_64")]
use x86::{along_depth, along_lines};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{TILE, TILE_DEPTH, TILE_WORDS};

    fn plain(values: __m512bh) -> __m512i {
        // SAFETY: both are 64 bytes without meaning.
        unsafe { std::mem::transmute::<__m512bh, __m512i>(values) }
    }

    /// Brings what is packed next nearer: its rows are too short for the CPU to see where they lead. Any address
    /// will do.
    #[inline(always)]
    fn fetch(at: *const f32) {
        // SAFETY: reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }

    /// Values of K lie side by side.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub fn along_depth<const PIECES: usize>(
        (from, line_stride): (&[f32], usize),
        transposed: bool,
        to: &mut [u32],
    ) {
        assert!(from.len() >= (TILE - 1) * line_stride + TILE_DEPTH);
        assert_eq!(to.len(), PIECES * TILE_WORDS);
        for line in 0..TILE {
            // SAFETY: 32 values begin there, by the assertion.
            let (low, high) = unsafe {
                let at = from.as_ptr().add(line * line_stride);
                fetch(at.wrapping_add(TILE * line_stride));
                fetch(at.wrapping_add(TILE * line_stride + TILE));
                (_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(TILE)))
            };
            for (piece, words) in split::<PIECES>(low, high).into_iter().enumerate() {
                store(to, piece, line, words);
            }
        }
        if transposed {
            transpose(to);
        }
    }

    /// Lines lie side by side.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub fn along_lines<const PIECES: usize>(
        (from, depth_stride): (&[f32], usize),
        transposed: bool,
        to: &mut [u32],
    ) {
        assert!(from.len() >= (TILE_DEPTH - 1) * depth_stride + TILE);
        assert_eq!(to.len(), PIECES * TILE_WORDS);
        for pair in 0..TILE {
            // SAFETY: 16 values begin at both, by the assertion.
            let (even, odd) = unsafe {
                let at = from.as_ptr().add(2 * pair * depth_stride);
                fetch(at.wrapping_add(TILE_DEPTH * depth_stride));
                fetch(at.wrapping_add((TILE_DEPTH + 1) * depth_stride));
                (_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(depth_stride)))
            };
            for (piece, words) in split::<PIECES>(even, odd).into_iter().enumerate() {
                // All even ones, then all odd ones; word i takes numbers i and 16 + i.
                store(
                    to,
                    piece,
                    pair,
                    _mm512_permutexvar_epi16(interleave(), words),
                );
            }
        }
        if transposed {
            transpose(to);
        }
    }

    /// Pieces of both, those of `first` in the lower half.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn split<const PIECES: usize>(mut first: __m512, mut second: __m512) -> [__m512i; PIECES] {
        let mut pieces = [_mm512_setzero_si512(); PIECES];
        for (index, piece) in pieces.iter_mut().enumerate() {
            *piece = plain(_mm512_cvtne2ps_pbh(second, first));
            if index + 1 < PIECES {
                let low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(*piece));
                let high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(*piece));
                first = _mm512_sub_ps(first, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(low)));
                second = _mm512_sub_ps(second, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(high)));
            }
        }
        pieces
    }

    /// 0, 16, 1, 17, ...
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn interleave() -> __m512i {
        const WORDS: [u32; TILE] = {
            let mut words = [0; TILE];
            let mut i = 0;
            while i < TILE {
                words[i] = i as u32 | (i as u32 + 16) << 16;
                i += 1;
            }
            words
        };
        // SAFETY: an array of 64 bytes.
        unsafe { _mm512_loadu_si512(WORDS.as_ptr().cast()) }
    }

    /// Row `row` of the tile of a piece.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store(to: &mut [u32], piece: usize, row: usize, words: __m512i) {
        let row = &mut to[piece * TILE_WORDS + row * TILE..][..TILE];
        // SAFETY: a row is as long as a vector.
        unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), words) };
    }

    /// Every tile in its place.
    #[target_feature(enable = "avx512f")]
    fn transpose(tiles: &mut [u32]) {
        for tile in tiles.chunks_exact_mut(TILE_WORDS) {
            let mut rows = [_mm512_setzero_si512(); TILE];
            for (row, words) in rows.iter_mut().zip(tile.chunks_exact(TILE)) {
                // SAFETY: a row is as long as a vector.
                *row = unsafe { _mm512_loadu_si512(words.as_ptr().cast()) };
            }
            for (row, words) in transposed(rows).into_iter().enumerate() {
                store(tile, 0, row, words);
            }
        }
    }

    /// Of 16 x 16 words: within quarters of vectors, then the quarters.
    #[target_feature(enable = "avx512f")]
    fn transposed(rows: [__m512i; TILE]) -> [__m512i; TILE] {
        let mut a = rows;
        for i in (0..TILE).step_by(2) {
            a[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
            a[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
        }
        // b[4 g + j]: of rows 4 g to 4 g + 3, words j, 4 + j, 8 + j and 12 + j.
        let mut b = a;
        for g in (0..TILE).step_by(4) {
            b[g] = _mm512_unpacklo_epi64(a[g], a[g + 2]);
            b[g + 1] = _mm512_unpackhi_epi64(a[g], a[g + 2]);
            b[g + 2] = _mm512_unpacklo_epi64(a[g + 1], a[g + 3]);
            b[g + 3] = _mm512_unpackhi_epi64(a[g + 1], a[g + 3]);
        }
        let mut out = b;
        for j in 0..4 {
            let low = _mm512_shuffle_i32x4::<0x88>(b[j], b[4 + j]);
            let odd = _mm512_shuffle_i32x4::<0xdd>(b[j], b[4 + j]);
            let low2 = _mm512_shuffle_i32x4::<0x88>(b[8 + j], b[12 + j]);
            let odd2 = _mm512_shuffle_i32x4::<0xdd>(b[8 + j], b[12 + j]);
            out[j] = _mm512_shuffle_i32x4::<0x88>(low, low2);
            out[8 + j] = _mm512_shuffle_i32x4::<0xdd>(low, low2);
            out[4 + j] = _mm512_shuffle_i32x4::<0x88>(odd, odd2);
            out[12 + j] = _mm512_shuffle_i32x4::<0xdd>(odd, odd2);
        }
        out
    }
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn along_depth<const PIECES: usize>(
    _from: (&[f32], usize),
    _transposed: bool,
    _to: &mut [u32],
) {
    unreachable!("only x86-64 has these instructions");
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn along_lines<const PIECES: usize>(
    _from: (&[f32], usize),
    _transposed: bool,
    _to: &mut [u32],
) {
    unreachable!("only x86-64 has these instructions");
}
