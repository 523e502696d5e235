//! Just enough of cuBLAS, cuBLASLt, cuRAND and NVML: plain code on the card's checked memory.
//!
//! In reading order: the product that both BLAS libraries compute, then one file per library.
#![allow(non_snake_case)]

mod epilogue;
pub mod gemm;

pub mod blas;
pub mod blas_lt;
pub mod blas_status;
pub mod lt_algorithm;
pub mod lt_matmul;
pub mod refused;

pub mod nvml;
pub mod rand;

/// Makes products of cuBLASLt that are wrong, and says nothing.
pub const WRONG_PRODUCT: &str = "cublasLtMatmul.wrong";

/// The entry points that can be made to fail (`VGPU_FAIL`).
pub const REFUSABLE: &[&str] = &[
    "cublasCreate_v2",
    "cublasSgemm_v2",
    "cublasDgemm_v2",
    "cublasGemmEx",
    "cublasSgemmStridedBatched",
    "cublasDgemmStridedBatched",
    "cublasGemmStridedBatchedEx",
    "cublasLtCreate",
    "cublasLtMatmulAlgoGetHeuristic",
    "cublasLtMatmul",
    WRONG_PRODUCT,
    "curandCreateGenerator",
    "curandGenerate",
    "curandGenerateUniform",
    "curandGenerateUniformDouble",
    "curandGenerateNormal",
    "curandGenerateNormalDouble",
];
