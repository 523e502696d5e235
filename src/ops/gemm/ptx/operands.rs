//! Matrices on the device, checked against the problem before a kernel sees their addresses.

use candle_core::{DType, WithDType};
use cudarc::driver::{CudaStream, DevicePtr, DevicePtrMut, SyncOnDrop};

use super::fits::{Strides, VECTOR_BYTES};
use super::launch::PtxError;
use crate::ops::gemm::{Epilogue, Problem};
use crate::terms::Precision;

/// A row-major matrix in memory of the device.
pub struct DeviceMatrix<'a> {
    address: u64,
    dtype: DType,
    elements: usize,
    row_stride: usize,
    writable: bool,
    /// Records the stream's use with the memory's owner when it is dropped.
    _use: SyncOnDrop<'a>,
}

impl<'a> DeviceMatrix<'a> {
    /// Read-only matrix at the start of `memory`. `row_stride` is in elements.
    pub fn read<T: WithDType>(
        memory: &'a impl DevicePtr<T>,
        row_stride: usize,
        stream: &'a CudaStream,
    ) -> Self {
        let elements = memory.len();
        let (address, guard) = memory.device_ptr(stream);
        Self {
            address,
            dtype: T::DTYPE,
            elements,
            row_stride,
            writable: false,
            _use: guard,
        }
    }

    /// Writable matrix at the start of `memory`. `row_stride` is in elements.
    pub fn write<T: WithDType>(
        memory: &'a mut impl DevicePtrMut<T>,
        row_stride: usize,
        stream: &'a CudaStream,
    ) -> Self {
        let elements = memory.len();
        let (address, guard) = memory.device_ptr_mut(stream);
        Self {
            address,
            dtype: T::DTYPE,
            elements,
            row_stride,
            writable: true,
            _use: guard,
        }
    }

    /// Matrix in the `elements` elements at an address of the device. `row_stride` is in elements.
    ///
    /// # Safety
    /// For as long as the matrix lives, the elements are memory of the device, and nothing else touches them
    /// if they are writable.
    pub(in crate::ops::gemm) unsafe fn at(
        address: u64,
        dtype: DType,
        elements: usize,
        row_stride: usize,
        writable: bool,
        guard: SyncOnDrop<'a>,
    ) -> Self {
        Self {
            address,
            dtype,
            elements,
            row_stride,
            writable,
            _use: guard,
        }
    }

    pub(in crate::ops::gemm) fn address(&self) -> u64 {
        self.address
    }

    /// Checks that this can be the operand that a problem needs.
    fn check(&self, need: &Need) -> Result<(), PtxError> {
        let &Need {
            name,
            dtype,
            shape: (rows, columns),
            written,
        } = need;
        let last = rows.saturating_sub(1).saturating_mul(self.row_stride);
        let fits = rows == 0
            || columns == 0
            || (self.row_stride >= columns && last.saturating_add(columns) <= self.elements);
        let wrong = |what: String| Err(PtxError::Operand { name, what });
        if self.dtype != dtype {
            wrong(format!("is of {:?}, not of {dtype:?}", self.dtype))
        } else if !fits {
            wrong(format!(
                "is {rows} x {columns}, which does not fit in {} elements with {} per row",
                self.elements, self.row_stride
            ))
        } else if written && !self.writable {
            wrong("is written, and was given for reading".into())
        } else {
            Ok(())
        }
    }
}

/// candle's name for a precision.
pub(in crate::ops::gemm) fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::Float32 => DType::F32,
        Precision::Bfloat16 => DType::BF16,
        Precision::Float16 => DType::F16,
    }
}

/// Requirements of a problem on one operand.
struct Need {
    name: &'static str,
    dtype: DType,
    shape: (usize, usize),
    written: bool,
}

/// Operands of a GEMM in memory of the device. The bias is a matrix of one row.
pub struct DeviceOperands<'a> {
    pub a: DeviceMatrix<'a>,
    pub b: DeviceMatrix<'a>,
    pub c: DeviceMatrix<'a>,
    /// (N), in the inputs' precision.
    pub bias: Option<DeviceMatrix<'a>>,
    /// (M, N), in the inputs' precision: the argument of GELU. Written forward, read backward.
    pub aux: Option<DeviceMatrix<'a>>,
}

impl DeviceOperands<'_> {
    /// Checks the operands against the problem.
    ///
    /// # Errors
    /// [`PtxError::Operand`]: one is missing, too small, of another type or read-only.
    pub(super) fn check(&self, problem: &Problem) -> Result<(), PtxError> {
        let input = dtype(problem.inputs.storage());
        let output = dtype(problem.output_precision());
        let need = |name, dtype, shape, written| Need {
            name,
            dtype,
            shape,
            written,
        };
        let c_shape = (problem.m, problem.n);
        self.a.check(&need("A", input, problem.a_shape(), false))?;
        self.b.check(&need("B", input, problem.b_shape(), false))?;
        self.c.check(&need("C", output, c_shape, true))?;
        let (bias, aux, aux_written) = match problem.epilogue {
            Epilogue::None => (false, false, false),
            Epilogue::Bias => (true, false, false),
            Epilogue::BiasGelu(_) => (true, true, true),
            Epilogue::GeluBackward(_) => (false, true, false),
        };
        let bias = bias.then(|| need("the bias", input, (1, problem.n), false));
        let aux = aux.then(|| need("the auxiliary matrix", input, c_shape, aux_written));
        for (given, need) in [(&self.bias, bias), (&self.aux, aux)] {
            match (given, need) {
                (_, None) => {}
                (Some(given), Some(need)) => given.check(&need)?,
                (None, Some(Need { name, .. })) => {
                    let what = "is missing".into();
                    return Err(PtxError::Operand { name, what });
                }
            }
        }
        Ok(())
    }

    /// Checks that each is aligned to 16 bytes.
    ///
    /// # Errors
    /// [`PtxError::Operand`]
    pub(in crate::ops::gemm) fn check_addresses(&self) -> Result<(), PtxError> {
        let rest = [
            ("the bias", &self.bias),
            ("the auxiliary matrix", &self.aux),
        ];
        let rest = rest
            .into_iter()
            .filter_map(|(name, matrix)| Some((name, matrix.as_ref()?)));
        for (name, matrix) in [("A", &self.a), ("B", &self.b), ("C", &self.c)]
            .into_iter()
            .chain(rest)
        {
            if !matrix.address.is_multiple_of(VECTOR_BYTES as u64) {
                let what = format!("must begin at a multiple of {VECTOR_BYTES} bytes");
                return Err(PtxError::Operand { name, what });
            }
        }
        Ok(())
    }

    /// Checks the operands against the problem, and that their rows have no gaps between them.
    ///
    /// # Errors
    /// [`PtxError::Operand`]
    pub(in crate::ops::gemm) fn check_dense(&self, problem: &Problem) -> Result<(), PtxError> {
        self.check(problem)?;
        let matrices = [
            ("A", Some(&self.a), problem.a_shape().1),
            ("B", Some(&self.b), problem.b_shape().1),
            ("C", Some(&self.c), problem.n),
            ("the auxiliary matrix", self.aux.as_ref(), problem.n),
        ];
        for (name, matrix, columns) in matrices {
            if matrix.is_some_and(|matrix| matrix.row_stride != columns) {
                let what = format!("has more than its {columns} elements per row");
                return Err(PtxError::Operand { name, what });
            }
        }
        Ok(())
    }

    pub(super) fn strides(&self) -> Strides {
        Strides {
            a: self.a.row_stride,
            b: self.b.row_stride,
            c: self.c.row_stride,
            aux: self.aux.as_ref().map(|aux| aux.row_stride),
        }
    }
}
