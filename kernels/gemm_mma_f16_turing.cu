// compute: 75
// Products of f16 on the tensor cores of Turing, which has no bf16, no tf32 and no cp.async: the instances of
// gemm_mma.cuh. src/ops/gemm/ptx/tile.rs lists them, too. Its blocks have 64 KiB of shared memory at most.
#include "gemm_mma.cuh"

//                    BM   BN  BK  WM  WN STAGES
GEMM_MMA(f16, __half, 128, 128, 32, 64, 32, 2)
GEMM_MMA(f16, __half, 128, 64, 32, 64, 32, 2)
GEMM_MMA(f16, __half, 64, 128, 32, 32, 64, 2)
GEMM_MMA(f16, __half, 64, 64, 32, 32, 32, 2)
