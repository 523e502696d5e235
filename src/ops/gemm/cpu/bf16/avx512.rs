//! The kernel on AVX512_BF16: vectors of 16 columns of C, eight rows of 32 columns at a time.

use super::KERNEL;
use crate::device::Avx512Bf16;
use crate::ops::gemm::cpu::matrix::MatrixMut;

/// `c` (32, 32) `= a b`: two strips of 16 lines of each, as many tiles long.
pub(super) fn rounded(_proof: Avx512Bf16, c: MatrixMut<f32>, a: [&[u32]; 2], b: [&[u32]; 2]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: this process may execute what the kernel is compiled for, by the proof.
    unsafe {
        x86::kernel(c, a, b);
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (c, a, b);
        unreachable!("only x86-64 has AVX512_BF16");
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{KERNEL, MatrixMut};
    use crate::ops::gemm::cpu::bf16::pack::TILE_WORDS;

    const ROWS: usize = 8;
    const TILE: usize = 16;

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub fn kernel(mut c: MatrixMut<f32>, a: [&[u32]; 2], b: [&[u32]; 2]) {
        assert!([a[1].len(), b[0].len(), b[1].len()] == [a[0].len(); 3]);
        assert!(c.rows() == KERNEL && c.columns() == KERNEL);
        for first in (0..KERNEL).step_by(ROWS) {
            let strip = a[first / TILE];
            // SAFETY: the shape and the lengths were compared, and `first` is at most 24.
            unsafe { rows(&mut c, first, &strip[first % TILE * TILE..], b) };
        }
    }

    /// 16 words.
    ///
    /// # Safety
    /// They may be read.
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn load(words: *const u32) -> __m512bh {
        // SAFETY: the caller's promise; both types are 64 bytes of any value.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(words.cast())) }
    }

    /// Computes rows `first..first + 8` of C. `a` begins at their first word, `b` are both strips of columns.
    ///
    /// # Safety
    /// C has these rows and 32 columns, and both strips of `b` are equally long.
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn rows(c: &mut MatrixMut<f32>, first: usize, a: &[u32], b: [&[u32]; 2]) {
        let (top, stride) = c.address();
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        let tiles = b[0].len() / TILE_WORDS;
        assert!(a.len() + TILE_WORDS >= b[0].len() + ROWS * TILE);
        let (mut a, mut left, mut right) = (a.as_ptr(), b[0].as_ptr(), b[1].as_ptr());
        for _ in 0..tiles {
            for pair in 0..TILE {
                // SAFETY: each strip of `b` has `tiles` tiles of 16 rows of 16 words, and `a` the eight rows of as
                // many, by the assertion. The vectors are 64 bytes of any value.
                unsafe {
                    let left: __m512bh = load(left.add(pair * TILE));
                    let right: __m512bh = load(right.add(pair * TILE));
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let both = *a.add(row * TILE + pair) as i32;
                        let both =
                            std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(both));
                        sums[0] = _mm512_dpbf16_ps(sums[0], both, left);
                        sums[1] = _mm512_dpbf16_ps(sums[1], both, right);
                    }
                }
            }
            a = a.wrapping_add(TILE_WORDS);
            left = left.wrapping_add(TILE_WORDS);
            right = right.wrapping_add(TILE_WORDS);
        }
        for (row, sums) in sums.iter().enumerate() {
            // SAFETY: 32 values of C, by the caller's promise.
            unsafe {
                let at = top.add((first + row) * stride);
                _mm512_storeu_ps(at, sums[0]);
                _mm512_storeu_ps(at.add(TILE), sums[1]);
            }
        }
    }
}
