//! The kernel on AMX: eight tiles of 1 KiB, four of which collect a 32 x 32 part of C.
//!
//! Rust has no stable intrinsics for these instructions; they are written in assembly. The compiler never
//! uses the tile registers itself.

#[cfg(target_arch = "x86_64")]
use std::arch::asm;
use std::marker::PhantomData;

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

/// The thread's tiles, configured for the kernels until this is dropped.
///
/// Neither `Send` nor `Sync`: every thread has tiles of its own.
pub(super) struct Tiles(PhantomData<*const ()>);

impl Tiles {
    /// # Safety
    /// No other `Tiles` lives on this thread until this one is dropped: it would release this one's.
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
            // SAFETY: this process may execute it, by the proof. It reads the 64 bytes of `layout`.
            unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const layout, options(nostack)) };
        }
        Self(PhantomData)
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this process may execute it: `configure` had the proof. Released tiles cost no time when
        // threads change.
        unsafe {
            asm!("tilerelease", options(nostack, nomem));
        }
    }
}

/// `c` (32, 32) `= a b`: two strips of 16 lines of each, as many tiles long.
pub(super) fn rounded(_: &Tiles, c: MatrixMut<f32>, a: [&[u32]; 2], b: [&[u32]; 2]) {
    collect(c, || {
        let tiles = tiles(a, b);
        // SAFETY: the strips have `tiles` tiles of 1 KiB each; the tiles are set up by the caller.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            asm!(
                "test {count}, {count}",
                "jz 3f",
                "2:",
                "tileloadd tmm4, [{a0} + {line}]",
                "tileloadd tmm6, [{b0} + {line}]",
                "tileloadd tmm7, [{b1} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{a1} + {line}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a0}, 1024",
                "add {a1}, 1024",
                "add {b0}, 1024",
                "add {b1}, 1024",
                "dec {count}",
                "jnz 2b",
                "3:",
                a0 = inout(reg) a[0].as_ptr() => _,
                a1 = inout(reg) a[1].as_ptr() => _,
                b0 = inout(reg) b[0].as_ptr() => _,
                b1 = inout(reg) b[1].as_ptr() => _,
                count = inout(reg) tiles => _,
                line = in(reg) 64usize,
                options(nostack),
            );
        }
    });
}

/// As [`rounded`], with three tiles for every 32 values of K: those of the pieces. The six products of
/// pieces that fp32 would still tell from zero are summed, in an order that takes 14 loads instead
/// of 24.
pub(super) fn in_pieces(_: &Tiles, c: MatrixMut<f32>, a: [&[u32]; 2], b: [&[u32]; 2]) {
    collect(c, || {
        let tiles = tiles(a, b);
        assert!(tiles.is_multiple_of(3));
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            asm!(
                "test {count}, {count}",
                "jz 3f",
                "2:",
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
                "add {a0}, 3072",
                "add {a1}, 3072",
                "add {b0}, 3072",
                "add {b1}, 3072",
                "dec {count}",
                "jnz 2b",
                "3:",
                a0 = inout(reg) a[0].as_ptr() => _,
                a1 = inout(reg) a[1].as_ptr() => _,
                b0 = inout(reg) b[0].as_ptr() => _,
                b1 = inout(reg) b[1].as_ptr() => _,
                count = inout(reg) tiles / 3 => _,
                line = in(reg) 64usize,
                options(nostack),
            );
        }
    });
}

/// Tiles of every strip.
fn tiles(a: [&[u32]; 2], b: [&[u32]; 2]) -> usize {
    let words = a[0].len();
    assert!([a[1].len(), b[0].len(), b[1].len()] == [words; 3]);
    words / super::pack::TILE_WORDS
}

/// Sets `c` (32, 32) to what `add` adds to the first four tiles.
fn collect(mut c: MatrixMut<f32>, add: impl FnOnce()) {
    assert!(c.rows() == super::KERNEL && c.columns() == super::KERNEL);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `c` has 32 rows of 32 values, by the assertion; the tiles are set up by the caller, and the
    // compiler never touches them.
    unsafe {
        let (top, row_bytes) = c.address();
        let row_bytes = row_bytes * size_of::<f32>();
        let bottom = top.byte_add(16 * row_bytes);
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            options(nostack, nomem),
        );
        add();
        asm!(
            "tilestored [{top} + {row}], tmm0",
            "tilestored [{top} + {row} + 64], tmm1",
            "tilestored [{bottom} + {row}], tmm2",
            "tilestored [{bottom} + {row} + 64], tmm3",
            top = in(reg) top, bottom = in(reg) bottom, row = in(reg) row_bytes,
            options(nostack),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = add;
}
