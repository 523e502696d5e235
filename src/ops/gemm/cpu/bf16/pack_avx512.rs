//! Whole tiles, packed with AVX512_BF16: see `pack.rs`.

use crate::device::Avx512Bf16;

/// Contiguous runs of values, `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Strided<'a> {
    pub values: &'a [f32],
    pub stride: usize,
}

/// Packs a tile from 16 lines whose 32 values are contiguous, and transposes it where that is asked for.
pub(super) fn along_depth<const PIECES: usize>(
    _proof: Avx512Bf16,
    from: Strided,
    transposed: bool,
    to: &mut [u32],
) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: this process may execute what the function is compiled for, by the proof.
    unsafe {
        x86::along_depth::<PIECES>(from, transposed, to);
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (from, transposed, to);
        unreachable!("only x86-64 has AVX512_BF16");
    }
}

/// Packs a tile from 32 values of K whose 16 lines are contiguous, and transposes it where that is asked for.
pub(super) fn along_lines<const PIECES: usize>(
    _proof: Avx512Bf16,
    from: Strided,
    transposed: bool,
    to: &mut [u32],
) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: this process may execute what the function is compiled for, by the proof.
    unsafe {
        x86::along_lines::<PIECES>(from, transposed, to);
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (from, transposed, to);
        unreachable!("only x86-64 has AVX512_BF16");
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Strided;
    use crate::ops::gemm::cpu::bf16::pack::{TILE, TILE_DEPTH, TILE_WORDS};

    fn plain(values: __m512bh) -> __m512i {
        // SAFETY: both types are 64 bytes of any value.
        unsafe { std::mem::transmute::<__m512bh, __m512i>(values) }
    }

    /// Prefetches the values of the next tile: rows are too short for the CPU's own prefetching. Any address will
    /// do.
    #[inline(always)]
    fn fetch(at: *const f32) {
        // SAFETY: a hint, which reads nothing and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub fn along_depth<const PIECES: usize>(from: Strided, transposed: bool, to: &mut [u32]) {
        let (from, line_stride) = (from.values, from.stride);
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

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub fn along_lines<const PIECES: usize>(from: Strided, transposed: bool, to: &mut [u32]) {
        let (from, depth_stride) = (from.values, from.stride);
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

    /// Splits the values of two vectors into pieces, those of `first` in the lower half.
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
        // SAFETY: the array has 64 bytes.
        unsafe { _mm512_loadu_si512(WORDS.as_ptr().cast()) }
    }

    /// Stores row `row` of the tile of a piece.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store(to: &mut [u32], piece: usize, row: usize, words: __m512i) {
        let row = &mut to[piece * TILE_WORDS + row * TILE..][..TILE];
        // SAFETY: a row is as long as a vector.
        unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), words) };
    }

    /// Transposes every tile in place.
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

    /// Transposes 16 x 16 words: within quarters of vectors, then the quarters.
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
