//! cuBLAS: handles and the products that candle asks for.

use std::collections::HashMap;
use std::ffi::{c_int, c_uint};
use std::sync::Mutex;

use super::blas_status::{Compute, Outcome, Status, card, refuse, scale, submit};
use super::epilogue::Epilogue;
use super::gemm::{Kind, Matrix, Precision, Product};
use crate::driver::state::{cuda, lock, new_handle};

/// Version of the card's CUDA, as `cublasGetVersion` counts: 12.1.0 is 120100.
pub(super) fn version_of_blas() -> c_int {
    let (major, minor) = cuda();
    (major * 10_000 + minor * 100) as c_int
}

/// `CUBLAS_TF32_TENSOR_OP_MATH`.
const TF32: c_uint = 3;

/// What a handle stands for.
#[derive(Clone, Copy, Default)]
struct Blas {
    stream: usize,
    math_mode: c_uint,
    /// `CUBLAS_POINTER_MODE_DEVICE`: alpha and beta lie in the card's memory.
    scales_on_card: bool,
}

static HANDLES: Mutex<Option<HashMap<usize, Blas>>> = Mutex::new(None);

fn with<T>(handle: usize, work: impl FnOnce(&mut Blas) -> T) -> Outcome<T> {
    let mut handles = lock(&HANDLES);
    let blas = handles
        .as_mut()
        .and_then(|handles| handles.get_mut(&handle));
    blas.map(work).ok_or(Status::NOT_INITIALIZED)
}

/// # Safety
/// `out` is null or may be written.
unsafe fn write<T>(out: *mut T, value: T) -> Outcome {
    // SAFETY: as the caller promises.
    unsafe { crate::driver::guard::write(out, value) }.map_err(|_| Status::INVALID_VALUE)
}

/// # Safety
/// `handle` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasCreate_v2(handle: *mut usize) -> Status {
    card()
        .and_then(|driver| {
            if driver.planned_to_fail("cublasCreate_v2") {
                return Err(Status::NOT_INITIALIZED);
            }
            let new = new_handle();
            // SAFETY: as the caller promises.
            unsafe { write(handle, new) }?;
            lock(&HANDLES)
                .get_or_insert_default()
                .insert(new, Blas::default());
            Ok(())
        })
        .into()
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasDestroy_v2(handle: usize) -> Status {
    let removed = lock(&HANDLES)
        .as_mut()
        .and_then(|handles| handles.remove(&handle));
    removed.map(|_| ()).ok_or(Status::NOT_INITIALIZED).into()
}

/// # Safety
/// `version` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetVersion_v2(_handle: usize, version: *mut c_int) -> Status {
    // SAFETY: as the caller promises.
    unsafe { write(version, version_of_blas()) }.into()
}

/// # Safety
/// `value` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetProperty(property: c_uint, value: *mut c_int) -> Status {
    let version = version_of_blas();
    let found = match property {
        0 => version / 10_000,
        1 => version / 100 % 100,
        2 => version % 100,
        _ => return Status::INVALID_VALUE,
    };
    // SAFETY: as the caller promises.
    unsafe { write(value, found) }.into()
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasSetStream_v2(handle: usize, stream: usize) -> Status {
    with(handle, |blas| blas.stream = stream).into()
}

/// # Safety
/// `stream` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetStream_v2(handle: usize, stream: *mut usize) -> Status {
    // SAFETY: as the caller promises.
    with(handle, |blas| blas.stream)
        .and_then(|found| unsafe { write(stream, found) })
        .into()
}

/// Products need no workspace here; that it lies in memory is checked.
///
/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasSetWorkspace_v2(
    handle: usize,
    workspace: u64,
    bytes: usize,
) -> Status {
    let checked = card().and_then(|driver| match driver.memory.allocation_of(workspace) {
        _ if bytes == 0 => Ok(()),
        Some((start, length)) if workspace + bytes as u64 <= start + length => Ok(()),
        _ => Err(Status::INVALID_VALUE),
    });
    checked.and_then(|()| with(handle, |_| ())).into()
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasSetMathMode(handle: usize, mode: c_uint) -> Status {
    with(handle, |blas| blas.math_mode = mode).into()
}

/// # Safety
/// `mode` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetMathMode(handle: usize, mode: *mut c_uint) -> Status {
    // SAFETY: as the caller promises.
    with(handle, |blas| blas.math_mode)
        .and_then(|found| unsafe { write(mode, found) })
        .into()
}

/// # Safety
/// None is needed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasSetPointerMode_v2(handle: usize, mode: c_uint) -> Status {
    with(handle, |blas| blas.scales_on_card = mode == 1).into()
}

/// # Safety
/// `mode` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetPointerMode_v2(handle: usize, mode: *mut c_uint) -> Status {
    with(handle, |blas| c_uint::from(blas.scales_on_card))
        // SAFETY: as the caller promises.
        .and_then(|found| unsafe { write(mode, found) })
        .into()
}

/// A matrix as it is passed: address, `cudaDataType`, leading dimension, stride of the batch.
struct Passed(u64, c_uint, c_int, i64);

/// A product as it is passed.
struct Call {
    name: &'static str,
    handle: usize,
    transpose: [c_uint; 2],
    size: [c_int; 3],
    alpha: *const u8,
    beta: *const u8,
    a: Passed,
    b: Passed,
    c: Passed,
    batch: c_int,
    compute: c_uint,
}

impl Call {
    /// # Safety
    /// alpha and beta may be read where the pointer mode says that they are.
    unsafe fn submit(self) -> Outcome {
        let blas = with(self.handle, |blas| *blas)?;
        let driver = card()?;
        let compute = Compute::from_code(self.compute);
        let mut compute = compute.ok_or_else(|| refuse(self.name, "this type of computation"))?;
        let [m, n, k] = self.size.map(|side| usize::try_from(side).ok());
        let (Some(m), Some(n), Some(k)) = (m, n, k) else {
            return Err(Status::INVALID_VALUE);
        };
        let batch = usize::try_from(self.batch).map_err(|_| Status::INVALID_VALUE)?;
        let [transpose_a, transpose_b] = self.transpose.map(transposes);
        let (transpose_a, transpose_b) = (transpose_a?, transpose_b?);
        let a = self.a.matrix(self.name, if transpose_a { k } else { m })?;
        let b = self.b.matrix(self.name, if transpose_b { n } else { k })?;
        let c = self.c.matrix(self.name, m)?;
        compute.check(&driver, [a.kind, b.kind], c.kind)?;
        if blas.math_mode == TF32 && compute.sums == Kind::F32 && a.kind == Kind::F32 {
            compute.precision = Precision::Tf32;
        }
        let product = Product {
            name: self.name,
            m,
            n,
            k,
            batch,
            a,
            transpose_a,
            b,
            transpose_b,
            c,
            d: c,
            // SAFETY: as the caller promises.
            alpha: unsafe { scale(self.alpha, compute.sums, blas.scales_on_card) }?,
            // SAFETY: as the caller promises.
            beta: unsafe { scale(self.beta, compute.sums, blas.scales_on_card) }?,
            precision: compute.precision,
            double: compute.sums == Kind::F64,
            halves: false,
            epilogue: Epilogue::default(),
        };
        submit(&driver, blas.stream, product)
    }
}

/// A `cublasOperation_t`. Real numbers are their own conjugates.
pub(super) fn transposes(operation: c_uint) -> Outcome<bool> {
    match operation {
        0 => Ok(false),
        1 | 2 => Ok(true),
        _ => Err(Status::INVALID_VALUE),
    }
}

impl Passed {
    fn matrix(&self, name: &str, rows: usize) -> Outcome<Matrix> {
        let Passed(address, kind, leading, stride) = *self;
        let kind = Kind::from_code(kind).ok_or_else(|| refuse(name, "this type of matrix"))?;
        let leading = u64::try_from(leading).map_err(|_| Status::INVALID_VALUE)?;
        if leading < rows.max(1) as u64 {
            return Err(Status::INVALID_VALUE);
        }
        Ok(Matrix {
            address,
            kind,
            leading,
            by_rows: false,
            stride,
        })
    }
}

const F32: c_uint = 0;
const F64: c_uint = 1;
/// `CUBLAS_COMPUTE_32F` and `CUBLAS_COMPUTE_64F`.
const COMPUTE_F32: c_uint = 68;
const COMPUTE_F64: c_uint = 70;

/// Defines the entry points of one type: one product, and a batch.
macro_rules! typed {
    ($kind:ident $compute:ident $one:ident $batched:ident) => {
        /// # Safety
        /// alpha and beta may be read where the pointer mode says that they are.
        #[unsafe(no_mangle)]
        #[allow(clippy::too_many_arguments)]
        pub unsafe extern "C" fn $one(
            handle: usize,
            transpose_a: c_uint,
            transpose_b: c_uint,
            m: c_int,
            n: c_int,
            k: c_int,
            alpha: *const u8,
            a: u64,
            leading_a: c_int,
            b: u64,
            leading_b: c_int,
            beta: *const u8,
            c: u64,
            leading_c: c_int,
        ) -> Status {
            let call = Call {
                name: stringify!($one),
                handle,
                transpose: [transpose_a, transpose_b],
                size: [m, n, k],
                alpha,
                beta,
                a: Passed(a, $kind, leading_a, 0),
                b: Passed(b, $kind, leading_b, 0),
                c: Passed(c, $kind, leading_c, 0),
                batch: 1,
                compute: $compute,
            };
            // SAFETY: as the caller promises.
            unsafe { call.submit() }.into()
        }

        /// # Safety
        /// alpha and beta may be read where the pointer mode says that they are.
        #[unsafe(no_mangle)]
        #[allow(clippy::too_many_arguments)]
        pub unsafe extern "C" fn $batched(
            handle: usize,
            transpose_a: c_uint,
            transpose_b: c_uint,
            m: c_int,
            n: c_int,
            k: c_int,
            alpha: *const u8,
            a: u64,
            leading_a: c_int,
            stride_a: i64,
            b: u64,
            leading_b: c_int,
            stride_b: i64,
            beta: *const u8,
            c: u64,
            leading_c: c_int,
            stride_c: i64,
            batch: c_int,
        ) -> Status {
            let call = Call {
                name: stringify!($batched),
                handle,
                transpose: [transpose_a, transpose_b],
                size: [m, n, k],
                alpha,
                beta,
                a: Passed(a, $kind, leading_a, stride_a),
                b: Passed(b, $kind, leading_b, stride_b),
                c: Passed(c, $kind, leading_c, stride_c),
                batch,
                compute: $compute,
            };
            // SAFETY: as the caller promises.
            unsafe { call.submit() }.into()
        }
    };
}

typed!(F32 COMPUTE_F32 cublasSgemm_v2 cublasSgemmStridedBatched);
typed!(F64 COMPUTE_F64 cublasDgemm_v2 cublasDgemmStridedBatched);

/// # Safety
/// alpha and beta may be read where the pointer mode says that they are.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C" fn cublasGemmEx(
    handle: usize,
    transpose_a: c_uint,
    transpose_b: c_uint,
    m: c_int,
    n: c_int,
    k: c_int,
    alpha: *const u8,
    a: u64,
    kind_a: c_uint,
    leading_a: c_int,
    b: u64,
    kind_b: c_uint,
    leading_b: c_int,
    beta: *const u8,
    c: u64,
    kind_c: c_uint,
    leading_c: c_int,
    compute: c_uint,
    _algorithm: c_int,
) -> Status {
    let call = Call {
        name: "cublasGemmEx",
        handle,
        transpose: [transpose_a, transpose_b],
        size: [m, n, k],
        alpha,
        beta,
        a: Passed(a, kind_a, leading_a, 0),
        b: Passed(b, kind_b, leading_b, 0),
        c: Passed(c, kind_c, leading_c, 0),
        batch: 1,
        compute,
    };
    // SAFETY: as the caller promises.
    unsafe { call.submit() }.into()
}

/// # Safety
/// alpha and beta may be read where the pointer mode says that they are.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C" fn cublasGemmStridedBatchedEx(
    handle: usize,
    transpose_a: c_uint,
    transpose_b: c_uint,
    m: c_int,
    n: c_int,
    k: c_int,
    alpha: *const u8,
    a: u64,
    kind_a: c_uint,
    leading_a: c_int,
    stride_a: i64,
    b: u64,
    kind_b: c_uint,
    leading_b: c_int,
    stride_b: i64,
    beta: *const u8,
    c: u64,
    kind_c: c_uint,
    leading_c: c_int,
    stride_c: i64,
    batch: c_int,
    compute: c_uint,
    _algorithm: c_int,
) -> Status {
    let call = Call {
        name: "cublasGemmStridedBatchedEx",
        handle,
        transpose: [transpose_a, transpose_b],
        size: [m, n, k],
        alpha,
        beta,
        a: Passed(a, kind_a, leading_a, stride_a),
        b: Passed(b, kind_b, leading_b, stride_b),
        c: Passed(c, kind_c, leading_c, stride_c),
        batch,
        compute,
    };
    // SAFETY: as the caller promises.
    unsafe { call.submit() }.into()
}
