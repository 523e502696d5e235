//! cuBLASLt's handles and descriptors. Scales of operands, layouts other than by columns and by rows and most
//! epilogues are refused.

use std::collections::HashMap;
use std::ffi::c_uint;
use std::sync::Mutex;

use super::blas::version_of_blas;
use super::blas_status::{Outcome, Status, card, refuse};
use crate::driver::guard;
use crate::driver::state::{lock, new_handle};

/// What handles stand for.
#[derive(Default)]
pub(super) struct Objects {
    pub handles: HashMap<usize, ()>,
    pub operations: HashMap<usize, Operation>,
    pub layouts: HashMap<usize, Layout>,
    pub preferences: HashMap<usize, Preference>,
}

/// A `cublasLtMatmulDesc_t`.
#[derive(Clone, Copy)]
pub(super) struct Operation {
    pub compute: c_uint,
    pub scale: c_uint,
    pub scales_on_card: bool,
    pub transpose: [c_uint; 2],
    /// A `cublasLtEpilogue_t`.
    pub epilogue: c_uint,
    pub bias: u64,
    pub aux: u64,
    pub aux_leading: i64,
}

/// A `cublasLtMatrixLayout_t`.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub kind: c_uint,
    pub by_rows: bool,
    pub rows: u64,
    pub columns: u64,
    pub leading: i64,
    pub batch: u32,
    pub stride: i64,
}

/// A `cublasLtMatmulPreference_t`.
#[derive(Clone, Copy)]
pub(super) struct Preference {
    pub workspace_bytes: u64,
    /// Bits of the `cublasLtReductionScheme_t`s that an algorithm may have.
    pub reductions: u32,
}

impl Default for Preference {
    /// No workspace, and `CUBLASLT_REDUCTION_SCHEME_MASK`: all of them.
    fn default() -> Self {
        Self {
            workspace_bytes: 0,
            reductions: 7,
        }
    }
}

static OBJECTS: Mutex<Option<Objects>> = Mutex::new(None);

pub(super) fn with<T>(work: impl FnOnce(&mut Objects) -> T) -> T {
    work(lock(&OBJECTS).get_or_insert_default())
}

/// # Safety
/// `out` is null or may be written.
pub(super) unsafe fn write<T>(out: *mut T, value: T) -> Outcome {
    // SAFETY: as the caller promises.
    unsafe { guard::write(out, value) }.map_err(|_| Status::INVALID_VALUE)
}

/// The value of an attribute, of exactly its size.
///
/// # Safety
/// `bytes` of `value` may be read.
unsafe fn attribute<T: Copy>(value: *const u8, bytes: usize) -> Outcome<T> {
    if bytes != size_of::<T>() {
        return Err(Status::INVALID_VALUE);
    }
    // SAFETY: as the caller promises, and it is as large as `T`.
    unsafe { guard::read(value.cast()) }.map_err(|_| Status::INVALID_VALUE)
}

/// # Safety
/// `handle` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtCreate(handle: *mut usize) -> Status {
    card()
        .and_then(|driver| {
            if driver.planned_to_fail("cublasLtCreate") {
                return Err(Status::NOT_INITIALIZED);
            }
            let new = new_handle();
            with(|objects| objects.handles.insert(new, ()));
            // SAFETY: as the caller promises.
            unsafe { write(handle, new) }
        })
        .into()
}

/// Version of cuBLAS.
#[unsafe(no_mangle)]
pub extern "C" fn cublasLtGetVersion() -> usize {
    version_of_blas() as usize
}

/// Defines how something is forgotten.
macro_rules! destroy {
    ($name:ident $table:ident $missing:ident) => {
        /// # Safety
        /// None is needed.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(handle: usize) -> Status {
            let removed = with(|objects| objects.$table.remove(&handle));
            removed.map(|_| ()).ok_or(Status::$missing).into()
        }
    };
}
destroy!(cublasLtDestroy handles NOT_INITIALIZED);
destroy!(cublasLtMatmulDescDestroy operations INVALID_VALUE);
destroy!(cublasLtMatrixLayoutDestroy layouts INVALID_VALUE);
destroy!(cublasLtMatmulPreferenceDestroy preferences INVALID_VALUE);

/// # Safety
/// `operation` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulDescCreate(
    operation: *mut usize,
    compute: c_uint,
    scale: c_uint,
) -> Status {
    let new = new_handle();
    let created = Operation {
        compute,
        scale,
        scales_on_card: false,
        transpose: [0, 0],
        epilogue: NO_EPILOGUE,
        bias: 0,
        aux: 0,
        aux_leading: 0,
    };
    with(|objects| objects.operations.insert(new, created));
    // SAFETY: as the caller promises.
    unsafe { write(operation, new) }.into()
}

/// `CUBLASLT_EPILOGUE_DEFAULT`: none.
const NO_EPILOGUE: c_uint = 1;
/// BIAS, GELU_AUX, GELU_AUX_BIAS, DGELU.
const EPILOGUES: [c_uint; 5] = [NO_EPILOGUE, 4, 160, 164, 192];

/// # Safety
/// `bytes` of `value` may be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulDescSetAttribute(
    operation: usize,
    which: c_uint,
    value: *const u8,
    bytes: usize,
) -> Status {
    with(|objects| {
        let operation = objects.operations.get_mut(&operation);
        let operation = operation.ok_or(Status::INVALID_VALUE)?;
        // SAFETY: as the caller promises.
        let number = unsafe { attribute::<c_uint>(value, bytes) };
        match which {
            0 => operation.compute = number?,
            1 => operation.scale = number?,
            2 => operation.scales_on_card = number? == 1,
            3 => operation.transpose[0] = number?,
            4 => operation.transpose[1] = number?,
            7 if EPILOGUES.contains(&number?) => operation.epilogue = number?,
            // SAFETY: as the caller promises.
            8 => operation.bias = unsafe { attribute(value, bytes) }?,
            // SAFETY: as the caller promises.
            11 => operation.aux = unsafe { attribute(value, bytes) }?,
            // SAFETY: as the caller promises.
            12 => operation.aux_leading = unsafe { attribute(value, bytes) }?,
            // How many SMs it should use, and how exactly it sums in 8 bits.
            15 | 25 => {}
            7 => return Err(refuse("cublasLtMatmulDescSetAttribute", "this epilogue")),
            _ => {
                let attribute = format!("attribute {which}");
                return Err(refuse("cublasLtMatmulDescSetAttribute", &attribute));
            }
        }
        Ok(())
    })
    .into()
}

/// # Safety
/// `layout` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatrixLayoutCreate(
    layout: *mut usize,
    kind: c_uint,
    rows: u64,
    columns: u64,
    leading: i64,
) -> Status {
    let new = new_handle();
    let created = Layout {
        kind,
        by_rows: false,
        rows,
        columns,
        leading,
        batch: 1,
        stride: 0,
    };
    with(|objects| objects.layouts.insert(new, created));
    // SAFETY: as the caller promises.
    unsafe { write(layout, new) }.into()
}

/// # Safety
/// `bytes` of `value` may be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatrixLayoutSetAttribute(
    layout: usize,
    which: c_uint,
    value: *const u8,
    bytes: usize,
) -> Status {
    with(|objects| {
        let layout = objects.layouts.get_mut(&layout);
        let layout = layout.ok_or(Status::INVALID_VALUE)?;
        // SAFETY: as the caller promises.
        let (short, long) = unsafe { (attribute(value, bytes), attribute(value, bytes)) };
        match which {
            0 => layout.kind = short?,
            1 if short? <= 1 => layout.by_rows = short? == 1,
            1 => return Err(refuse("cublasLtMatrixLayoutSetAttribute", "a tiled order")),
            // SAFETY: as the caller promises.
            2 => layout.rows = unsafe { attribute(value, bytes) }?,
            // SAFETY: as the caller promises.
            3 => layout.columns = unsafe { attribute(value, bytes) }?,
            4 => layout.leading = long?,
            5 => layout.batch = short?,
            6 => layout.stride = long?,
            _ => {
                let attribute = format!("attribute {which}");
                return Err(refuse("cublasLtMatrixLayoutSetAttribute", &attribute));
            }
        }
        Ok(())
    })
    .into()
}

/// # Safety
/// `preference` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulPreferenceCreate(preference: *mut usize) -> Status {
    let new = new_handle();
    with(|objects| objects.preferences.insert(new, Preference::default()));
    // SAFETY: as the caller promises.
    unsafe { write(preference, new) }.into()
}

/// Alignments and search modes make no difference to what is found here.
///
/// # Safety
/// `bytes` of `value` may be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasLtMatmulPreferenceSetAttribute(
    preference: usize,
    which: c_uint,
    value: *const u8,
    bytes: usize,
) -> Status {
    with(|objects| {
        let preference = objects.preferences.get_mut(&preference);
        let preference = preference.ok_or(Status::INVALID_VALUE)?;
        match which {
            // SAFETY: as the caller promises.
            1 => preference.workspace_bytes = unsafe { attribute(value, bytes) }?,
            // SAFETY: as the caller promises.
            3 => preference.reductions = unsafe { attribute(value, bytes) }?,
            0 | 5..=9 | 12 => {}
            _ => {
                let attribute = format!("attribute {which}");
                return Err(refuse("cublasLtMatmulPreferenceSetAttribute", &attribute));
            }
        }
        Ok(())
    })
    .into()
}
