//! Tensor maps, by which the copy engine (TMA) of compute capability 9.0 finds the tiles of a matrix. The driver
//! makes them.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use cudarc::driver::sys::{
    CUtensorMap, CUtensorMapDataType as DataType, CUtensorMapFloatOOBfill as Fill,
    CUtensorMapInterleave as Interleave, CUtensorMapL2promotion as Promotion,
    CUtensorMapSwizzle as Swizzle, cuTensorMapEncodeTiled,
};
use cudarc::driver::{DeviceRepr, DriverError};

use super::operands::DeviceOperands;
use super::tile::Wgmma;
use crate::ops::gemm::{Layout, Problem};
use crate::terms::Inputs;

/// Argument of `gemm_wgmma` beside [`super::arguments::Arguments`]: one for A, one for B.
#[repr(transparent)]
pub(super) struct TensorMap(CUtensorMap);

// SAFETY: the same C struct on the device, 128 opaque bytes.
unsafe impl DeviceRepr for TensorMap {}

/// Elements per row of a box: 128 bytes, as wide as the swizzle.
const BOX_COLUMNS: u32 = 64;

impl TensorMap {
    /// Map of a row-major matrix of 16-bit elements, cut into boxes of `box_rows` rows and 64 columns. `shape`
    /// is (rows, columns).
    fn new(
        address: u64,
        shape: (usize, usize),
        row_stride: usize,
        box_rows: usize,
        data_type: DataType,
    ) -> Result<Self, DriverError> {
        let (rows, columns) = shape;
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

    /// Maps of A and B for a tile.
    pub fn of_operands(
        problem: &Problem,
        tile: Wgmma,
        operands: &DeviceOperands,
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
        let (a, b, strides) = (&operands.a, &operands.b, operands.strides());
        Ok([
            Self::new(
                a.address(),
                problem.a_shape(),
                strides.a,
                a_height,
                data_type,
            )?,
            Self::new(
                b.address(),
                problem.b_shape(),
                strides.b,
                b_height,
                data_type,
            )?,
        ])
    }
}
