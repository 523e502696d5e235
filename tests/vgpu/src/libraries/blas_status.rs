//! What both BLAS libraries return, and what their calls have in common.

use std::ffi::c_uint;
use std::sync::Arc;

use super::gemm::{Kind, Precision, Product, Scale};
use crate::driver::context;
use crate::driver::operation::Operation;
use crate::driver::result::CuResult;
use crate::driver::state::{Driver, current, say};

/// A `cublasStatus_t`.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub c_uint);

impl Status {
    pub const SUCCESS: Status = Status(0);
    pub const NOT_INITIALIZED: Status = Status(1);
    pub const ALLOC_FAILED: Status = Status(3);
    pub const INVALID_VALUE: Status = Status(7);
    pub const ARCH_MISMATCH: Status = Status(8);
    pub const EXECUTION_FAILED: Status = Status(13);
    pub const INTERNAL_ERROR: Status = Status(14);
    pub const NOT_SUPPORTED: Status = Status(15);
}

pub type Outcome<T = ()> = Result<T, Status>;

impl From<Outcome> for Status {
    fn from(outcome: Outcome) -> Status {
        outcome.err().unwrap_or(Status::SUCCESS)
    }
}

/// Says what is not there, for the caller to return.
pub fn refuse(function: &str, what: &str) -> Status {
    say(&format!("{function}: {what} is not implemented"));
    Status::NOT_SUPPORTED
}

/// The card, if this thread has a living context on it and nothing went wrong there.
pub fn card() -> Outcome<Arc<Driver>> {
    let driver = current().ok_or(Status::NOT_INITIALIZED)?;
    match context::check(&driver) {
        Ok(()) => Ok(driver),
        Err(CuResult::ERROR_INVALID_CONTEXT | CuResult::ERROR_CONTEXT_IS_DESTROYED) => {
            Err(Status::NOT_INITIALIZED)
        }
        Err(_) => Err(Status::EXECUTION_FAILED),
    }
}

/// Gives a stream a product to compute.
pub fn submit(driver: &Driver, stream: usize, product: Product) -> Outcome {
    let matrices = [product.a, product.b, product.c, product.d];
    let aligned = |kind: Kind, address: u64| address.is_multiple_of(kind.bytes());
    if !matrices
        .iter()
        .all(|matrix| aligned(matrix.kind, matrix.address))
    {
        return Err(Status::INVALID_VALUE);
    }
    // Nothing is planned for a product that would not be computed anyway.
    if driver.planned_to_fail(product.name) {
        return Err(Status::NOT_SUPPORTED);
    }
    driver
        .load_lazily(product.name)
        .map_err(|_| Status::ALLOC_FAILED)?;
    let work = move |memory: &crate::memory::ForOperation| product.run(memory);
    let operation = Operation::Library {
        name: product.name,
        work: Arc::new(work),
    };
    let submitted = driver.submit(stream, operation);
    submitted.map_err(|_| Status::EXECUTION_FAILED)
}

/// A `cublasComputeType_t`: what sums run in, how operands are rounded, what alpha and beta are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compute {
    pub sums: Kind,
    pub precision: Precision,
}

impl Compute {
    /// The numbers of `cublas_api.h`; the pedantic ones are odd.
    pub fn from_code(code: c_uint) -> Option<Compute> {
        let (sums, precision) = match code {
            64 | 65 => (Kind::F16, Precision::Full),
            68 | 69 => (Kind::F32, Precision::Full),
            70 | 71 => (Kind::F64, Precision::Full),
            74 => (Kind::F32, Precision::F16),
            75 => (Kind::F32, Precision::Bf16),
            77 => (Kind::F32, Precision::Tf32),
            _ => return None,
        };
        Some(Compute { sums, precision })
    }

    /// Whether the library multiplies these on this card: operands of one kind, and a result of the
    /// same kind or, for sums in f32, f32.
    pub fn check(self, driver: &Driver, operands: [Kind; 2], result: Kind) -> Outcome {
        let [a, b] = operands;
        let known = match self.sums {
            Kind::F32 if self.precision == Precision::Full => {
                a != Kind::F64 && (result == a || result == Kind::F32)
            }
            sums => a == sums && result == sums,
        };
        if a != b || !known {
            return Err(Status::NOT_SUPPORTED);
        }
        // Tensor cores take bf16 and tf32 from compute capability 8.0 on.
        let newer = driver.card.compute_capability.0 >= 8;
        if a == Kind::Bf16 && !newer {
            Err(Status::ARCH_MISMATCH)
        } else {
            Ok(())
        }
    }
}

/// alpha or beta, where the pointer mode says that it is.
///
/// # Safety
/// `from` is null or, in the host's memory, may be read.
pub unsafe fn scale(from: *const u8, kind: Kind, on_card: bool) -> Outcome<Scale> {
    if from.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    if on_card {
        let address = from as u64;
        return Ok(Scale::At { address, kind });
    }
    // SAFETY: not null, and the caller promises that a value of this kind may be read.
    Ok(Scale::Value(unsafe {
        match kind {
            Kind::F16 => half::f16::from_bits(from.cast::<u16>().read_unaligned()).to_f64(),
            Kind::Bf16 => half::bf16::from_bits(from.cast::<u16>().read_unaligned()).to_f64(),
            Kind::F32 => from.cast::<f32>().read_unaligned().into(),
            Kind::F64 => from.cast::<f64>().read_unaligned(),
        }
    }))
}
