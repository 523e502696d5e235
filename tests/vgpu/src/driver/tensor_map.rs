//! `cuTensorMapEncodeTiled`: checks what a driver checks, and writes a map that our kernels read.

use std::ffi::{c_uint, c_void};

use super::guard::{Outcome, read, with_driver, write};
use super::refused::refuse;
use super::result::CuResult;
use crate::tensor_map::{BYTES, Swizzle, TensorMap};

/// Bytes of the elements of `CUtensorMapDataType`: u8, u16, u32, i32, u64, i64, f16, f32, f64, bf16.
const ELEMENTS: [u32; 10] = [1, 2, 4, 4, 8, 8, 2, 4, 8, 2];

const SWIZZLES: [Swizzle; 4] = [
    Swizzle::None,
    Swizzle::Bytes32,
    Swizzle::Bytes64,
    Swizzle::Bytes128,
];

/// # Safety
/// `map` may be written; the arrays have `rank` elements, the strides one less.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C" fn cuTensorMapEncodeTiled(
    map: *mut [u8; BYTES],
    data_type: c_uint,
    rank: c_uint,
    address: *mut c_void,
    dims: *const u64,
    strides: *const u64,
    box_dims: *const u32,
    element_strides: *const u32,
    interleave: c_uint,
    swizzle: c_uint,
    _l2_promotion: c_uint,
    fill: c_uint,
) -> CuResult {
    with_driver(|driver| {
        let wrong = |what: &str| {
            driver.remember(&format!("cuTensorMapEncodeTiled: {what}"));
            CuResult::ERROR_INVALID_VALUE
        };
        if !(1..=5).contains(&rank) {
            return Err(wrong("1 to 5 dimensions are possible"));
        }
        let Some(&element) = ELEMENTS.get(data_type as usize) else {
            return Err(refuse("cuTensorMapEncodeTiled", "this data type"));
        };
        let Some(&swizzle) = SWIZZLES.get(swizzle as usize) else {
            return Err(refuse("cuTensorMapEncodeTiled", "this swizzle"));
        };
        if interleave != 0 || fill != 0 {
            let what = "interleaving, or filling with NaN";
            return Err(refuse("cuTensorMapEncodeTiled", what));
        }
        let rank = rank as usize;
        // SAFETY: as the caller promises.
        let steps = unsafe { list(element_strides, rank) }?;
        if steps.iter().any(|step| !(1..=8).contains(step)) {
            return Err(wrong("element strides of 1 to 8 are possible"));
        }
        if steps.iter().any(|&step| step != 1) {
            return Err(refuse("cuTensorMapEncodeTiled", "element strides beyond 1"));
        }
        if !map.addr().is_multiple_of(64) {
            return Err(wrong("the map itself must lie at a multiple of 64 bytes"));
        }
        // SAFETY: as the caller promises.
        let (dims, strides, boxes) = unsafe {
            (
                list(dims, rank)?,
                list(strides, rank - 1)?,
                list(box_dims, rank)?,
            )
        };
        let tensor = TensorMap {
            element,
            address: address.addr() as u64,
            dims,
            strides,
            boxes,
            swizzle,
        };
        tensor.check().map_err(|what| wrong(&what))?;
        // SAFETY: as the caller promises.
        unsafe { write(map, tensor.encode()) }
    })
}

/// # Safety
/// `from` has `count` elements.
unsafe fn list<T: Copy>(from: *const T, count: usize) -> Outcome<Vec<T>> {
    // SAFETY: as the caller promises.
    (0..count)
        .map(|i| unsafe { read(from.wrapping_add(i)) })
        .collect()
}
