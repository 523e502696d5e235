// compute: 90a
// Products of bf16 on compute capability 9.0: the instances of gemm_wgmma.cuh. src/ops/gemm/ptx/tile.rs lists them, too.
#include "gemm_wgmma.cuh"

//               BN STAGES
GEMM_WGMMA(bf16, __nv_bfloat16, 256, 4)
GEMM_WGMMA(bf16, __nv_bfloat16, 128, 6)
