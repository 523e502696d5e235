// compute: 90a
// Products of f16 on compute capability 9.0: the instances of gemm_wgmma.cuh. src/ops/gemm/ptx/tile.rs lists them, too.
#include "gemm_wgmma.cuh"

//               BN STAGES
GEMM_WGMMA(f16, __half, 256, 4)
GEMM_WGMMA(f16, __half, 128, 6)
