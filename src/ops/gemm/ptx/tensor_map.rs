//! How the copy engine of compute capability 9.0 finds the tiles of a matrix: tensor maps, made by the driver.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use cudarc::driver::sys::{
    CUtensorMap, CUtensorMapDataType as DataType, CUtensorMapFloatOOBfill as Fill,
    CUtensorMapInterleave as Interleave, CUtensorMapL2promotion as Promotion,
    CUtensorMapSwizzle as Swizzle, cuTensorMapEncodeTiled,
};
use cudarc::driver::{DeviceRepr, DriverError};

use super::tile::Wgmma;
use crate::ops::gemm::{Layout, Problem};
use crate::terms::Inputs;

/// What `gemm_wgmma` takes beside [`super::arguments::Arguments`].
#[repr(transparent)]
pub(super) struct TensorMap(CUtensorMap);

// SAFETY: the same C struct on the device, 128 opaque bytes.
unsafe impl DeviceRepr for TensorMap {}

/// Elements of the rows of a box: 128 bytes, as wide as the swizzle.
const BOX_COLUMNS: u32 = 64;

impl TensorMap {
    /// Of a row-major matrix of 16-bit elements, cut into boxes of 64 columns by `box_rows`.
    fn new(
        address: u64,
        (rows, columns): (usize, usize),
        row_stride: usize,
        box_rows: usize,
        data_type: DataType,
    ) -> Result<Self, DriverError> {
        let row_bytes = (row_stride * size_of::<u16>()) as u64;
        let mut map = MaybeUninit::uninit();
        // SAFETY: the arrays have as many elements as there are dimensions, the strides one less. The driver
        // writes the map if it succeeds; the address is only noted.
        unsafe {
            cuTensorMapEncodeTiled(
                map.as_mut_ptr(),
                data_type,
                2,
                address as *mut c_void,
                [columns as u64, rows as u64].as_ptr(),
                [row_bytes].as_ptr(),
                [BOX_COLUMNS, box_rows as u32].as_ptr(),
                [1, 1].as_ptr(),
                Interleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                // Lines of L2 are fetched from memory in pairs: rows of boxes follow each other along K.
                Promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                Fill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
            .result()?;
            Ok(Self(map.assume_init()))
        }
    }

    /// Of A and of B, for a tile: `addresses` and `row_strides` in this order.
    pub fn of_operands(
        problem: &Problem,
        tile: Wgmma,
        addresses: [u64; 2],
        row_strides: [usize; 2],
    ) -> Result<[Self; 2], DriverError> {
        // There are no such tiles for fp32.
        let data_type = if problem.inputs == Inputs::Float16 {
            DataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16
        } else {
            DataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
        };
        // Where K runs along the rows, one box holds the whole tile; else boxes are 64 of K high.
        let height = |k_along_rows: bool, tile: usize| if k_along_rows { tile } else { Wgmma::BK };
        let a_height = height(problem.a == Layout::AsIs, Wgmma::BM);
        let b_height = height(problem.b == Layout::Transposed, tile.bn);
        let [a, b] = addresses;
        let [row_a, row_b] = row_strides;
        Ok([
            Self::new(a, problem.a_shape(), row_a, a_height, data_type)?,
            Self::new(b, problem.b_shape(), row_b, b_height, data_type)?,
        ])
    }
}
