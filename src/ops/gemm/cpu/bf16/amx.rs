//! The kernels on AMX: eight tiles of 1 KiB, four of which collect a 32 x 32 part of C.
//!
//! Rust has no stable intrinsics for these instructions; they are written in assembly.

#[cfg(target_arch = "x86_64")]
use std::arch::asm;
use std::marker::PhantomData;

#[cfg(target_arch = "x86_64")]
use super::{KERNEL, PIECES, pack::TILE_WORDS};
use crate::device::Amx;
use crate::ops::gemm::cpu::matrix::MatrixMut;

/// The layout of the tiles, as `ldtilecfg` takes it.
#[cfg(target_arch = "x86_64")]
#[repr(C, align(64))]
struct Layout {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// The configuration of the thread's tiles, until this is dropped.
///
/// The configuration (not the tiles' contents) outlasts the assembly block that loads it. Nothing else changes it:
/// the compiler emits instructions of AMX only in code that is compiled for them, of which there is none here, and
/// Linux restores the state of AMX after signals and switches of threads.
///
/// Neither `Send` nor `Sync`: every thread has tiles of its own.
pub(super) struct Tiles(PhantomData<*const ()>);

impl Tiles {
    /// # Safety
    /// Until this is dropped, no other `Tiles` lives on this thread, which would release this one's, and nothing that
    /// is called on it uses AMX.
    pub unsafe fn configure(_proof: Amx) -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let used = |n| if n < 8 { 1 } else { 0 };
            let layout = Layout {
                palette: 1,
                start_row: 0,
                reserved: [0; 14],
                row_bytes: std::array::from_fn(|tile| 64 * used(tile)),
                rows: std::array::from_fn(|tile| 16 * used(tile) as u8),
            };
            // SAFETY: this process may execute it, by the proof. It reads the 64 bytes of `layout` and zeroes all
            // tiles.
            unsafe {
                asm!(
                    "ldtilecfg [{}]",
                    in(reg) &raw const layout,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, readonly, preserves_flags),
                );
            }
        }
        Self(PhantomData)
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this process may execute it: `configure` had the proof. It zeroes all tiles. Released tiles cost
        // no time when threads change.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem, preserves_flags),
            );
        }
    }
}

/// The output of a kernel: 16 rows of 32 values at `top`, and as many at `bottom`.
#[cfg(target_arch = "x86_64")]
struct Halves {
    top: *mut f32,
    bottom: *mut f32,
    row_bytes: usize,
}

#[cfg(target_arch = "x86_64")]
impl Halves {
    fn of(c: &mut MatrixMut<f32>) -> Self {
        assert!(c.rows() == KERNEL && c.columns() == KERNEL);
        let (top, stride) = c.address();
        Self {
            top,
            bottom: top.wrapping_add(KERNEL / 2 * stride),
            row_bytes: stride * size_of::<f32>(),
        }
    }
}

/// Zeroes four tiles, runs `$instruction`s once for every `$bytes` bytes of the strips, `$steps` times, and stores
/// the tiles in `$c`. One block, because tiles keep their contents in it alone.
#[cfg(target_arch = "x86_64")]
macro_rules! kernel {
    ($c:expr, $a:expr, $b:expr, $steps:expr, $bytes:literal, [$($instruction:literal,)*]) => {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "test {steps}, {steps}",
            "jz 3f",
            "2:",
            $($instruction,)*
            concat!("add {a0}, ", $bytes),
            concat!("add {a1}, ", $bytes),
            concat!("add {b0}, ", $bytes),
            concat!("add {b1}, ", $bytes),
            "dec {steps}",
            "jnz 2b",
            "3:",
            "tilestored [{top} + {row}], tmm0",
            "tilestored [{top} + {row} + 64], tmm1",
            "tilestored [{bottom} + {row}], tmm2",
            "tilestored [{bottom} + {row} + 64], tmm3",
            a0 = inout(reg) $a[0].as_ptr() => _,
            a1 = inout(reg) $a[1].as_ptr() => _,
            b0 = inout(reg) $b[0].as_ptr() => _,
            b1 = inout(reg) $b[1].as_ptr() => _,
            steps = inout(reg) $steps => _,
            line = in(reg) 64usize,
            top = in(reg) $c.top,
            bottom = in(reg) $c.bottom,
            row = in(reg) $c.row_bytes,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// `c` (32, 32) `= a b`: two strips of 16 lines of each, as many tiles long.
#[cfg(target_arch = "x86_64")]
pub(super) fn rounded(_: &Tiles, mut c: MatrixMut<f32>, a: [&[u32]; 2], b: [&[u32]; 2]) {
    let (steps, c) = (tiles(a, b), Halves::of(&mut c));
    // SAFETY: the tiles are configured for as long as a `Tiles` lives. The strips have `steps` tiles of 1 KiB each.
    // `c` is written within the matrix that this call owns.
    unsafe {
        kernel!(
            c,
            a,
            b,
            steps,
            1024,
            [
                "tileloadd tmm4, [{a0} + {line}]",
                "tileloadd tmm6, [{b0} + {line}]",
                "tileloadd tmm7, [{b1} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a1} + {line}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
            ]
        );
    }
}

/// The product of [`rounded`], with three tiles for every 32 values of K, one for each piece. It sums the six
/// products of pieces that fp32 would still tell from zero, in an order that takes 14 loads instead of 24.
#[cfg(target_arch = "x86_64")]
pub(super) fn in_pieces(_: &Tiles, mut c: MatrixMut<f32>, a: [&[u32]; 2], b: [&[u32]; 2]) {
    let (tiles, c) = (tiles(a, b), Halves::of(&mut c));
    assert!(tiles.is_multiple_of(PIECES));
    // SAFETY: as in `rounded`, with three tiles to a step.
    unsafe {
        kernel!(
            c,
            a,
            b,
            tiles / PIECES,
            3072,
            [
                // The third piece of A, the first of B.
                "tileloadd tmm4, [{a0} + {line} + 2048]",
                "tileloadd tmm6, [{b0} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b1} + {line}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{a1} + {line} + 2048]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm4, [{a0} + {line} + 1024]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                // The second, the first.
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a1} + {line} + 1024]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm6, [{b0} + {line} + 1024]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                // The second of both.
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b1} + {line} + 1024]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm4, [{a0} + {line}]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                // The first, the second.
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a1} + {line}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm6, [{b0} + {line} + 2048]",
                "tdpbf16ps tmm3, tmm5, tmm7",
                // The first, the third.
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b1} + {line} + 2048]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tileloadd tmm6, [{b0} + {line}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm7",
                // The first of both.
                "tileloadd tmm7, [{b1} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm3, tmm5, tmm7",
            ]
        );
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn rounded(_: &Tiles, _: MatrixMut<f32>, _: [&[u32]; 2], _: [&[u32]; 2]) {
    unreachable!("only x86-64 has AMX");
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn in_pieces(_: &Tiles, _: MatrixMut<f32>, _: [&[u32]; 2], _: [&[u32]; 2]) {
    unreachable!("only x86-64 has AMX");
}

/// Tiles of every strip.
#[cfg(target_arch = "x86_64")]
fn tiles(a: [&[u32]; 2], b: [&[u32]; 2]) -> usize {
    let words = a[0].len();
    assert!([a[1].len(), b[0].len(), b[1].len()] == [words; 3]);
    words / TILE_WORDS
}
