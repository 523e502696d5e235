//! Entry points that candle links and nothing here needs: every call says its name.

use std::ffi::c_uint;

use crate::driver::state::say;

/// `CUBLAS_STATUS_NOT_SUPPORTED`.
const BLAS: c_uint = 15;
/// `CURAND_STATUS_INTERNAL_ERROR`: there is no kinder word.
const RAND: c_uint = 999;

macro_rules! refused {
    ($status:ident: $($name:ident)*) => {
        $(
            #[doc = concat!("Refuses `", stringify!($name), "`.")]
            ///
            /// # Safety
            /// None is needed.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name() -> c_uint {
                say(concat!(stringify!($name), ": this function is not implemented"));
                $status
            }
        )*
    };
}

refused! { BLAS:
    cublasSgemv_v2 cublasDgemv_v2 cublasSasum_v2 cublasDasum_v2 cublasHgemm cublasGemmBatchedEx
    cublasGemmGroupedBatchedEx cublasSgemmBatched cublasDgemmBatched cublasHgemmStridedBatched
    cublasLtLoggerOpenFile cublasLtLoggerSetLevel cublasLtLoggerSetFile cublasLtLoggerSetMask
    cublasLtMatmulAlgoInit cublasLtMatmulAlgoGetIds cublasLtMatmulAlgoConfigSetAttribute
    cublasLtMatmulAlgoCapGetAttribute cublasLtMatrixTransform cublasLtMatrixLayoutGetAttribute
    cublasLtMatmulDescGetAttribute cublasLtMatmulPreferenceGetAttribute
}

refused! { RAND:
    curandGenerateLongLong curandGenerateLogNormal curandGenerateLogNormalDouble
    curandGeneratePoisson curandCreateGeneratorHost curandSetGeneratorOrdering
    curandSetQuasiRandomGeneratorDimensions
}
