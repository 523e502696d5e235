//! cuBLASLt's heuristic and its product.

use std::ffi::c_int;
use std::sync::Arc;

use super::WRONG_PRODUCT;
use super::blas::transposes;
use super::blas_lt::{Layout, Operation, with, write};
use super::blas_status::{Compute, Outcome, Status, card, refuse, scale, submit};
use super::epilogue::{Epilogue, Gelu};
use super::gemm::{Kind, Matrix, Product, Scale};
use super::lt_algorithm::{Algorithm, Configuration, recommended};
use crate::driver::state::Driver;

/// A `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
pub struct Found {
    algorithm: Algorithm,
    workspace_bytes: usize,
    state: Status,
    waves: f32,
    reserved: [c_int; 4],
}

/// The matrices of a call, with their layouts: A, B, C, D.
struct Call {
    name: &'static str,
    operation: usize,
    layouts: [usize; 4],
    addresses: [u64; 4],
}

impl Call {
    /// The product, without alpha and beta.
    fn product(&self, driver: &Driver) -> Outcome<(Operation, Compute, [usize; 4], [Matrix; 4])> {
        let found = with(|objects| {
            let operation = objects.operations.get(&self.operation).copied();
            let layouts = self
                .layouts
                .map(|layout| objects.layouts.get(&layout).copied());
            operation.zip(layouts.into_iter().collect::<Option<Vec<_>>>())
        });
        let (operation, layouts) = found.ok_or(Status::INVALID_VALUE)?;
        let compute = Compute::from_code(operation.compute);
        let compute = compute.ok_or_else(|| refuse(self.name, "this type of computation"))?;
        if Kind::from_code(operation.scale) != Some(compute.sums) {
            return Err(Status::NOT_SUPPORTED);
        }
        let mut matrices = Vec::new();
        for (layout, address) in layouts.iter().zip(self.addresses) {
            matrices.push(layout.matrix(self.name, address)?);
        }
        let shapes = [0, 1].map(|index| {
            let Layout { rows, columns, .. } = layouts[index];
            transposes(operation.transpose[index]).map(|transposed| {
                if transposed {
                    (columns, rows)
                } else {
                    (rows, columns)
                }
            })
        });
        let [(m, k), (k_too, n)] = [shapes[0]?, shapes[1]?];
        let results = layouts[2..]
            .iter()
            .all(|layout| (layout.rows, layout.columns) == (m, n));
        let batch = layouts[3].batch;
        let batches = layouts.iter().all(|layout| layout.batch == batch);
        if k != k_too || !results || !batches {
            return Err(Status::INVALID_VALUE);
        }
        let [a, b, c, d] = [matrices[0], matrices[1], matrices[2], matrices[3]];
        if c.kind != d.kind {
            return Err(Status::NOT_SUPPORTED);
        }
        compute
            .check(driver, [a.kind, b.kind], d.kind)
            .map_err(|_| Status::NOT_SUPPORTED)?;
        let size = [m as usize, n as usize, k as usize, batch as usize];
        Ok((operation, compute, size, [a, b, c, d]))
    }
}

impl Layout {
    fn matrix(&self, name: &str, address: u64) -> Outcome<Matrix> {
        let kind = Kind::from_code(self.kind);
        let run = if self.by_rows {
            self.columns
        } else {
            self.rows
        };
        let leading = u64::try_from(self.leading).map_err(|_| Status::INVALID_VALUE)?;
        if leading < run {
            return Err(Status::INVALID_VALUE);
        }
        Ok(Matrix {
            address,
            kind: kind.ok_or_else(|| refuse(name, "this type of matrix"))?,
            leading,
            by_rows: self.by_rows,
            stride: self.stride,
        })
    }
}

/// # Safety
/// `found` is null or as many results may be written; `count` is null or may be written.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C" fn cublasLtMatmulAlgoGetHeuristic(
    handle: usize,
    operation: usize,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    preference: usize,
    wanted: c_int,
    found: *mut Found,
    count: *mut c_int,
) -> Status {
    let call = Call {
        name: "cublasLtMatmulAlgoGetHeuristic",
        operation,
        layouts: [a, b, c, d],
        addresses: [0; 4],
    };
    let found = checked(handle).and_then(|driver| {
        // SAFETY: as the caller promises.
        unsafe { write(count, 0) }?;
        let (_, _, [_, _, k, _], _) = call.product(&driver)?;
        if driver.planned_to_fail(call.name) {
            return Err(Status::NOT_SUPPORTED);
        }
        let preference = with(|objects| objects.preferences.get(&preference).copied());
        let algorithms = recommended(preference.ok_or(Status::INVALID_VALUE)?, k);
        let algorithms = algorithms.take(wanted.max(0) as usize);
        for (place, (algorithm, configuration)) in algorithms.enumerate() {
            let result = Found {
                algorithm,
                workspace_bytes: configuration.workspace_bytes as usize,
                state: Status::SUCCESS,
                waves: 1.0,
                reserved: [0; 4],
            };
            // SAFETY: as the caller promises: fewer than `wanted` were written before.
            unsafe {
                write(found.wrapping_add(place), result)?;
                write(count, place as c_int + 1)?;
            }
        }
        Ok(())
    });
    found.into()
}

fn checked(handle: usize) -> Outcome<Arc<Driver>> {
    if with(|objects| objects.handles.contains_key(&handle)) {
        card()
    } else {
        Err(Status::NOT_INITIALIZED)
    }
}

/// # Safety
/// alpha and beta may be read where the pointer mode says that they are; `algorithm` is null or may be read.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C" fn cublasLtMatmul(
    handle: usize,
    operation: usize,
    alpha: *const u8,
    a: u64,
    layout_a: usize,
    b: u64,
    layout_b: usize,
    beta: *const u8,
    c: u64,
    layout_c: usize,
    d: u64,
    layout_d: usize,
    algorithm: *const Algorithm,
    workspace: u64,
    workspace_bytes: usize,
    stream: usize,
) -> Status {
    let call = Call {
        name: "cublasLtMatmul",
        operation,
        layouts: [layout_a, layout_b, layout_c, layout_d],
        addresses: [a, b, c, d],
    };
    let done = checked(handle).and_then(|driver| {
        let (operation, compute, [m, n, k, batch], [a, b, c, d]) = call.product(&driver)?;
        // SAFETY: as the caller promises.
        let chosen = unsafe { chosen(&driver, algorithm, workspace, workspace_bytes) }?;
        let on_card = operation.scales_on_card;
        // SAFETY: as the caller promises.
        let mut alpha = unsafe { scale(alpha, compute.sums, on_card) }?;
        if driver.planned_to_fail(WRONG_PRODUCT) {
            alpha = Scale::Value(1.5);
        }
        let product = Product {
            name: call.name,
            m,
            n,
            k,
            batch,
            a,
            transpose_a: transposes(operation.transpose[0])?,
            b,
            transpose_b: transposes(operation.transpose[1])?,
            c,
            d,
            alpha,
            // SAFETY: as the caller promises.
            beta: unsafe { scale(beta, compute.sums, on_card) }?,
            precision: compute.precision,
            double: compute.sums == Kind::F64,
            halves: chosen.is_some_and(Configuration::halves),
            epilogue: epilogue(&operation, d)?,
        };
        submit(&driver, stream, product)
    });
    done.into()
}

/// Of a product that is written to `d`. Pointers are needed here only, not by the heuristic.
fn epilogue(operation: &Operation, d: Matrix) -> Outcome<Epilogue> {
    let there = |address: u64| match address {
        0 => Err(Status::INVALID_VALUE),
        address => Outcome::Ok(address),
    };
    // D's type and order; rows of a multiple of eight, aligned to 16 bytes, as the library documents.
    let aux = || -> Outcome<Matrix> {
        let address = there(operation.aux)?;
        if operation.aux_leading % 8 == 0 && address.is_multiple_of(16) && operation.aux_leading > 0
        {
            Ok(Matrix {
                address,
                leading: operation.aux_leading as u64,
                ..d
            })
        } else {
            Err(Status::INVALID_VALUE)
        }
    };
    let bias = || -> Outcome<_> { Ok(Some((there(operation.bias)?, d.kind))) };
    let (bias, gelu) = match operation.epilogue {
        4 => (bias()?, None),
        160 => (None, Some(Gelu::Forward(Some(aux()?)))),
        164 => (bias()?, Some(Gelu::Forward(Some(aux()?)))),
        192 => (None, Some(Gelu::Backward(aux()?))),
        _ => (None, None),
    };
    Ok(Epilogue { bias, gelu })
}

/// The algorithm, which is one of ours and has its workspace. None chosen: one without workspace.
///
/// # Safety
/// `algorithm` is null or may be read.
unsafe fn chosen(
    driver: &Driver,
    algorithm: *const Algorithm,
    workspace: u64,
    bytes: usize,
) -> Outcome<Option<&'static Configuration>> {
    if algorithm.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, and as the caller promises.
    let configuration = unsafe { algorithm.read_unaligned() }.configuration()?;
    let needs = configuration.workspace_bytes;
    let lies = driver.memory.allocation_of(workspace);
    let there = lies.is_some_and(|(start, length)| workspace + needs <= start + length);
    if needs == 0 || (needs <= bytes as u64 && there) {
        Ok(Some(configuration))
    } else {
        Err(Status::INVALID_VALUE)
    }
}
