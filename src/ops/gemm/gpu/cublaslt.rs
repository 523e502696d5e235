//! cuBLASLt: the algorithms of its heuristic, each pinned, with one fixed workspace.
//!
//! The library is column-major. It computes C^T (N, M) = op(B)^T (N, K) op(A)^T (K, M): its A is our B. Its bias
//! runs along its rows, which are our columns.

use std::ffi::c_void;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{self, cublasLtEpilogue_t as Epilogues, cublasStatus_t as Status};
use sha2::{Digest, Sha256};

use crate::ops::gemm::ptx::{DeviceMatrix, DeviceOperands};
use crate::ops::gemm::{Epilogue, Layout, Problem};
use crate::terms::{Gelu, Inputs, Precision};

/// Smallest alignment of pointers: `DeviceOperands::check_addresses`.
static ALIGNMENT_BYTES: u32 = 16;

/// Refusal or failure of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cuBLASLt {what} ({status:?})")]
pub struct LtError {
    pub what: &'static str,
    pub status: Status,
}

impl LtError {
    pub fn is_out_of_memory(&self) -> bool {
        self.status == Status::CUBLAS_STATUS_ALLOC_FAILED
    }

    fn at(what: &'static str) -> impl Fn(CublasError) -> Self {
        move |CublasError(status)| Self { what, status }
    }
}

/// Handle of the library.
#[derive(Debug)]
pub struct CublasLt {
    handle: sys::cublasLtHandle_t,
}

impl CublasLt {
    /// # Errors
    /// [`LtError`] where the library is missing, or has no memory to start.
    pub fn start() -> Result<Self, LtError> {
        let handle = result::create_handle().map_err(LtError::at("does not start"))?;
        Ok(Self { handle })
    }

    /// Version of the library: 130100 is 13.1.0.
    pub fn version() -> usize {
        // SAFETY: takes and changes nothing.
        unsafe { sys::cublasLtGetVersion() }
    }
}

impl Drop for CublasLt {
    fn drop(&mut self) {
        // SAFETY: made by `start` and destroyed once. What fails here cannot be helped.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// Pinned algorithm of the heuristic: every launch is the same.
#[derive(Clone, Copy, Debug)]
pub struct Algorithm {
    raw: sys::cublasLtMatmulAlgo_t,
    /// Tells algorithms apart in the text of a candidate.
    pub fingerprint: u32,
}

impl Algorithm {
    fn new(raw: sys::cublasLtMatmulAlgo_t) -> Self {
        Self {
            fingerprint: fingerprint(&raw),
            raw,
        }
    }
}

/// Hash of an algorithm's attributes. Its raw bytes are opaque, and may differ from process to process.
fn fingerprint(algorithm: &sys::cublasLtMatmulAlgo_t) -> u32 {
    use sys::cublasLtMatmulAlgoConfigAttributes_t as Attribute;
    // All of the attributes that CUDA 12.1 knows, with their sizes: "cublasLtMatmulAlgoConfigAttributes_t".
    let attributes = [
        (Attribute::CUBLASLT_ALGO_CONFIG_ID, 4),
        (Attribute::CUBLASLT_ALGO_CONFIG_TILE_ID, 4),
        (Attribute::CUBLASLT_ALGO_CONFIG_SPLITK_NUM, 4),
        (Attribute::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, 4),
        (Attribute::CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, 4),
        (Attribute::CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, 4),
        (Attribute::CUBLASLT_ALGO_CONFIG_STAGES_ID, 4),
        (Attribute::CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, 2),
        (Attribute::CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, 2),
    ];
    let mut hash = Sha256::new();
    for (attribute, bytes) in attributes {
        let (mut value, mut written) = ([0u8; 4], 0);
        // SAFETY: the algorithm is one of the library's, and up to four bytes are written to `value`.
        let status = unsafe {
            let value = value.as_mut_ptr().cast();
            sys::cublasLtMatmulAlgoConfigGetAttribute(
                algorithm,
                attribute,
                value,
                bytes,
                &mut written,
            )
        };
        // A library that does not know the attribute says nothing of it in any process.
        hash.update([u8::from(status == Status::CUBLAS_STATUS_SUCCESS)]);
        hash.update(value);
    }
    let digest = hash.finalize();
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// Descriptor of the library; destroyed when dropped.
#[derive(Debug)]
struct Descriptor<T: Copy> {
    raw: T,
    destroy: unsafe fn(T) -> Result<(), CublasError>,
}

impl<T: Copy> Drop for Descriptor<T> {
    fn drop(&mut self) {
        // SAFETY: `raw` was made by the function that belongs to `destroy`, and is destroyed once.
        let _ = unsafe { (self.destroy)(self.raw) };
    }
}

/// Addresses of a GEMM's operands on the GPU; null for those it does not have.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub a: u64,
    pub b: u64,
    pub c: u64,
    pub bias: u64,
    pub aux: u64,
}

/// Scratch of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Workspace {
    pub address: u64,
    pub bytes: usize,
}

impl DeviceOperands<'_> {
    pub(super) fn addresses(&self) -> Addresses {
        let address = |matrix: &Option<DeviceMatrix>| matrix.as_ref().map_or(0, |m| m.address());
        Addresses {
            a: self.a.address(),
            b: self.b.address(),
            c: self.c.address(),
            bias: address(&self.bias),
            aux: address(&self.aux),
        }
    }
}

/// A problem with dense operands, described to the library.
#[derive(Debug)]
pub struct Description {
    problem: Problem,
    operation: Descriptor<sys::cublasLtMatmulDesc_t>,
    a: Descriptor<sys::cublasLtMatrixLayout_t>,
    b: Descriptor<sys::cublasLtMatrixLayout_t>,
    c: Descriptor<sys::cublasLtMatrixLayout_t>,
}

impl Description {
    /// # Errors
    /// When the library cannot express the problem.
    pub fn new(problem: &Problem) -> Result<Self, LtError> {
        let failed = LtError::at("has no descriptor for this");
        // The library takes bias and aux in C's type.
        if problem.epilogue != Epilogue::None && !problem.has_output_like_inputs() {
            return Err(LtError {
                what: "has no epilogue with another type than C's",
                status: Status::CUBLAS_STATUS_NOT_SUPPORTED,
            });
        }
        let compute = if problem.inputs == Inputs::Tf32 {
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32
        } else {
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F
        };
        let operation = Descriptor {
            raw: result::create_matmul_desc(compute, sys::cudaDataType::CUDA_R_32F)
                .map_err(&failed)?,
            destroy: result::destroy_matmul_desc,
        };
        let input = data_type(problem.inputs.storage());
        let layout = |kind, (rows, columns): (usize, usize)| {
            // A row-major matrix is its transpose by columns.
            let raw =
                result::create_matrix_layout(kind, columns as u64, rows as u64, columns as i64);
            Ok(Descriptor {
                raw: raw.map_err(&failed)?,
                destroy: result::destroy_matrix_layout,
            })
        };
        let description = Self {
            problem: *problem,
            operation,
            a: layout(input, problem.b_shape())?,
            b: layout(input, problem.a_shape())?,
            c: layout(
                data_type(problem.output_precision()),
                (problem.m, problem.n),
            )?,
        };
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let transposes = |layout| u32::from(layout == Layout::Transposed);
        description.set(
            Attribute::CUBLASLT_MATMUL_DESC_TRANSA,
            transposes(problem.b),
        )?;
        description.set(
            Attribute::CUBLASLT_MATMUL_DESC_TRANSB,
            transposes(problem.a),
        )?;
        let epilogue = epilogue(problem.epilogue).map_err(|what| LtError {
            what,
            status: Status::CUBLAS_STATUS_NOT_SUPPORTED,
        })?;
        description.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue as u32)?;
        if has_aux(problem.epilogue) {
            let leading = problem.n as i64;
            description.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, leading)?;
        }
        Ok(description)
    }

    fn set<T>(
        &self,
        attribute: sys::cublasLtMatmulDescAttributes_t,
        value: T,
    ) -> Result<(), LtError> {
        // SAFETY: the descriptor lives, and so does `value`, of the size that is given; the library copies it.
        unsafe {
            let value: *const T = &value;
            result::set_matmul_desc_attribute(
                self.operation.raw,
                attribute,
                value.cast(),
                size_of::<T>(),
            )
        }
        .map_err(LtError::at("takes no such attribute"))
    }

    /// Up to `wanted` distinct algorithms, expected to be the fastest first.
    ///
    /// # Errors
    /// When the library has none.
    pub fn heuristic(
        &self,
        library: &CublasLt,
        workspace_bytes: usize,
        wanted: usize,
    ) -> Result<Vec<Algorithm>, LtError> {
        let mut algorithms: Vec<Algorithm> = Vec::new();
        for found in self.ask(library, &preference(workspace_bytes)?, wanted)? {
            let algorithm = Algorithm::new(found.algo);
            let same = |other: &Algorithm| other.fingerprint == algorithm.fingerprint;
            if !algorithms.iter().any(same) {
                algorithms.push(algorithm);
            }
        }
        if algorithms.is_empty() {
            let status = CublasError(Status::CUBLAS_STATUS_NOT_SUPPORTED);
            return Err(no_algorithm(status));
        }
        Ok(algorithms)
    }

    /// Usable results of the library's heuristic, `wanted` at most.
    fn ask(
        &self,
        library: &CublasLt,
        preference: &Descriptor<sys::cublasLtMatmulPreference_t>,
        wanted: usize,
    ) -> Result<Vec<sys::cublasLtMatmulHeuristicResult_t>, LtError> {
        let empty = sys::cublasLtMatmulHeuristicResult_t {
            algo: sys::cublasLtMatmulAlgo_t { data: [0; 8] },
            workspaceSize: 0,
            state: Status::CUBLAS_STATUS_NOT_SUPPORTED,
            wavesCount: 0.0,
            reserved: [0; 4],
        };
        let mut found = vec![empty; wanted];
        let mut count = 0;
        // SAFETY: the descriptors live; at most `wanted` results are written.
        unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                library.handle,
                self.operation.raw,
                self.a.raw,
                self.b.raw,
                self.c.raw,
                self.c.raw,
                preference.raw,
                wanted as i32,
                found.as_mut_ptr(),
                &mut count,
            )
        }
        .result()
        .map_err(no_algorithm)?;
        found.truncate(usize::try_from(count).unwrap_or(0));
        found.retain(|found| found.state == Status::CUBLAS_STATUS_SUCCESS);
        Ok(found)
    }

    /// Puts the GEMM on a stream. The caller has checked that the addresses are those of the problem's operands, and
    /// that these are dense.
    ///
    /// # Errors
    /// The library's; nothing was written then.
    pub fn launch(
        &self,
        library: &CublasLt,
        algorithm: &Algorithm,
        operands: &Addresses,
        workspace: Workspace,
        stream: sys::cudaStream_t,
    ) -> Result<(), LtError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        if has_bias(self.problem.epilogue) {
            self.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.bias)?;
        }
        if has_aux(self.problem.epilogue) {
            let pointer = Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER;
            self.set(pointer, operands.aux)?;
        }
        let (alpha, beta) = (1f32, f32::from(u8::from(self.problem.accumulate)));
        let pointer = |address: u64| address as *const c_void;
        let c = operands.c as *mut c_void;
        // SAFETY: the descriptors live and describe what lies at the addresses (the caller has checked the
        // operands); alpha and beta are read by the host; the workspace is as large as is said.
        unsafe {
            result::matmul(
                library.handle,
                self.operation.raw,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                pointer(operands.b),
                self.a.raw,
                pointer(operands.a),
                self.b.raw,
                c,
                self.c.raw,
                c,
                self.c.raw,
                &algorithm.raw,
                workspace.address as *mut c_void,
                workspace.bytes,
                stream,
            )
        }
        .map_err(LtError::at("did not multiply"))
    }
}

fn no_algorithm(error: CublasError) -> LtError {
    LtError::at("has no algorithm")(error)
}

/// Constraints on the algorithms of the heuristic.
fn preference(
    workspace_bytes: usize,
) -> Result<Descriptor<sys::cublasLtMatmulPreference_t>, LtError> {
    use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
    let preference = Descriptor {
        raw: result::create_matmul_pref().map_err(no_algorithm)?,
        destroy: result::destroy_matmul_pref,
    };
    let set = |attribute, value: *const c_void, bytes| {
        // SAFETY: the preference lives, and `bytes` lie at `value`; the library copies them.
        unsafe { result::set_matmul_pref_attribute(preference.raw, attribute, value, bytes) }
            .map_err(no_algorithm)
    };
    // Slices of K are added in fp32, in a workspace: never in C's own type, which may be bf16.
    let schemes = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
    let mask = Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK;
    set(mask, (&raw const schemes).cast(), size_of::<u32>())?;
    let most: u64 = workspace_bytes as u64;
    let bytes = Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    set(bytes, (&raw const most).cast(), size_of::<u64>())?;
    for alignment in [
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
    ] {
        set(
            alignment,
            (&raw const ALIGNMENT_BYTES).cast(),
            size_of::<u32>(),
        )?;
    }
    Ok(preference)
}

fn data_type(precision: Precision) -> sys::cudaDataType {
    match precision {
        Precision::Float32 => sys::cudaDataType::CUDA_R_32F,
        Precision::Bfloat16 => sys::cudaDataType::CUDA_R_16BF,
        Precision::Float16 => sys::cudaDataType::CUDA_R_16F,
    }
}

/// The library's epilogue, or the reason that there is none. Its GELU is the tanh form. In the forward it takes sums
/// before they are rounded to aux: a rung that recomputes GELU from aux would give other bits.
fn epilogue(epilogue: Epilogue) -> Result<Epilogues, &'static str> {
    match epilogue {
        Epilogue::None => Ok(Epilogues::CUBLASLT_EPILOGUE_DEFAULT),
        Epilogue::Bias => Ok(Epilogues::CUBLASLT_EPILOGUE_BIAS),
        Epilogue::BiasGelu(_) => Err("has only a GELU of sums before they are rounded"),
        Epilogue::GeluBackward(Gelu::Tanh) => Ok(Epilogues::CUBLASLT_EPILOGUE_DGELU),
        Epilogue::GeluBackward(Gelu::Erf) => Err("has no GELU with erf"),
    }
}

fn has_bias(epilogue: Epilogue) -> bool {
    matches!(epilogue, Epilogue::Bias | Epilogue::BiasGelu(_))
}

fn has_aux(epilogue: Epilogue) -> bool {
    matches!(epilogue, Epilogue::BiasGelu(_) | Epilogue::GeluBackward(_))
}
