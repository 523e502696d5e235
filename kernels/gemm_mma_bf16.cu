// compute: 80
// Products of bf16 on tensor cores: the instances of gemm_mma.cuh. src/ops/gemm/ptx/tile.rs lists them, too.
#include "gemm_mma.cuh"

//                            BM   BN  BK  WM  WN STAGES
GEMM_MMA(bf16, __nv_bfloat16, 128, 256, 32, 64, 64, 4)
GEMM_MMA(bf16, __nv_bfloat16, 256, 128, 32, 64, 64, 4)
GEMM_MMA(bf16, __nv_bfloat16, 128, 256, 64, 64, 64, 3)
GEMM_MMA(bf16, __nv_bfloat16, 256, 128, 64, 64, 64, 3)
GEMM_MMA(bf16, __nv_bfloat16, 128, 128, 32, 64, 64, 4)
GEMM_MMA(bf16, __nv_bfloat16, 128, 128, 64, 64, 32, 3)
GEMM_MMA(bf16, __nv_bfloat16, 128, 64, 32, 64, 32, 4)
GEMM_MMA(bf16, __nv_bfloat16, 128, 64, 64, 64, 32, 3)
GEMM_MMA(bf16, __nv_bfloat16, 64, 128, 32, 32, 64, 4)
GEMM_MMA(bf16, __nv_bfloat16, 64, 128, 64, 32, 64, 3)
GEMM_MMA(bf16, __nv_bfloat16, 64, 64, 32, 32, 32, 4)
GEMM_MMA(bf16, __nv_bfloat16, 64, 64, 64, 32, 32, 3)
